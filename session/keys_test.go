package session

import (
	"strings"
	"testing"

	"github.com/flatrate/flatrate/internal/key"
	"github.com/flatrate/flatrate/internal/key/keytable"
)

func TestKeyTable(t *testing.T) {
	keys, err := newKeySpace("")
	if err != nil {
		t.Fatal(err)
	}
	stores, err := key.NewSpace("", "sess", "NAME")
	if err != nil {
		t.Fatal(err)
	}
	table := []string{
		keys.session(place{"TAG", "TOKEN"}), keys.user("TAG"), keys.ends("SHARD"), keys.notes("SHARD"), keys.sweep("SHARD"),
		stores.Part("SHARD", "TOKEN"), stores.Part("SHARD", "all"),
	}
	keytable.Check(t, table...)
	for i, want := range []string{
		"fr:sess:{TAG}:TOKEN", "fr:sess:{TAG}:user", "fr:sess:{SHARD}:ends", "fr:sess:{SHARD}:notes", "fr:sess:{SHARD}:sweep",
		"fr:sess:NAME:{SHARD}:TOKEN", "fr:sess:NAME:{SHARD}:all",
	} {
		if table[i] != want {
			t.Errorf("the layout is a public contract: %s, want %s", table[i], want)
		}
	}
	// The first 16 bytes of SHA-256("abc") are ba7816bf 8f01cfea 414140de 5dae2223 (FIPS 180-4).
	if got, want := digest("abc"), "ungWv48Bz-pBQUDeXa4iIw"; got != want {
		t.Errorf("digest: %s, want %s", got, want)
	}
}

func TestWellFormed(t *testing.T) {
	for range 1000 {
		for _, tag := range []string{"", userTag(nil, "ann"), userTag([]byte("0123456789abcdef"), "ann")} {
			token := newToken(tag)
			if at, ok := locate(token, false); !ok || at.ofUser() != (tag != "") || tag != "" && at.tag != tag {
				t.Fatalf("%q is a token", token)
			}
		}
	}
	good := strings.Repeat("A", 26)
	for _, token := range []string{"", ".", "A", good, good + ".", good + ".AAA", good + ".AAAAA", strings.Repeat("a", 26) + ".AAAA", good + "\n.AAAA", strings.Repeat("A", 25) + "1.AAAA", good + ".AA{A", good + ".AAA\n"} {
		if wellFormed(token) {
			t.Errorf("%q is no token", token)
		}
	}
}
