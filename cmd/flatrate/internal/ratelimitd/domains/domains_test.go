package domains_test

import (
	"strings"
	"testing"

	"github.com/flatrate/flatrate/cmd/flatrate/internal/ratelimitd/domains"
)

func parse(text string) (*domains.Set, error) {
	return domains.Parse([]domains.File{{Name: "r.yaml", Data: []byte(text)}})
}

// one is a file with one descriptor.
func one(fields string) string { return "domain: d\ndescriptors:\n  - {" + fields + "}\n" }

func TestParseRefuses(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"empty":            {"", "r.yaml:1:1: the file is empty"},
		"no domain":        {"descriptors: []\n", "r.yaml:1:1: the domain is empty"},
		"empty domain":     {"domain: ''\n", "r.yaml:1:9: the domain is empty"},
		"unknown key":      {"domain: d\ndescriptor: []\n", `r.yaml:2:1: unknown key "descriptor": "descriptors"?`},
		"unknown below":    {one("key: a, rate_limt: {}"), `r.yaml:3:14: unknown key "rate_limt": "rate_limit"?`},
		"unknown in limit": {one("key: a, rate_limit: {unit: day, request_per_unit: 1}"), `unknown key "request_per_unit": "requests_per_unit"?`},
		"no key":           {one("value: a"), "r.yaml:3:5: the descriptor has no key"},
		"wild key":         {one("key: a*"), "a wildcard stands in a value"},
		"no unit":          {one("key: a, rate_limit: {requests_per_unit: 1}"), "unit is missing"},
		"a wrong unit":     {one("key: a, rate_limit: {unit: days, requests_per_unit: 1}"), "r.yaml:3:33: not one of second, minute, hour, day, week, month, year"},
		"no requests":      {one("key: a, rate_limit: {unit: day}"), "requests_per_unit is missing"},
		"negative":         {one("key: a, rate_limit: {unit: day, requests_per_unit: -1}"), "requests_per_unit is -1, not from 0 to 4294967295"},
		"too many":         {one("key: a, rate_limit: {unit: day, requests_per_unit: 4294967296}"), "not from 0 to 4294967295"},
		"no number":        {one("key: a, rate_limit: {unit: day, requests_per_unit: many}"), "not a whole number"},
		"multiplier":       {one("key: a, rate_limit: {unit: day, requests_per_unit: 1, unit_multiplier: 0}"), "unit_multiplier is 0"},
		"a long window":    {one("key: a, rate_limit: {unit: year, requests_per_unit: 1, unit_multiplier: 2}"), "the window is over 400 days"},
		"both":             {one("key: a, plan: p, rate_limit: {unit: day, requests_per_unit: 1}"), "a plan or a rate_limit, not both"},
		"unlimited":        {one("key: a, rate_limit: {unlimited: true, unit: day}"), "unit beside unlimited"},
		"maybe":            {one("key: a, rate_limit: {unlimited: maybe}"), "not one of false, true"},
		"replaces itself":  {one("key: a, rate_limit: {unlimited: true, name: n, replaces: [{name: n}]}"), "a rule can't replace itself"},
		"replaces nothing": {one("key: a, rate_limit: {unlimited: true, replaces: [{}]}"), "the name is missing"},
		"shadow":           {one("key: a, shadow_mode: true"), "shadow_mode without a rate_limit or a plan"},
		"quota mode":       {one("key: a, quota_mode: true"), "quota_mode is not supported"},
		"share":            {one("key: a, value: b, share_threshold: true"), "share_threshold needs a value with a wildcard"},
		"long":             {one("key: " + strings.Repeat("a", 1025)), "key has over 1024 bytes"},
		"no list":          {"domain: d\ndescriptors: {}\n", "not a list"},
		"no mapping":       {"domain: d\ndescriptors: [a]\n", "not a mapping"},
		"twice":            {"domain: d\ndescriptors: [{key: a, value: b}, {key: a, value: b}]\n", `r.yaml:2:35: descriptor "a b" again`},
		"twice any":        {"domain: d\ndescriptors: [{key: a}, {key: a}]\n", `descriptor "a" again`},
		"twice wild":       {"domain: d\ndescriptors: [{key: a, value: b*}, {key: a, value: b*}]\n", `descriptor "a b*" again`},
		"deep":             {"domain: d\n" + strings.Repeat("descriptors: [{key: a, ", 17) + strings.Repeat("}]", 17), "nested over 16 deep"},
	} {
		if _, err := parse(test.text); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, without %s", name, err, test.want)
		}
	}
	twice := domains.File{Name: "a.yaml", Data: []byte("domain: d\n")}
	if _, err := domains.Parse([]domains.File{twice, {Name: "b.yaml", Data: twice.Data}}); err == nil || err.Error() != `b.yaml:1:9: domain "d" again: it is in a.yaml already` {
		t.Errorf("a domain twice: %v", err)
	}
}

