package cost

import (
	"strings"
	"testing"
)

// The article's figures to the digits that it prints.
func TestAsArticle(t *testing.T) {
	p := listPrices(t)
	as := func(s Preset) Estimate {
		s.Sizing = roomy
		a, err := p.AsArticle(s, estimate(t, s))
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	for _, c := range []struct {
		users                 float64
		metered, flat, saving float64
		node                  string
	}{
		{50_000, 33.75, 11.68, 22.07, "cache.t4g.small"},
		{500_000, 337, 23.36, 314, "cache.t4g.medium"},
	} {
		a := as(Preset{Name: "sessions", Users: c.users})
		if a.Total.MeteredUSD != c.metered || a.Total.FlatUSD != c.flat || a.Total.SavingUSD != c.saving || a.Flat.Node != c.node ||
			a.Flat.Count != 1 || a.Flat.USD != c.flat || a.Services[0].MeteredUSD != c.metered || a.Services[0].Verdict != Switch {
			t.Errorf("%v users: %+v on %s", c.users, a.Total, a.Flat.Node)
		}
	}
	a := as(Preset{Name: "article", Users: 100_000})
	for i, want := range []float64{135, 900, 12, 45, 8} {
		if a.Services[i].MeteredUSD != want {
			t.Errorf("%s: %v, want %v", a.Services[i].Name, a.Services[i].MeteredUSD, want)
		}
	}
	if a.Flat.USD != 23 || a.Total.FlatUSD != 23 || a.Total.SavingUSD != 1077 || a.Flat.Node != "cache.t4g.medium" {
		t.Errorf("%+v", a.Total)
	}
	if why := a.Services[1].Why; !strings.Contains(why, "$900 is 257 million REST requests, the load is 120 million;") {
		t.Error(why)
	}
	figures := map[string]ArticleFigure{}
	for _, f := range a.Article {
		figures[f.Name] = f
		if f.Why == "" || strings.Contains(f.Why, "\n") {
			t.Errorf("%s: why: %q", f.Name, f.Why)
		}
	}
	if f := figures["cache-aside at 90% hits"]; f.Printed != 2.5 || f.Computed != 2.5 || f.Unit != "ms" || f.Corrected != 2.55 {
		t.Errorf("%+v", f)
	}
	if f := figures["from cache.t4g.medium to cache.r7g.large"]; f.Printed != 98 || !near(f.Corrected, 179.872, 1e-9) {
		t.Errorf("%+v", f)
	}
	if f := figures["saving"]; f.Printed != 1077 || !near(f.Corrected, 18.174, .001) {
		t.Errorf("%+v", f)
	}
	if f := figures["sessions"]; f.Printed != 135 || !near(f.Corrected, 37.55, .001) {
		t.Errorf("%+v", f)
	}
}

// At other numbers of users than the article's, verdicts and reasons follow from the figures beside them.
func TestAsArticleElsewhere(t *testing.T) {
	p := listPrices(t)
	for _, c := range []struct {
		preset  string
		users   float64
		verdict Verdict
		why     string
	}{
		{"sessions", 50_000, Switch, "as the article has it"},
		{"sessions", 1_000, Stay, "costs more than it saves"},
		{"article", 7, Stay, "costs more than it saves"},
		{"article", 1e9, Switch, "too small for this load"},
	} {
		s := Preset{Name: c.preset, Users: c.users, Sizing: roomy}
		a, err := p.AsArticle(s, estimate(t, s))
		if err != nil {
			t.Fatal(err)
		}
		if a.Total.Verdict != c.verdict || a.Services[0].Verdict != c.verdict || !strings.Contains(a.Total.Why, c.why) ||
			(a.Total.SavingUSD > 0) != (c.verdict == Switch) || a.Best.USD != min(a.Total.MeteredUSD, a.Total.FlatUSD) ||
			len(a.Best.Switch)+len(a.Best.Stay) != len(a.Services) {
			t.Errorf("%s, %v users: %+v, %+v", c.preset, c.users, a.Total, a.Best)
		}
	}
	s := Preset{Name: "article", Users: 300_000, Sizing: roomy}
	a, err := p.AsArticle(s, estimate(t, s))
	if err != nil || !strings.Contains(a.Services[1].Why, "2,700 is 771 million REST requests, the load is 360 million;") {
		t.Errorf("%v, %v", a.Services, err)
	}
}
