package report

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/flatrate/flatrate/cost"
)

// EstimateJSON writes an estimate as one object: docs/cli.md has its fields.
func EstimateJSON(w io.Writer, e cost.Estimate) error {
	out := json.NewEncoder(w)
	out.SetEscapeHTML(false)
	out.SetIndent("", "  ")
	return out.Encode(e)
}

// serviceNames are how AWS writes them.
var serviceNames = map[string]string{"dynamodb": "DynamoDB", "sqs": "SQS", "api_gateway": "API Gateway", "database": "your database"}

// ServiceName is how people write the name of a metered service.
func ServiceName(name string) string {
	first, rest, _ := strings.Cut(name, " ") // "sqs (2)" is that of another source
	if n, ok := serviceNames[first]; ok && (rest == "" || rest[0] == '(') {
		return strings.TrimSpace(n + " " + Printable(rest))
	}
	return Printable(name)
}

// Amount is a number with at most three digits that count, grouped: 1,234,567, 0.0954, 49,800.
func Amount(v float64) string {
	switch {
	case v == 0:
		return "0"
	case math.Abs(v) >= 1000:
		return Count(int64(math.Round(v)))
	case math.Abs(v) >= 1 && v == math.Trunc(v):
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'f', 2-int(math.Floor(math.Log10(math.Abs(v)))), 64)
}

// lineText says how a line comes about.
func lineText(service string, l cost.Line) string {
	price := fmt.Sprintf("$%s", strconv.FormatFloat(l.PriceUSD, 'g', 6, 64))
	unit := l.Unit
	if l.Units != 1 && !strings.HasSuffix(unit, "s") && !strings.HasSuffix(unit, "written") {
		unit += "s"
	}
	if service != "" {
		unit = ServiceName(service) + " " + unit
	}
	switch {
	case service == "database" && l.Unit == "read":
		return Amount(l.Units) + " database reads spared, at your price"
	case service == "database":
		return "a smaller database, at your price"
	case l.Per == 1e6:
		return fmt.Sprintf("%s %s at %s a million", Amount(l.Units), unit, price)
	}
	return fmt.Sprintf("%s %s at %s", Amount(l.Units), unit, price)
}

func flatName(f cost.FlatSize) string {
	if f.Kind == cost.Serverless {
		return "ElastiCache Serverless"
	}
	name := fmt.Sprintf("%d x %s", f.Count, f.Node)
	if f.Shards > 1 {
		name += fmt.Sprintf(" in %d shards", f.Shards)
	}
	return name
}

func rangeName(r cost.Range) string {
	if r.Count == 0 {
		return "ElastiCache Serverless"
	}
	return fmt.Sprintf("%d x %s", r.Count, r.Node)
}

func flatText(f cost.FlatSize) string {
	engine := map[cost.Engine]string{cost.Valkey: "Valkey", cost.Redis: "Redis OSS"}[f.Engine]
	text := "with " + engine
	if f.Kind != cost.Serverless {
		text += fmt.Sprintf(", %s; needs %s of %s", f.Term, Bytes(f.NeedBytes), Bytes(f.UsableBytes))
	}
	if !f.Fits {
		text += ": too small"
	}
	return text
}

// scaleText is a load in the unit of the curve.
func scaleText(scale float64, unit string) string {
	if unit == "load" {
		return Amount(scale) + " x today's load"
	}
	return Amount(math.Round(scale)) + " " + unit
}

// inputValue is a value of an input, a word where it is a choice.
func inputValue(e cost.Estimate, name string, v float64) string {
	for _, in := range e.Inputs {
		if in.Name == name && len(in.Choices) > 0 {
			return in.Choices[max(0, min(len(in.Choices)-1, int(v+0.5)))]
		}
	}
	return Amount(math.Round(v*1000) / 1000)
}