const tree = `domain: d
descriptors:
  - key: a
    value: x
    rate_limit: {unit: DAY, requests_per_unit: 1}
    detailed_metric: true
  - key: a
    value: x*
    rate_limit: {unit: day, requests_per_unit: 2}
  - key: a
    value: xy*
    rate_limit: {unit: day, requests_per_unit: 3}
  - key: a
    rate_limit: {unit: day, requests_per_unit: 4}
    descriptors:
      - key: b
        value: 10
        plan: p
        shadow_mode: true
      - key: b
        value: "*"
        share_threshold: true
        rate_limit: {unlimited: true}
  - key: c
    value: ""
    value_to_metric: true
`

func TestMatch(t *testing.T) {
	set, err := parse(tree)
	if err != nil {
		t.Fatal(err)
	}
	if set.Rules() != 6 || len(set.Plans()) != 1 || set.Plans()[0] != "p" {
		t.Errorf("%d rules, plans %v", set.Rules(), set.Plans())
	}
	type entries = []domains.Entry
	for _, test := range []struct {
		entries entries
		label   string // empty: none
		subject string
	}{
		{entries{{"a", "x"}}, "d: a=x", "a=x"},
		{entries{{"a", "xz"}}, "d: a=x*", "a=xz"},
		{entries{{"a", "xyz"}}, "d: a=x*", "a=xyz"}, // the first that fits
		{entries{{"a", "y"}}, "d: a", "a=y"},
		{entries{{"a", ""}}, "d: a", "a="},
		{entries{{"A", "x"}}, "", ""},
		{entries{{"a", "y"}, {"b", "10"}}, "d: a, b=10", "a=y b=10"},
		{entries{{"a", "y"}, {"b", "11"}}, "d: a, b=*", "a=y b=*"},
		{entries{{"a", "y"}, {"b", "*"}}, "d: a, b=*", "a=y b=*"},
		{entries{{"a", "x"}, {"b", "10"}}, "", ""}, // below the value there is nothing
		{entries{{"a", "y"}, {"c", "1"}}, "", ""},
		{entries{{"c", "1"}}, "", ""},
		{entries{}, "", ""},
		{entries{{"a", "y b=1 %*"}}, "d: a", "a=y%20b%3D1%20%25%2A"},
	} {
		rule, subject, known := set.Match("d", test.entries)
		label := ""
		if rule != nil {
			label = rule.Label
		}
		if label != test.label || subject != test.subject || !known {
			t.Errorf("%v: %q %q %v", test.entries, label, subject, known)
		}
	}
	if _, _, known := set.Match("e", nil); known {
		t.Error("a domain that there is not")
	}
	if rule, _, _ := set.Match("d", entries{{"a", "y"}, {"b", "10"}}); !rule.Shadow || rule.Plan != "p" {
		t.Errorf("%+v", rule)
	}
	if domains.Subject(entries{{"a", "b c=d"}}) == domains.Subject(entries{{"a", "b"}, {"c", "d"}}) {
		t.Error("two descriptors have one subject")
	}
}

// FuzzParse looks for panics, and for rules that could not be used.
func FuzzParse(f *testing.F) {
	f.Add(tree, "a", "x")
	f.Add(one("key: a, rate_limit: {unit: year, requests_per_unit: 1, replaces: [{name: n}]}"), "a", "")
	f.Add("domain: d\ndescriptors: [{key: [a]}]", "a", "x")
	f.Fuzz(func(t *testing.T, text, key, value string) {
		set, err := parse(text)
		if err != nil {
			if !strings.Contains(err.Error(), "r.yaml") {
				t.Errorf("an error without the file: %v", err)
			}
			return
		}
		rule, subject, known := set.Match("d", []domains.Entry{{Key: key, Value: value}})
		switch {
		case rule == nil:
		case !known || subject == "" || rule.Label == "":
			t.Errorf("%+v %q", rule, subject)
		case rule.Plan == "" && !rule.Unlimited && (rule.Limit.Window() <= 0 || rule.Limit.Times < 1):
			t.Errorf("%+v", rule)
		}
	})
}
