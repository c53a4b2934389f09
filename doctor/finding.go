package doctor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Severity says how bad a finding is.
type Severity string

// The severities, the least first.
const (
	Info   Severity = "info"   // worth knowing; nothing to do
	Low    Severity = "low"    // costs memory or money
	Medium Severity = "medium" // will hurt when something else happens
	High   Severity = "high"   // loses data, or hurts now
)

// Severities are all of them, the least first.
var Severities = []Severity{Info, Low, Medium, High}

// AtLeast reports whether s is as bad as o, or worse.
func (s Severity) AtLeast(o Severity) bool {
	return slices.Index(Severities, s) >= slices.Index(Severities, o)
}

// Finding is something that is wrong, or could be better.
type Finding struct {
	ID       string   `json:"id"` // what it is, for machines: docs/doctor.md has the list
	Severity Severity `json:"severity"`
	Where    string   `json:"where"` // a node, a prefix or a key
	What     string   `json:"what"`
	Evidence string   `json:"evidence"`
	Fix      string   `json:"fix"` // a command or a line of configuration, and what it is for
	// SavesBytes is how much less memory there would be in use, and SavesUSD what that is worth in a month on a
	// node of Config.Node and its replica. Zero if it saves none.
	SavesBytes float64 `json:"saves_bytes,omitempty"`
	SavesUSD   float64 `json:"saves_usd_month,omitempty"`
}

// Worst returns the findings that are at least as bad.
func (r Report) Worst(least Severity) []Finding {
	var list []Finding
	for _, f := range r.Findings {
		if f.Severity.AtLeast(least) {
			list = append(list, f)
		}
	}
	return list
}

// exam is what the rules look at.
type exam struct {
	r     *Report
	cfg   Config
	tally *tally
	nodes *healths // nil for a file
	all   []Finding
}

func (x *exam) find(id string, s Severity, where, what, evidence, fix string, saves float64) {
	x.all = append(x.all, Finding{ID: id, Severity: s, Where: where, What: what, Evidence: evidence, Fix: fix, SavesBytes: saves})
}

// conclude runs all rules, and puts the worst findings first.
func conclude(r *Report, cfg Config, t *tally, nodes *healths) {
	x := &exam{r: r, cfg: cfg, tally: t, nodes: nodes}
	if cfg.Since != nil {
		x.growth()
	}
	x.bigKeys()
	x.hotKeys()
	x.storms()
	x.forgotten()
	x.objects()
	if nodes != nil {
		x.policy()
		x.headroom()
		x.evictions()
		x.fragmentation()
		x.slowLog()
		x.clients()
		x.replication()
		x.persistence()
		x.access()
		x.unseen()
	}
	usd, _ := cfg.usdPerByte()
	for i := range x.all {
		x.all[i].SavesUSD = x.all[i].SavesBytes * usd
	}
	slices.SortStableFunc(x.all, func(a, b Finding) int {
		return cmp.Or(slices.Index(Severities, b.Severity)-slices.Index(Severities, a.Severity), cmp.Compare(b.SavesBytes, a.SavesBytes), strings.Compare(a.ID+a.Where, b.ID+b.Where))
	})
	r.Findings = x.all
	if r.Findings == nil {
		r.Findings = []Finding{}
	}
}

// size is a number of bytes for people.
func size(n float64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	i := 0
	for n >= 1024 && i < len(units)-1 {
		n /= 1024
		i++
	}
	if i == 0 {
		return fmt.Sprintf("%.0f B", n)
	}
	return fmt.Sprintf("%.1f %s", n, units[i])
}
