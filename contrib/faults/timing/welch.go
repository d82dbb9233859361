package main

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// Times are the times of both classes, in nanoseconds.
type times [2][]float64

// crops are the parts of all samples that are compared: the fastest of both classes
// together. What makes a sample slow is other programs and the garbage collector, and
// hides what is small. dudect tries a hundred parts.
var crops = []float64{1, 0.999, 0.99, 0.95, 0.9, 0.75, 0.5, 0.25}

// A comparison is the result of both classes' times.
type comparison struct {
	medians [2]time.Duration
	t       float64 // the largest absolute value
	crop    float64 // where t was found
}

const (
	mostT          = 4.5
	mostDifference = time.Microsecond
)

func (c comparison) difference() time.Duration { return (c.medians[0] - c.medians[1]).Abs() }

// differs reports whether the classes can be told apart.
func (c comparison) differs() bool { return c.t >= mostT || c.difference() > mostDifference }

func (s times) compare() (c comparison) {
	pooled := slices.Concat(s[0], s[1])
	slices.Sort(pooled)
	for class, x := range s {
		sorted := slices.Sorted(slices.Values(x))
		c.medians[class] = time.Duration(sorted[len(sorted)/2])
	}
	for _, crop := range crops {
		most := pooled[int(crop*float64(len(pooled)-1))]
		var sums [2]moments
		for class, x := range s {
			for _, v := range x {
				if v <= most {
					sums[class].add(v)
				}
			}
		}
		if t := math.Abs(welch(sums[0], sums[1])); t > c.t || c.crop == 0 {
			c.t, c.crop = t, crop
		}
	}
	return c
}

// moments are a count, a mean and a sum of squared deviations, by Welford's method.
type moments struct{ n, mean, squares float64 }

func (m *moments) add(v float64) {
	m.n++
	d := v - m.mean
	m.mean += d / m.n
	m.squares += d * (v - m.mean)
}

// welch returns Welch's t of two samples. It is 0 if one has fewer than two values, and
// infinite if the means differ and nothing else does.
func welch(a, b moments) float64 {
	if a.n < 2 || b.n < 2 || a.mean == b.mean {
		return 0
	}
	return (a.mean - b.mean) / math.Sqrt(a.squares/(a.n-1)/a.n+b.squares/(b.n-1)/b.n)
}

func share(crop float64) string { return fmt.Sprintf("%g %%", crop*100) }
