package keydesk

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"html/template"
	"net/http"
	"path"
	"time"
)

//go:embed static/*
var staticFiles embed.FS

//go:embed templates/*.html
var templateFiles embed.FS

// templates has one set for each page, with the layout and the parts.
var templates = func() map[string]*template.Template {
	shared := template.Must(template.New("").Funcs(template.FuncMap{
		"day":     day,
		"instant": instant,
		"ago":     ago,
		"stamp":   stamp,
		"span":    span,
		"field":   newFieldPart,
		"copy":    newCopyPart,
		"list":    newListPart,
		"about":   newAboutPart,
		"number":  number[int64],
		"count":   number[int],
	}).ParseFS(templateFiles, "templates/layout.html", "templates/parts.html"))
	entries, err := templateFiles.ReadDir("templates")
	if err != nil {
		panic(err) // the files are embedded
	}
	sets := make(map[string]*template.Template)
	for _, e := range entries {
		if e.Name() != "layout.html" && e.Name() != "parts.html" {
			sets[e.Name()] = template.Must(template.Must(shared.Clone()).ParseFS(templateFiles, "templates/"+e.Name()))
		}
	}
	return sets
}()

// assets are the static files by name, and assetURLs their URLs, which change with
// their content.
var assets, assetURLs = func() (map[string][]byte, map[string]string) {
	entries, err := staticFiles.ReadDir("static")
	if err != nil {
		panic(err) // the files are embedded
	}
	files, urls := make(map[string][]byte), make(map[string]string)
	for _, e := range entries {
		content, err := staticFiles.ReadFile("static/" + e.Name())
		if err != nil {
			panic(err)
		}
		sum := sha256.Sum256(content)
		files[e.Name()] = content
		urls[e.Name()] = "static/" + e.Name() + "?v=" + hex.EncodeToString(sum[:6])
	}
	return files, urls
}()

var contentTypes = map[string]string{
	".css": "text/css; charset=utf-8",
	".js":  "text/javascript; charset=utf-8",
	".svg": "image/svg+xml",
}

// mountStatic serves the static files to everybody: the page that refuses a stranger
// needs them, too.
func (d *desk) mountStatic() {
	for name, content := range assets {
		d.mux.HandleFunc("GET /static/"+name, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", contentTypes[path.Ext(name)])
			w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
		})
	}
}