// EstimateTable writes an estimate for people.
func EstimateTable(w io.Writer, e cost.Estimate) error {
	var t Table
	t.Heading("Metered: a month, list prices of " + e.Region)
	for _, s := range e.Services {
		t.Row(ServiceName(s.Name), USD(s.MeteredUSD), verdictText(s))
		for _, l := range s.Lines {
			t.Row("", USD(l.USD), lineText(l.Service, l.Line))
		}
	}
	t.Row("metered", USD(e.Total.MeteredUSD), "")
	t.Heading("Flat: all of it on one side")
	t.Row(flatName(e.Flat.FlatSize), USD(e.Flat.USD), flatText(e.Flat.FlatSize))
	for _, next := range []struct {
		name string
		size *cost.FlatSize
	}{{"next size down", e.Flat.NextDown}, {"next size up", e.Flat.NextUp}} {
		if next.size != nil {
			remark := next.size.Node
			if !next.size.Fits {
				remark += ": too small"
			}
			t.Row(next.name, USD(next.size.USD), remark)
		}
	}
	if e.Serverless != nil && e.Flat.Kind != cost.Serverless {
		t.Row("ElastiCache Serverless", USD(e.Serverless.USD), "")
	}
	if e.Total.KeptUSD > 0 {
		t.Row("stays", USD(e.Total.KeptUSD), "paid on both sides")
	}
	t.Row("flat", USD(e.Total.FlatUSD), "")
	t.Heading("Saving, if everything moves")
	t.Row("expected", USD(e.Total.SavingUSD), "")
	t.Row("low", USD(e.Total.Low.SavingUSD), rangeName(e.Total.Low))
	t.Row("high", USD(e.Total.High.SavingUSD), rangeName(e.Total.High))
	for i, s := range e.Sensitivity {
		if i == 0 {
			t.Heading("It depends most on")
		}
		t.Row(Printable(s.Input), USD(s.SwingUSD), fmt.Sprintf("%s saves %s, %s saves %s",
			inputValue(e, s.Input, s.From), USD(s.FromSaves), inputValue(e, s.Input, s.To), USD(s.ToSaves)))
	}
	for i, b := range e.BreakEven {
		if i == 0 {
			t.Heading("Break-even")
		}
		t.Row(fmt.Sprintf("%d x %s", b.Count, b.Node), USD(b.USD), breakEvenText(b))
	}
	for i, a := range e.Article {
		if i == 0 {
			t.Heading("The article, and what is right")
		}
		t.Row(a.Name, articleAmount(a.Printed, a.Unit), fmt.Sprintf("%s: %s", articleAmount(a.Corrected, a.Unit), a.Why))
	}
	if err := t.Write(w); err != nil {
		return err
	}
	return closing(w, e)
}

func verdictText(s cost.ServiceEstimate) string {
	text := string(s.Verdict)
	if d := doubt(s); d != "" {
		text += " (" + d + ")"
	}
	text += ": " + s.Why
	if s.Low.MeteredUSD != s.High.MeteredUSD {
		text += "; from " + spread(s)
	}
	return text
}

// spread is what a service costs from low to high.
func spread(s cost.ServiceEstimate) string {
	return USD(s.Low.MeteredUSD) + " to " + USD(s.High.MeteredUSD)
}

// doubt says which end of the range has another verdict.
func doubt(s cost.ServiceEstimate) string {
	var list []string
	if s.Low.Verdict != s.Verdict {
		list = append(list, "low: "+string(s.Low.Verdict))
	}
	if s.High.Verdict != s.Verdict {
		list = append(list, "high: "+string(s.High.Verdict))
	}
	return strings.Join(list, ", ")
}

func breakEvenText(b cost.BreakEven) string {
	switch {
	case b.Always:
		return "cheaper at every load"
	case b.Scale == 0:
		return "never"
	}
	text := "at " + scaleText(b.Scale, b.ScaleUnit)
	if !b.Fits {
		text += ", which it does not hold"
	}
	return text
}

func articleAmount(v float64, unit string) string {
	if unit == "ms" {
		return strconv.FormatFloat(v, 'g', 4, 64) + " ms"
	}
	return USD(v)
}

