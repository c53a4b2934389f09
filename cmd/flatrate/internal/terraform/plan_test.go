package terraform

import (
	"strings"
	"testing"
)

// TestWindowsAndNames refuses what AWS refuses: windows of less than an hour, and names that are its own.
func TestWindowsAndNames(t *testing.T) {
	for _, c := range []struct{ name, maintenance, snapshot, wrong string }{
		{"shop", "sun:23:30-mon:00:30", "01:00-02:00", ""},
		{"shop", "sun:03:00-mon:03:00", "01:00-02:00", "overlaps"},
		{"shop", "sun:03:00-sun:03:59", "01:00-02:00", "--maintenance"},
		{"shop", "sun:03:00-sun:03:00", "01:00-02:00", "--maintenance"},
		{"shop", "sun:04:00-fri:05:00", "01:00-02:00", "--maintenance"},
		{"shop", "sun:03:00-sun:04:00", "01:00-01:59", "--snapshots"},
		{"shop", "sun:03:00-sun:04:00", "23:30-00:30", ""},
		{"default", "sun:03:00-sun:04:00", "01:00-02:00", "--name"},
		{"sg-shop", "sun:03:00-sun:04:00", "01:00-02:00", "--name"},
	} {
		o := Options{Kind: Pair, Name: c.name, Prefix: "fr", Maintenance: c.maintenance, Snapshot: c.snapshot, Retention: 7, LogDays: 30}
		err := o.Validate()
		if (err == nil) != (c.wrong == "") || err != nil && !strings.Contains(err.Error(), c.wrong) {
			t.Errorf("%v: %v", c, err)
		}
	}
}
