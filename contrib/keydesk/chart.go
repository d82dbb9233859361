package keydesk

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/senderauth/senderauth"
)

// A chart is a drawing of stacked bars. Colors are classes of the style sheet, because
// the policy of the page allows no style in the drawing.
type chart struct {
	Width, Height int
	Left, Bottom  int // of the area of the bars
	Rects         []rect
	Columns       []column // invisible, over the bars: they have the texts
	Lines         []line
	Labels        []label
	Summary       string // for those who do not see the drawing
}

type (
	rect struct {
		X, Y, Width, Height float64
		Class               string
	}
	column struct {
		X, Width float64
		Text     string
	}
	line struct {
		Y    float64
		Text string
	}
	label struct {
		X    float64
		Text string
	}
)

const chartWidth, chartHeight, chartLeft, chartTop, chartBottom = 960, 260, 56, 12, 228

// newChart draws the bars of a period.
func newChart(bars []bar, p period) chart {
	c := chart{Width: chartWidth, Height: chartHeight, Left: chartLeft, Bottom: chartBottom}
	top := scale(highest(bars))
	step := float64(chartWidth-chartLeft) / float64(len(bars))
	gap := min(3, step/5)
	height := func(n int64) float64 { return float64(n) / float64(top) * (chartBottom - chartTop) }
	for i, b := range bars {
		x, y := chartLeft+float64(i)*step, float64(chartBottom)
		counts := byClass(b.Counts)
		for _, class := range classes {
			if n := counts[class]; n > 0 {
				// A single request among millions must be seen, too.
				h := max(height(n), 1)
				y -= h
				c.Rects = append(c.Rects, rect{round(x + gap/2), round(y), round(step - gap), round(h), class})
			}
		}
		c.Columns = append(c.Columns, column{round(x), round(step), describe(b, p)})
		if text := labelOf(b.Start, i, p); text != "" {
			c.Labels = append(c.Labels, label{round(x + step/2), text})
		}
	}
	for _, part := range []int64{0, 1, 2} {
		n := top * part / 2
		c.Lines = append(c.Lines, line{round(chartBottom - height(n)), short(n)})
	}
	c.Summary = fmt.Sprintf("Requests in the last %s. The highest bar has %d.", p.Label, highest(bars))
	return c
}

func byClass(counts map[senderauth.Outcome]int64) map[string]int64 {
	sums := make(map[string]int64)
	for o, n := range counts {
		sums[classOf(o)] += n
	}
	return sums
}

// highest returns the height of the highest bar in requests.
func highest(bars []bar) int64 {
	var most int64
	for _, b := range bars {
		var n int64
		for _, requests := range b.Counts {
			n += requests
		}
		most = max(most, n)
	}
	return most
}

// scale returns the top of the axis: the next of 2, 4, 10, 20, 40, 100, …
func scale(most int64) int64 {
	for unit := int64(1); unit <= 1e17; unit *= 10 {
		for _, n := range []int64{2, 4, 10} {
			if most <= n*unit {
				return n * unit
			}
		}
	}
	return most
}

// describe says what a bar shows, as the tip of the pointer.
func describe(b bar, p period) string {
	when := b.Start.Format("2 Jan, 15:04 UTC")
	if p.Bar == 24*time.Hour {
		when = b.Start.Format("2 Jan 2006")
	}
	totals, all := totalsOf([]bar{b})
	if all == 0 {
		return when + ": no requests"
	}
	texts := make([]string, len(totals))
	for i, t := range totals {
		texts[i] = fmt.Sprintf("%d %s", t.Requests, t.Outcome)
	}
	return when + ": " + strings.Join(texts, ", ")
}

// labelOf returns the text below a bar, or "" below most of them.
func labelOf(start time.Time, i int, p period) string {
	switch {
	case p.Bar == 24*time.Hour && i%5 == 2:
		return start.Format("2 Jan")
	case p.Bars == 24 && start.Hour()%4 == 0:
		return start.Format("15:04")
	case p.Bars > 24 && p.Bar == time.Hour && start.Hour() == 12:
		return start.Format("Mon 2 Jan")
	}
	return ""
}

// short writes a number in at most five characters.
func short(n int64) string {
	units := []struct {
		size int64
		name string
	}{{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}}
	for _, u := range units {
		if n >= u.size {
			return strconv.FormatInt(n/u.size, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}

// round keeps the text of a drawing short.
func round(x float64) float64 { return float64(int(x*10+0.5)) / 10 }
