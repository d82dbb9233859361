package main

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/go-analyze/charts"
)

const (
	beginResults = "<!-- results: written by -write -->\n"
	endResults   = "<!-- end of results -->\n"
)

// publish writes the report into the README in the folder of this file, and the charts
// into the same folder.
func (r *results) publish(report string) error {
	_, source, _, ok := runtime.Caller(0)
	if !ok {
		return errors.New("-write: cannot find the folder of the program")
	}
	folder := filepath.Dir(source)
	path := filepath.Join(folder, "README.md")
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok1 := strings.Cut(string(text), beginResults)
	_, after, ok2 := strings.Cut(rest, endResults)
	if !ok1 || !ok2 {
		return errors.New("-write: the README has no markers")
	}
	list := []chart{
		{"serial.svg", "Admitted, serial: nanoseconds for each request", []cell{{nil, "one", 1}, {nil, "uniform", 1}}, nanoseconds(1)},
		{"parallel.svg", "Admitted, GOMAXPROCS 8: nanoseconds for each request", []cell{{nil, "one", 8}, {nil, "uniform", 8}}, nanoseconds(8)},
		{"loopback.svg", "Over loopback: nanoseconds of the server's processor for each request", []cell{{nil, "loopback one", 1}, {nil, "loopback uniform", 1}}, nanoseconds(1)},
	}
	pictures := ""
	for _, c := range list {
		svg, err := r.draw(c)
		if err != nil {
			return err
		}
		if svg == nil {
			continue
		}
		if err := os.WriteFile(filepath.Join(folder, c.file), svg, 0o644); err != nil {
			return err
		}
		pictures += "![" + c.title + "](" + c.file + ")\n\n"
	}
	return os.WriteFile(path, []byte(before+beginResults+"\n"+pictures+report+"\n"+endResults+after), 0o644)
}

// margin leaves room for viewers without the font Roboto, in which the texts are
// measured. Their font may be wider.
const margin = "\u2003\u2003"

// A chart has a bar for each cell of each contender that limits.
type chart struct {
	file, title string
	cells       []cell
	measure     measure
}

// draw draws the chart. It returns nil if none of its cells was measured.
func (r *results) draw(c chart) ([]byte, error) {
	var names []string
	values := make([][]float64, len(c.cells))
	for i := len(r.contenders) - 1; i >= 0; i-- { // the first is on top
		one := r.contenders[i]
		if one.kind == check {
			continue
		}
		names = append(names, strings.ReplaceAll(one.name, "`", "")+margin)
		for j, at := range c.cells {
			at.contender = one
			s, ok := r.at(at, c.measure)
			if !ok {
				return nil, nil
			}
			values[j] = append(values[j], s.median)
		}
	}
	opt := charts.NewBarChartOptionWithData(values)
	opt.Horizontal = true
	opt.Title.Text = c.title
	opt.Title.FontStyle.FontSize = 12
	opt.CategoryAxis.Labels = names
	opt.CategoryAxis.LabelFontStyle.FontSize = 10
	for _, at := range c.cells {
		opt.Legend.SeriesNames = append(opt.Legend.SeriesNames, demandTitles[at.scenario]+margin)
	}
	opt.Legend.Offset = charts.OffsetStr{Left: charts.PositionRight}
	opt.Legend.FontStyle.FontSize = 10
	opt.ValueAxis = []charts.ValueAxisOption{{LabelFontStyle: charts.FontStyle{FontSize: 9}}}
	opt.ValueFormatter = number
	for i := range opt.SeriesList {
		opt.SeriesList[i].Label.Show = charts.Ptr(true)
		opt.SeriesList[i].Label.ValueFormatter = number
		opt.SeriesList[i].Label.FontStyle.FontSize = 9
	}
	painter := charts.NewPainter(charts.PainterOptions{
		OutputFormat: charts.ChartOutputSVG, Width: 900, Height: 90 + 42*len(names),
	})
	if err := painter.BarChart(opt); err != nil {
		return nil, err
	}
	return painter.Bytes()
}
