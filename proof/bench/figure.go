package main

import (
	_ "embed"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

// Figure is one line of output.
type Figure struct {
	Area   string  `json:"area"`
	Row    string  `json:"row"`
	Versus string  `json:"versus"` // the peer, or "-"
	Value  float64 `json:"value"`  // flatrate's median
	Unit   string  `json:"unit"`
	Ratio  number  `json:"ratio"`  // the median of the rounds' ratios to the peer; null without one
	Better string  `json:"better"` // "higher" or "lower"
	Spread float64 `json:"spread"` // (p75-p25)/median of the ratios, or of the values without a peer
}

// number is null in JSON where there is none (NaN), and where JSON has none for it.
type number float64

// MarshalJSON writes the number, or null.
func (n number) MarshalJSON() ([]byte, error) {
	if math.IsNaN(float64(n)) || math.IsInf(float64(n), 0) {
		return []byte("null"), nil
	}
	return json.Marshal(float64(n))
}

func (f Figure) key() rowKey { return rowKey{f.Area, f.Row, f.Versus} }

// counts is what a target is held against.
func (f Figure) counts() float64 {
	if f.Versus == "-" {
		return f.Value
	}
	return float64(f.Ratio)
}

type rowKey struct{ area, row, versus string }

// target is what a row owes; both numbers count in the direction of better.
type target struct {
	better          string
	target, stretch float64
}

// meets says "stretch", "yes" or "no".
func (t target) meets(f Figure) string {
	reaches := func(limit float64) bool {
		if t.better == "lower" {
			return f.counts() <= limit
		}
		return f.counts() >= limit
	}
	switch {
	case reaches(t.stretch):
		return "stretch"
	case reaches(t.target):
		return "yes"
	}
	return "no"
}

//go:embed targets.csv
var targetsCSV string

// readTargets reads area,row,versus,better,target,stretch,note.
func readTargets(text string) (map[rowKey]target, error) {
	lines, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("targets.csv: %w", err)
	}
	targets := make(map[rowKey]target, len(lines))
	for _, f := range lines[1:] {
		goal, err1 := strconv.ParseFloat(f[4], 64)
		stretch, err2 := strconv.ParseFloat(f[5], 64)
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("targets.csv: %s %s: %w", f[0], f[1], err)
		}
		targets[rowKey{f[0], f[1], f[2]}] = target{better: f[3], target: goal, stretch: stretch}
	}
	return targets, nil
}

// table writes figures for people, each as it comes.
type table struct {
	w       io.Writer
	targets map[rowKey]target
	lines   int
}

const tableLine = "%-24s %-24s %14s %8s %7s %7s %8s  %s\n"

func (t *table) write(f Figure) {
	if t.lines++; t.lines == 1 {
		fmt.Fprintf(t.w, tableLine, "row", "versus", "value", "ratio", "spread", "target", "stretch", "met")
	}
	ratio, goal, stretch, met := "", "", "", ""
	if f.Versus != "-" {
		ratio = fmt.Sprintf("%.2f", float64(f.Ratio))
	}
	if owed, ok := t.targets[f.key()]; ok {
		goal, stretch, met = short(owed.target), short(owed.stretch), owed.meets(f)
	}
	fmt.Fprintf(t.w, tableLine, f.Row, f.Versus, short(f.Value)+" "+f.Unit, ratio,
		fmt.Sprintf("%.0f%%", f.Spread*100), goal, stretch, met)
}

// short has three digits that count, and no exponent.
func short(x float64) string {
	if math.Abs(x) >= 100 {
		return strconv.FormatFloat(x, 'f', 0, 64)
	}
	return strconv.FormatFloat(x, 'g', 3, 64)
}