func closing(w io.Writer, e cost.Estimate) error {
	var b strings.Builder
	fmt.Fprintf(&b, "\nVerdict: %s. %s.\n\nAssumed:\n", e.Total.Verdict, sentence(e.Total.Why))
	for _, a := range e.Assumptions {
		fmt.Fprintf(&b, "- %s\n", Printable(a))
	}
	for _, s := range e.Services {
		if s.Note != "" {
			fmt.Fprintf(&b, "- %s: %s\n", ServiceName(s.Name), Printable(s.Note))
		}
	}
	b.WriteString("\nPrices: " + sourcesText(e) + "\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func sourcesText(e cost.Estimate) string {
	var list []string
	for _, s := range e.Sources {
		list = append(list, s.String())
	}
	return strings.Join(list, "; ") + "."
}

// sentence begins with a capital.
func sentence(text string) string {
	if text == "" || text[0] < 'a' || text[0] > 'z' {
		return text
	}
	return string(text[0]-'a'+'A') + text[1:]
}

// EstimateMarkdown writes an estimate as Markdown, for a pull request or a page.
func EstimateMarkdown(w io.Writer, e cost.Estimate) error {
	var b strings.Builder
	cell := func(text string) string {
		return strings.NewReplacer("|", `\|`, "<", "&lt;", "*", `\*`, "_", `\_`, "`", "\\`").Replace(Printable(text))
	}
	row := func(cells ...string) {
		for _, c := range cells {
			b.WriteString("| " + cell(c) + " ")
		}
		b.WriteString("|\n")
	}
	fmt.Fprintf(&b, "# %s: %s\n\n%s.\n\n", e.Total.Verdict, cell(USD(e.Total.SavingUSD)+" a month if everything moves"), cell(sentence(e.Total.Why)))
	b.WriteString("| service | metered | low to high | part of the flat side | verdict | why |\n|---|---:|---:|---:|---|---|\n")
	for _, s := range e.Services {
		row(ServiceName(s.Name), USD(s.MeteredUSD), spread(s), USD(s.FlatShareUSD), string(s.Verdict), s.Why)
	}
	row("total", USD(e.Total.MeteredUSD), USD(e.Total.Low.MeteredUSD)+" to "+USD(e.Total.High.MeteredUSD), USD(e.Total.FlatUSD), string(e.Total.Verdict), flatName(e.Flat.FlatSize)+" "+flatText(e.Flat.FlatSize))
	b.WriteString("\n| | metered | flat | saving | nodes |\n|---|---:|---:|---:|---|\n")
	for _, r := range []struct {
		name string
		r    cost.Range
	}{{"low", e.Total.Low}, {"expected", e.Total.Expected}, {"high", e.Total.High}} {
		row(r.name, USD(r.r.MeteredUSD), USD(r.r.FlatUSD), USD(r.r.SavingUSD), rangeName(r.r))
	}
	if len(e.Sensitivity) > 0 {
		b.WriteString("\n| it depends most on | from | saves | to | saves |\n|---|---|---:|---|---:|\n")
	}
	for _, s := range e.Sensitivity {
		row(s.Input, inputValue(e, s.Input, s.From), USD(s.FromSaves), inputValue(e, s.Input, s.To), USD(s.ToSaves))
	}
	if len(e.BreakEven) > 0 {
		b.WriteString("\n| break-even | a month | |\n|---|---:|---|\n")
	}
	for _, k := range e.BreakEven {
		row(fmt.Sprintf("%d x %s", k.Count, k.Node), USD(k.USD), breakEvenText(k))
	}
	if len(e.Article) > 0 {
		b.WriteString("\n| the article's figure | prints | is | why |\n|---|---:|---:|---|\n")
	}
	for _, a := range e.Article {
		row(a.Name, articleAmount(a.Printed, a.Unit), articleAmount(a.Corrected, a.Unit), a.Why)
	}
	b.WriteString("\nAssumed:\n\n")
	for _, a := range e.Assumptions {
		fmt.Fprintf(&b, "- %s\n", cell(a))
	}
	fmt.Fprintf(&b, "\nPrices: %s\n", cell(sourcesText(e)))
	_, err := io.WriteString(w, b.String())
	return err
}
