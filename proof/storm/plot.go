package main

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// Of the picture, in pixels.
const (
	width, height = 760, 220 // of one chart
	left, right   = 64, 16
	top, bottom   = 34, 34
)

var colours = []string{"#8a8a8a", "#c0392b", "#2471a3", "#1e8449"}

// axis is a logarithmic axis from one power of ten to another.
type axis struct {
	low, high float64
	label     func(float64) string
}

func (a axis) y(v float64) float64 {
	v = math.Log10(min(max(v, a.low), a.high))
	low, high := math.Log10(a.low), math.Log10(a.high)
	return top + (height-top-bottom)*(1-(v-low)/(high-low))
}

// plot draws the loads at once, and what callers waited, over time.
func plot(p plan, runs []run) string {
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", width, 2*height+24)
	b.WriteString(`<rect width="100%" height="100%" fill="#ffffff"/>` + "\n")
	total := p.total().Seconds()
	loads := axis{1, 10_000, func(v float64) string { return fmt.Sprintf("%.0f", v) }}
	chart(&b, 0, fmt.Sprintf("loads at once: %d keys, TTL %v, a load takes %v", p.Keys, p.TTL, p.Load), total, loads)
	waits := axis{0.1, 1000, func(v float64) string { return fmt.Sprintf("%g ms", v) }}
	chart(&b, height, "p99 of what callers waited", total, waits)
	for i, r := range runs {
		colour := colours[i%len(colours)]
		if r.Peak > 0 {
			line(&b, 0, colour, p, total, len(r.Concurrency), func(n int) float64 { return loads.y(r.Concurrency[n]) })
		}
		line(&b, height, colour, p, total, len(r.Latency), func(n int) float64 {
			return waits.y(float64(r.Latency[n]) / float64(time.Millisecond))
		})
		x := left + i*170
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="12" height="12" fill="%s"/><text x="%d" y="%d">%s</text>`+"\n",
			x, 2*height+2, colour, x+17, 2*height+12, r.Name)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func chart(b *strings.Builder, down int, title string, seconds float64, y axis) {
	fmt.Fprintf(b, `<text x="%d" y="%d" font-weight="bold">%s</text>`+"\n", left, down+20, title)
	for v := y.low; v <= y.high*1.01; v *= 10 {
		at := float64(down) + y.y(v)
		fmt.Fprintf(b, `<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#dddddd"/><text x="%d" y="%.1f" text-anchor="end">%s</text>`+"\n",
			left, width-right, at, at, left-6, at+4, y.label(v))
	}
	step := max(1, math.Round(seconds/9))
	for s := 0.0; s <= seconds; s += step {
		x := left + (width-left-right)*s/seconds
		fmt.Fprintf(b, `<text x="%.1f" y="%d" text-anchor="middle">%.0f s</text>`+"\n", x, down+height-bottom+16, s)
	}
}

func line(b *strings.Builder, down int, colour string, p plan, seconds float64, n int, y func(int) float64) {
	fmt.Fprintf(b, `<polyline fill="none" stroke="%s" stroke-width="1.5" points="`, colour)
	for i := range n {
		at := (float64(i) + 0.5) * p.Bucket.Seconds()
		if at > seconds {
			break
		}
		fmt.Fprintf(b, "%.1f,%.1f ", left+(width-left-right)*at/seconds, float64(down)+y(i))
	}
	b.WriteString(`"/>` + "\n")
}
