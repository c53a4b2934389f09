package cost_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/flatrate/flatrate/cost"
	"github.com/flatrate/flatrate/valkeytest"
	"github.com/valkey-io/valkey-go"
)

// TestValkeyBytesOnAServer holds the prediction against used_memory, on whatever server is there.
func TestValkeyBytesOnAServer(t *testing.T) {
	c := valkeytest.Start(t).Client()
	const keys = 5_000
	used := func() int64 {
		text, err := c.Do(t.Context(), c.B().Info().Section("memory").Build()).ToString()
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(text, "used_memory:")
		line, _, _ := strings.Cut(rest, "\r\n")
		n, err := strconv.ParseInt(line, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for _, size := range []int{91, 500, 2048, 5000} {
		if err := c.Do(t.Context(), c.B().Flushall().Sync().Build()).Error(); err != nil {
			t.Fatal(err)
		}
		before := used()
		value := strings.Repeat("x", size)
		for i := 0; i < keys; i += 1000 {
			var commands valkey.Commands
			for j := range 1000 {
				commands = append(commands, c.B().Set().Key("session:user:"+strconv.Itoa(1_000_000+i+j)).Value(value).ExSeconds(86_400).Build())
			}
			for _, r := range c.DoMulti(t.Context(), commands...) {
				if err := r.Error(); err != nil {
					t.Fatal(err)
				}
			}
		}
		got, want := float64(used()-before)/keys, float64(cost.ValkeyBytes(int64(size)))
		t.Logf("%d B: %.0f B a key, predicted %.0f", size, got, want)
		if got < want*.7 || got > want*1.15 { // newer servers need less, and allocators differ
			t.Errorf("%d B take %.0f B, predicted %.0f", size, got, want)
		}
	}
}
