package main

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/flatrate/flatrate/cmd/flatrate/internal/report"
	"github.com/flatrate/flatrate/doctor"
)

// doctorDocument lays a report out for people: the findings first.
func doctorDocument(r doctor.Report, target string) *report.Document {
	d := &report.Document{Title: target, Lead: doctorLead(r)}
	findings := d.Section("Findings", "How bad", "What", "Where", "Evidence", "Fix", ">Saves", ">A month")
	findings.Stacked = true
	for _, f := range r.Findings {
		saves, usd := "", ""
		if f.SavesBytes >= 1 {
			saves, usd = bytesOf(f.SavesBytes), report.USD(f.SavesUSD)
		}
		findings.Row(string(f.Severity), f.ID+": "+f.What, f.Where, f.Evidence, f.Fix, saves, usd)
	}
	sums := []string{">Keys", ">Bytes", ">Each", ">Part", ">Without TTL"}
	forms := d.Section("Memory by type and encoding", append([]string{"Type", "Encoding"}, sums...)...)
	for _, f := range r.Forms {
		forms.Row(append([]string{f.Type, f.Encoding}, sumCells(f.Sum, r)...)...)
	}
	prefixes := d.Section("Memory by prefix", append([]string{"Prefix", "Types"}, sums...)...)
	for _, p := range r.Prefixes {
		prefixes.Row(append([]string{p.Pattern, formNames(p.Forms)}, sumCells(p.Sum, r)...)...)
	}
	blocks := d.Section("flatrate's own keys", append([]string{"Block", "Part", "If evicted"}, sums...)...)
	for _, b := range r.Blocks {
		blocks.Row(append([]string{b.Block, b.Part, lossText(b.Loss)}, sumCells(b.Sum, r)...)...)
	}
	keyTable(d.Section("Largest keys", "Key", "Type", "Encoding", ">Elements", ">Bytes"), r.Big, func(k doctor.Key) string { return bytesOf(k.Bytes) })
	keyTable(d.Section("Hot keys", "Key", "Type", "Encoding", ">Elements", ">Frequency"), r.Hot, func(k doctor.Key) string { return fmt.Sprint(k.Freq) })
	ttls := d.Section("Time to live", "Below", ">Keys", ">Bytes", ">Part of the keys")
	for _, t := range r.TTLs {
		if t.Keys > 0 {
			ttls.Row(t.Below, report.Count(t.Keys), bytesOf(t.Bytes), report.Share(t.Keys, r.Keys))
		}
	}
	storms := d.Section("Seconds in which many keys end", "At", ">Keys")
	for _, s := range r.Storms {
		storms.Row(s.At.Format(time.RFC3339), report.Count(s.Keys))
	}
	objects := d.Section("JSON strings, and hashes in their place", "Prefix", ">Samples", ">String", ">Hash", ">Saves")
	for _, o := range r.Objects {
		objects.Row(o.Pattern, fmt.Sprint(o.Samples), fmt.Sprintf("%.0f B", o.StringBytes), fmt.Sprintf("%.0f B", o.HashBytes), fmt.Sprintf("%.1f%%", 100*(1-o.HashBytes/o.StringBytes)))
	}
	if r.Growth != nil {
		growth := d.Section("Growth since "+r.Growth.Since.Format(time.RFC3339), "Prefix", ">Keys", ">Bytes")
		growth.Row("all", signed(float64(r.Growth.Keys), countOf), signed(r.Growth.Bytes, bytesOf))
		for _, p := range r.Growth.Prefixes {
			growth.Row(p.Pattern, signed(float64(p.Keys), countOf), signed(p.Bytes, bytesOf))
		}
	}
	return d
}

func keyTable(s *report.Section, keys []doctor.Key, last func(doctor.Key) string) {
	for _, k := range keys {
		length := ""
		if k.Length > 0 {
			length = report.Count(k.Length)
		}
		s.Row(k.Key, k.Type, k.Encoding, length, last(k))
	}
}

func doctorLead(r doctor.Report) []string {
	who := strings.TrimSpace(r.Server.Kind + " " + r.Server.Version)
	if r.Server.Cluster {
		who += fmt.Sprintf(", a cluster of %d primaries", r.Server.Nodes)
	}
	if r.Server.Policy != "" {
		who += ", maxmemory-policy " + r.Server.Policy
	}
	lead := []string{who, fmt.Sprintf("%s keys take %s of used_memory", report.Count(r.Keys), bytesOf(r.Bytes))}
	if r.Source == "sample" {
		lead[1] = fmt.Sprintf("%s keys take about %s of used_memory, give or take %s (95%%), from %s of them", report.Count(r.Keys), bytesOf(r.Bytes), bytesOf(r.Margin), report.Count(r.Sampled))
	}
	if r.Server.Used > 0 {
		line := fmt.Sprintf("used_memory is %s", bytesOf(float64(r.Server.Used)))
		if r.Server.MaxMemory > 0 {
			line += " of " + bytesOf(float64(r.Server.MaxMemory))
		}
		if r.Server.RSS > 0 {
			line += fmt.Sprintf("; resident: %s, %.2f of that", bytesOf(float64(r.Server.RSS)), float64(r.Server.RSS)/float64(r.Server.Used))
		}
		lead = append(lead, line)
	}
	if r.Reported > 0 && r.Source == "live" {
		lead = append(lead, fmt.Sprintf("MEMORY USAGE adds up to %s", bytesOf(float64(r.Reported))))
	}
	for _, left := range []struct {
		n    int64
		what string
	}{{r.Expired, "keys had ended when the file was written"}, {r.Moved, "keys left their node during the scan"}, {r.Hidden, "keys are hidden by access rules"}} {
		if left.n > 0 {
			lead = append(lead, report.Count(left.n)+" "+left.what)
		}
	}
	if !r.Complete {
		lead = append(lead, "this is not all: the reading ended early, or keys moved meanwhile")
	}
	return append(lead, r.Notes...)
}

func sumCells(s doctor.Sum, r doctor.Report) []string {
	each := ""
	if s.Keys > 0 {
		each = fmt.Sprintf("%.0f B", s.Bytes/float64(s.Keys))
	}
	return []string{report.Count(s.Keys), bytesOf(s.Bytes), each, fmt.Sprintf("%.1f%%", 100*s.Bytes/math.Max(1, r.Bytes)), report.Count(s.NoTTL)}
}

func formNames(forms []doctor.Form) string {
	var names []string
	for _, f := range forms {
		names = append(names, f.Type+"/"+f.Encoding)
	}
	return strings.Join(names, " ")
}

func lossText(l doctor.Loss) string {
	switch l {
	case doctor.Reload:
		return "made again"
	case doctor.Forget:
		return "forgotten"
	case doctor.Destroy:
		return "lost"
	}
	return string(l)
}

func bytesOf(n float64) string { return report.Bytes(int64(math.Round(n))) }

func countOf(n float64) string { return report.Count(int64(n)) }

func signed(n float64, text func(float64) string) string {
	if n >= 0 {
		return "+" + text(n)
	}
	return "-" + text(-n)
}
