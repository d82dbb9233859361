package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/senderauth/senderauth/contrib/internal/tools/modules"
	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	"golang.org/x/mod/zip"
)

// write pins the modules of the clone to the version, and writes those that are published
// to the proxy. A module comes after those that it requires, so that the Go command can
// read their checksums from the proxy.
func (r *release) write(ctx context.Context, clone string) error {
	env, err := r.goEnv(ctx)
	if err != nil {
		return err
	}
	committed, err := command(ctx, clone, nil, "git", "log", "-1", "--format=%cI")
	if err != nil {
		return err
	}
	at, err := time.Parse(time.RFC3339, committed)
	if err != nil {
		return err
	}
	for _, m := range r.modules {
		dir := filepath.Join(clone, m.Dir)
		if err := r.pin(m); err != nil {
			return err
		}
		if err := r.tidy(ctx, m, dir, env); err != nil {
			return fmt.Errorf("module %s: %w", m.Path(), err)
		}
		if !m.Published() {
			continue
		}
		if err := writeProxy(r.proxy, module.Version{Path: m.Path(), Version: r.version}, dir, at); err != nil {
			return fmt.Errorf("module %s: %w", m.Path(), err)
		}
	}
	return nil
}

// pin requires the modules of the repository in the version of the release. A published
// module loses its replacements: "go install" refuses a module that has any. The other
// modules keep theirs, and are tested against what lies beside them.
func (r *release) pin(m *modules.Module) error {
	for _, required := range m.Requires(r.modules) {
		if err := m.File.AddRequire(required.Path(), r.version); err != nil {
			return err
		}
	}
	if m.Published() {
		// A module may also replace what only the tests of its dependencies require.
		for _, other := range r.modules {
			if err := m.File.DropReplace(other.Path(), ""); err != nil {
				return err
			}
		}
		for _, left := range m.File.Replace {
			if left.Old.Path != "" { // not dropped
				return fmt.Errorf("module %s replaces %s: a release cannot have replacements", m.Path(), left.Old.Path)
			}
		}
	}
	m.File.Cleanup()
	return nil
}

// tidy writes the pinned go.mod, and a go.sum that has the checksums of the release.
func (r *release) tidy(ctx context.Context, m *modules.Module, dir string, env []string) error {
	name, pinned := filepath.Join(dir, "go.mod"), modfile.Format(m.File.Syntax)
	if err := os.WriteFile(name, pinned, 0o644); err != nil {
		return err
	}
	if _, err := command(ctx, dir, env, "go", "mod", "tidy"); err != nil {
		return err
	}
	tidied, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if !bytes.Equal(tidied, pinned) {
		return errors.New("go mod tidy changes go.mod")
	}
	return nil
}

// writeProxy writes one module version to a module proxy in the layout that
// https://go.dev/ref/mod#goproxy-protocol describes.
func writeProxy(proxy string, v module.Version, dir string, at time.Time) (err error) {
	escaped, err := module.EscapePath(v.Path)
	if err != nil {
		return err
	}
	base := filepath.Join(proxy, filepath.FromSlash(escaped), "@v")
	if err := os.MkdirAll(base, 0o755); err != nil {
		return err
	}
	goMod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		return err
	}
	info, err := json.Marshal(struct {
		Version string
		Time    time.Time
	}{v.Version, at.UTC()})
	if err != nil {
		return err
	}
	list, err := os.ReadFile(filepath.Join(base, "list"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if !strings.Contains("\n"+string(list), "\n"+v.Version+"\n") {
		list = append(list, v.Version+"\n"...)
	}
	archive, err := os.Create(filepath.Join(base, v.Version+".zip"))
	if err != nil {
		return err
	}
	return errors.Join(
		zip.CreateFromDir(archive, v, dir), archive.Close(),
		os.WriteFile(filepath.Join(base, v.Version+".mod"), goMod, 0o644),
		os.WriteFile(filepath.Join(base, v.Version+".info"), info, 0o644),
		os.WriteFile(filepath.Join(base, "list"), list, 0o644),
	)
}

// goEnv returns the environment in which the Go command finds the release in the proxy.
// Its own module cache keeps an earlier try of the same version from being used. What it
// has downloaded before comes from the usual cache.
func (r *release) goEnv(ctx context.Context) ([]string, error) {
	values, err := command(ctx, r.repo, nil, "go", "env", "GOMODCACHE", "GOPROXY", "GOFLAGS")
	if err != nil {
		return nil, err
	}
	usual := strings.Split(values, "\n")
	if len(usual) < 3 {
		usual = append(usual, "") // an empty GOFLAGS at the end was trimmed
	}
	root := r.modules[0].Path()
	return []string{
		"GOWORK=off",
		"GOFLAGS=" + strings.TrimSpace(usual[2]+" -modcacherw"),
		"GOMODCACHE=" + filepath.Join(r.temp, "modcache"),
		"GOPROXY=" + strings.Join([]string{"file://" + r.proxy, "file://" + filepath.Join(usual[0], "cache", "download"), usual[1]}, ","),
		"GONOSUMDB=" + root + "," + root + "/*",
		"GOTOOLCHAIN=local",
	}, nil
}
