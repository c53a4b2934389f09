package report

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// A chart is an SVG that stands in the page: colours are the page's variables, so that it follows the reader's light or dark and
// the printer's paper. Each is drawn twice, wide and narrow, because letters that shrink with the picture can't be read on a
// telephone.

// svg is a picture that is being drawn.
type svg struct {
	b             strings.Builder
	width, height float64
}

func newSVG(width, height float64, label string) *svg {
	s := &svg{width: width, height: height}
	fmt.Fprintf(&s.b, `<svg viewBox="0 0 %g %g" width="%g" height="%g" role="img" aria-label="%s">`, width, height, width, height, html.EscapeString(label))
	return s
}

func (s *svg) end() string { return s.b.String() + "</svg>" }

func (s *svg) line(x1, y1, x2, y2 float64, class string) {
	fmt.Fprintf(&s.b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" class="%s"/>`, x1, y1, x2, y2, class)
}

func (s *svg) text(x, y float64, anchor, class, text string) {
	fmt.Fprintf(&s.b, `<text x="%.1f" y="%.1f" text-anchor="%s" class="%s">%s</text>`, x, y, anchor, class, html.EscapeString(text))
}

func (s *svg) rect(x, y, w, h float64, class, title string) {
	fmt.Fprintf(&s.b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="2" class="%s"><title>%s</title></rect>`, x, y, max(0, w), h, class, html.EscapeString(title))
}

func (s *svg) dot(x, y float64, class, title string) {
	fmt.Fprintf(&s.b, `<circle cx="%.1f" cy="%.1f" r="5" class="%s"><title>%s</title></circle>`, x, y, class, html.EscapeString(title))
}

func (s *svg) path(points [][2]float64, class string) {
	var d strings.Builder
	for i, p := range points {
		verb := "L"
		if i == 0 {
			verb = "M"
		}
		fmt.Fprintf(&d, "%s%.1f %.1f", verb, p[0], p[1])
	}
	fmt.Fprintf(&s.b, `<path d="%s" class="%s"/>`, d.String(), class)
}

// logAxis maps a range of many powers of ten.
type logAxis struct{ low, high, from, to float64 }

func (a logAxis) at(v float64) float64 {
	v = min(max(v, a.low), a.high)
	return a.from + (a.to-a.from)*math.Log(v/a.low)/math.Log(a.high/a.low)
}

// ticks are the powers of ten within the axis, and their halves and doubles where there are few.
func (a logAxis) ticks() []float64 {
	steps := []float64{1}
	if a.high/a.low < 1000 {
		steps = []float64{1, 2, 5}
	}
	var list []float64
	for e := math.Floor(math.Log10(a.low)); e <= math.Log10(a.high); e++ {
		for _, s := range steps {
			if v := s * math.Pow(10, e); v >= a.low*0.999 && v <= a.high*1.001 {
				list = append(list, v)
			}
		}
	}
	return list
}

// every keeps at most n of the ticks, evenly.
func every(list []float64, n int) []float64 {
	step := (len(list) + n - 1) / max(1, n)
	var kept []float64
	for i, v := range list {
		if i%max(1, step) == 0 {
			kept = append(kept, v)
		}
	}
	return kept
}

// brief is a number for an axis: 5k, 20M.
func brief(v float64) string {
	for _, unit := range []struct {
		size float64
		name string
	}{{1e9, "G"}, {1e6, "M"}, {1e3, "k"}} {
		if v >= unit.size*0.9999 {
			return fmt.Sprintf("%.3g%s", v/unit.size, unit.name)
		}
	}
	return fmt.Sprintf("%.3g", v)
}

// series is a line of a chart.
type series struct {
	name, class string
	y           []float64
}

// place is a spot on the x axis that is marked.
type place struct {
	x     float64
	label string
}

// lines draws lines over a logarithmic x, with a logarithmic y in dollars.
func lines(width float64, label, unit string, x []float64, all []series, here place) string {
	const top, bottom, left, height = 30.0, 44.0, 52.0, 320.0
	right := 118.0
	if width < 500 {
		right = 84
	}
	low, high := math.Inf(1), 0.0
	for _, s := range all {
		for _, v := range s.y {
			if v > 0 {
				low, high = min(low, v), max(high, v)
			}
		}
	}
	if high == 0 || len(x) < 2 {
		return ""
	}
	low = max(low, high/1e5)
	s := newSVG(width, height, label)
	xs := logAxis{x[0], x[len(x)-1], left, width - right}
	ys := logAxis{low / 1.2, high * 1.2, height - bottom, top}
	for _, v := range every(ys.ticks(), 7) {
		s.line(left, ys.at(v), width-right, ys.at(v), "grid")
		s.text(left-6, ys.at(v)+4, "end", "tick", "$"+brief(v))
	}
	for _, v := range every(xs.ticks(), int(width/90)) {
		s.line(xs.at(v), height-bottom, xs.at(v), height-bottom+4, "axis")
		s.text(xs.at(v), height-bottom+18, "middle", "tick", brief(v))
	}
	s.line(left, height-bottom, width-right, height-bottom, "axis")
	s.text((left+width-right)/2, height-6, "middle", "tick", unit)
	if here.x >= x[0] && here.x <= x[len(x)-1] {
		s.line(xs.at(here.x), top-6, xs.at(here.x), height-bottom, "here")
		s.text(xs.at(here.x), top-12, "middle", "tick strong", here.label)
	}
	var ends []float64
	for _, one := range all {
		var points [][2]float64
		for i, v := range one.y {
			if v > 0 {
				points = append(points, [2]float64{xs.at(x[i]), ys.at(v)})
			}
		}
		s.path(points, "curve "+one.class)
		ends = append(ends, points[len(points)-1][1]+4)
	}
	for i, y := range apart(ends, 16) {
		s.text(width-right+8, y, "start", "name "+all[i].class, all[i].name)
	}
	return s.end()
}

// apart moves labels so that none covers another, in the order in which they are.
func apart(y []float64, least float64) []float64 {
	moved := append([]float64(nil), y...)
	for range 50 {
		for i := range moved {
			for j := range moved {
				if d := moved[i] - moved[j]; i != j && math.Abs(d) < least && (y[i] > y[j] || y[i] == y[j] && i > j) {
					shift := (least - d) / 2
					moved[i] += shift
					moved[j] -= shift
				}
			}
		}
	}
	return moved
}

// bar is a row of a bar chart: two amounts.
type bar struct {
	name string
	a, b float64
}

// bars draws pairs of horizontal bars in dollars.
func bars(width float64, label string, rows []bar, classes, names [2]string) string {
	const rowHeight, top = 46.0, 26.0
	most := 0.0
	for _, r := range rows {
		most = max(most, r.a, r.b)
	}
	if most == 0 {
		return ""
	}
	left, right := 130.0, 84.0
	if width < 500 {
		left, right = 92, 74
	}
	s := newSVG(width, top+rowHeight*float64(len(rows))+6, label)
	s.rect(left, 4, 12, 12, "fill "+classes[0], names[0])
	s.text(left+18, 14, "start", "tick", names[0])
	s.rect(left+90, 4, 12, 12, "fill "+classes[1], names[1])
	s.text(left+108, 14, "start", "tick", names[1])
	for i, r := range rows {
		y := top + rowHeight*float64(i)
		s.text(left-8, y+24, "end", "name", cut(r.name, int(left/7)))
		for j, v := range []float64{r.a, r.b} {
			w := (width - left - right) * v / most
			at := y + 4 + float64(j)*17
			s.rect(left, at, w, 14, "fill "+classes[j], fmt.Sprintf("%s, %s: %s", r.name, names[j], USD(v)))
			s.text(left+w+6, at+12, "start", "tick", USD(v))
		}
	}
	s.line(left, top, left, top+rowHeight*float64(len(rows)), "axis")
	return s.end()
}

// stop is a row of a chart of points on one logarithmic axis.
type stop struct {
	name string
	at   float64
	ok   bool
}

// stops draws a point for each row, and one line for where we are.
func stops(width float64, label, unit string, rows []stop, here place, low, high float64) string {
	const rowHeight, top, bottom = 34.0, 34.0, 44.0
	left, right := 170.0, 70.0
	if width < 500 {
		left, right = 162, 44
	}
	height := top + rowHeight*float64(len(rows)) + bottom
	s := newSVG(width, height, label)
	xs := logAxis{low, high, left, width - right}
	for _, v := range every(xs.ticks(), int((width-left-right)/60)) {
		s.line(xs.at(v), top, xs.at(v), height-bottom, "grid")
		s.text(xs.at(v), height-bottom+18, "middle", "tick", brief(v))
	}
	s.text((left+width-right)/2, height-6, "middle", "tick", unit)
	s.line(xs.at(here.x), top-8, xs.at(here.x), height-bottom, "here")
	s.text(xs.at(here.x), top-14, "middle", "tick strong", here.label)
	for i, r := range rows {
		y := top + rowHeight*(float64(i)+0.5)
		s.text(left-8, y+4, "end", "name", r.name)
		s.line(left, y, xs.at(r.at), y, "reach")
		class, title := "fill nodes", r.name+" breaks even here"
		if !r.ok {
			class, title = "hollow nodes", r.name+" would break even here, but does not hold that load"
		}
		s.dot(xs.at(r.at), y, class, title)
		s.text(xs.at(r.at)+10, y+4, "start", "tick", brief(r.at))
	}
	return s.end()
}

// cut shortens a name to n letters.
func cut(text string, n int) string {
	r := []rune(text)
	if len(r) <= n {
		return text
	}
	return string(r[:max(1, n-1)]) + "…"
}
