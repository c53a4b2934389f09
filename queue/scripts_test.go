package queue

import (
	"slices"
	"strings"
	"testing"

	"github.com/flatrate/flatrate/valkeytest"
)

// TestOptionsOfOthers sends what a program that does not know the options may send: it is refused, and nothing beside it.
func TestOptionsOfOthers(t *testing.T) {
	client := valkeytest.Start(t).Client()
	keys, err := newKeySpace("")
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"a number that is none":       " -5      \nid 0  \n",
		"six words":                   "  d    \nid 0  \n",
		"no end":                      "  d",
		"a unique job without a time": "   u    \nid 0  u\n",
		"a unique job for ever":       "   u 99999999999999999999   \nid 0  u\n",
		"a delay for ever":            " 99999999999999999999      \nid 0  \n",
		"a name without a number":     "     job  \nid 0  \n",
		"no head":                     "       \n",
		"half a head":                 "       \nid \n",
	} {
		of := keys.of(name, 0)
		if err := declare.Exec(t.Context(), client, of, "1", "1", "", "345600000").Error(); err != nil {
			t.Fatal(err)
		}
		got, err := send.Exec(t.Context(), client, of, "4", "       \na 0 g \nbody", "b 0  \nbody", bad, "       \nc 0 g \nbody").ToAny()
		all := texts(got.([]any))
		if err != nil || len(all) != 6 || !strings.HasPrefix(all[4], "e") || !slices.Equal(slices.Delete(all, 4, 5), []string{"3", "0", "s0", "s0", "s0"}) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}
