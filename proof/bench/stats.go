package main

import (
	"math"
	"slices"
)

// quantile of at least one value, between the two nearest where it falls between.
func quantile(values []float64, q float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	at := q * float64(len(sorted)-1)
	low := int(at)
	high := min(low+1, len(sorted)-1)
	return sorted[low] + (sorted[high]-sorted[low])*(at-float64(low))
}

func median(values []float64) float64 { return quantile(values, 0.5) }

// spread is the middle half of the values as a part of their median: (p75-p25)/median.
func spread(values []float64) float64 {
	m := median(values)
	if m == 0 {
		return 0
	}
	return (quantile(values, 0.75) - quantile(values, 0.25)) / math.Abs(m)
}

// divide pairs the rounds: both sides of a ratio are measured one after the other, so that what the
// machine does meanwhile touches both.
func divide(ours, theirs []float64) []float64 {
	ratios := make([]float64, len(ours))
	for i := range ours {
		ratios[i] = ours[i] / theirs[i]
	}
	return ratios
}
