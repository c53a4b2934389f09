package ratelimitd

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/flatrate/flatrate/ratelimit"
)

// FuzzQuestion looks for panics, and for bodies that are let through although they could not be asked.
func FuzzQuestion(f *testing.F) {
	for _, body := range []string{`{"plan": "a", "subject": "b", "cost": 1}`, `{"plans": ["a"], "subject": ""}`, `{"cost": 1e300}`, `[`, `null`} {
		f.Add(body, "application/json; charset=utf-8")
	}
	f.Fuzz(func(t *testing.T, body, kind string) {
		r := httptest.NewRequest("POST", "/", strings.NewReader(body))
		r.Header.Set("Content-Type", kind)
		q, status, err := readQuestion(r)
		if err != nil {
			if status < 400 || status > 499 {
				t.Errorf("status %d", status)
			}
			return
		}
		if len(q.Plans) == 0 || q.Subject == "" || len(q.Subject) > maxSubject || q.Cost != nil && (*q.Cost < 0 || *q.Cost > ratelimit.MaxLimit) {
			t.Errorf("%+v", q)
		}
	})
}

// TestLabelsAreBounded counts more plans than there are labels.
func TestLabelsAreBounded(t *testing.T) {
	s, err := prepare(Config{ListenHTTP: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 * maxPlans {
		s.metrics.decided("check", strings.Repeat("p", i), "allowed")
	}
	families, err := s.metrics.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != "flatrate_decisions_total" {
			continue
		}
		if n := len(family.GetMetric()); n != maxPlans+1 {
			t.Errorf("%d series", n)
		}
		return
	}
	t.Error("no decisions in the metrics")
}
