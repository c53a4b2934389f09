package cache

import (
	"slices"
	"testing"

	"github.com/flatrate/flatrate/internal/key/keytable"
)

func TestKeyTable(t *testing.T) {
	keys, err := newKeySpace("", "NAME")
	if err != nil {
		t.Fatal(err)
	}
	got := append(keys.of("KEY"), keys.tags.Key("TAG"), keys.late)
	keytable.Check(t, got...)
	want := []string{
		"fr:cache:NAME:{KEY}", "fr:cache:fill:NAME:{KEY}", "fr:cache:wait:NAME:{KEY}", "fr:cache:tag:NAME:{TAG}",
		"fr:cache:late:NAME:{NAME}",
	}
	if !slices.Equal(got, want) {
		t.Errorf("the layout is a public contract: %q, want %q", got, want)
	}
}
