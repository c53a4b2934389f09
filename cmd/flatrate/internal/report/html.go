package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"

	"github.com/flatrate/flatrate/cost"
)

//go:embed estimate.html
var estimateHTML string

var estimatePage = template.Must(template.New("estimate").Funcs(template.FuncMap{
	"usd": USD, "service": ServiceName, "flatName": flatName, "flatText": flatText, "line": lineText, "breakEven": breakEvenText,
	"article": articleAmount, "sentence": sentence, "scale": scaleText, "printable": Printable, "doubt": doubt, "spread": spread,
}).Parse(estimateHTML))

// figure is a chart in both widths.
type figure struct{ Wide, Narrow template.HTML }

const wide, narrow = 760, 342

// page is what the template sees.
type page struct {
	cost.Estimate
	Headline string
	Sources  string
	Costs    figure
	Even     figure
	Shares   figure
	Input    func(name string, v float64) string
}

// EstimateHTML writes an estimate as one page that loads nothing: it can be mailed, and printed.
func EstimateHTML(w io.Writer, e cost.Estimate) error {
	p := page{Estimate: e, Sources: sourcesText(e), Headline: headline(e),
		Input: func(name string, v float64) string { return inputValue(e, name, v) }}
	scale, unit := "load", "times today's load"
	if len(e.BreakEven) > 0 {
		scale = e.BreakEven[0].ScaleUnit
	}
	here := place{1, "today"}
	if scale != "load" {
		unit = "daily " + scale
		for _, in := range e.Inputs {
			if in.Name == scale {
				here = place{in.Expected, brief(in.Expected) + " " + scale}
			}
		}
	}
	p.Costs = both(func(width float64) string { return costChart(width, unit, e, here) })
	p.Even = both(func(width float64) string { return evenChart(width, unit, e, here) })
	p.Shares = both(func(width float64) string { return shareChart(width, e) })
	return estimatePage.Execute(w, p)
}

// both draws a chart in both widths. What is in it was escaped when it was drawn.
func both(draw func(width float64) string) figure {
	return figure{template.HTML(draw(wide)), template.HTML(draw(narrow))} //nolint:gosec // escaped in svg.text and svg.rect
}

func headline(e cost.Estimate) string {
	switch {
	case len(e.Article) > 0:
		return "The article's figures, and the right ones"
	case e.Total.Verdict == cost.Stay:
		return "Stay on the metered services"
	case e.Total.Verdict == cost.UseServerless:
		return "Use ElastiCache Serverless"
	case e.Total.Verdict == cost.Mixed:
		return "Move some of it"
	}
	return "Switch to a flat rate"
}

func costChart(width float64, unit string, e cost.Estimate, here place) string {
	var x, metered, flat, server []float64
	for _, p := range e.Curve {
		k := p.KeptUSD // in all three it would only hide how they differ
		x, metered, flat, server = append(x, p.Scale), append(metered, p.MeteredUSD-k), append(flat, p.FlatUSD-k), append(server, p.ServerlessUSD-k)
	}
	all := []series{{"metered", "metered", metered}, {"nodes", "nodes", flat}}
	if e.Serverless != nil {
		all = append(all, series{"Serverless", "serverless", server})
	}
	for _, s := range all {
		if len(s.y) == 0 || s.y[len(s.y)-1] <= 0 {
			return ""
		}
	}
	return lines(width, "Cost a month of the metered services, of nodes and of Serverless, against the load", unit, x, all, here)
}

func evenChart(width float64, unit string, e cost.Estimate, here place) string {
	var rows []stop
	low, high := here.x, here.x
	for _, b := range e.BreakEven {
		if b.Scale > 0 {
			rows = append(rows, stop{fmt.Sprintf("%d x %s", b.Count, b.Node), b.Scale, b.Fits})
			low, high = min(low, b.Scale), max(high, b.Scale)
		}
	}
	if len(rows) == 0 || low <= 0 {
		return ""
	}
	return stops(width, "The load at which each pair of nodes costs as much as the metered services", unit, rows, here, low/2, high*2)
}

func shareChart(width float64, e cost.Estimate) string {
	var rows []bar
	for _, s := range e.Services {
		rows = append(rows, bar{ServiceName(s.Name), s.MeteredUSD, math.Max(0, s.FlatShareUSD)})
	}
	return bars(width, "Each service on metered services and as its part of the flat side", rows, [2]string{"metered", "nodes"}, [2]string{"metered", "flat"})
}
