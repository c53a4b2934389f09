package cost

import (
	"math/rand/v2"
	"testing"
)

// The smallest node that is enough, at the edges of memory and throughput.
func TestSize(t *testing.T) {
	p := listPrices(t)
	const month = secondsPerMonth
	for _, c := range []struct {
		need   Need
		flat   Flat
		sizing Sizing
		node   string
		count  int
		shards int
	}{
		{Need{}, Flat{}, Sizing{Peak: 1}, "cache.t4g.micro", 2, 1},
		{Need{Bytes: 402653184}, Flat{}, Sizing{Peak: 1}, "cache.t4g.micro", 2, 1},
		{Need{Bytes: 402653185}, Flat{}, Sizing{Peak: 1}, "cache.t4g.small", 2, 1},
		{Need{Bytes: 322122547}, Flat{}, Sizing{Peak: 1, Headroom: .2}, "cache.t4g.micro", 2, 1},
		{Need{Bytes: 322122548}, Flat{}, Sizing{Peak: 1, Headroom: .2}, "cache.t4g.small", 2, 1},
		{Need{Commands: 10_000 * month}, Flat{}, Sizing{Peak: 1}, "cache.t4g.micro", 2, 1},
		{Need{Commands: 10_001 * month}, Flat{}, Sizing{Peak: 1}, "cache.t4g.small", 2, 1},
		{Need{Commands: 2_001 * month}, Flat{}, Sizing{Peak: 5}, "cache.t4g.small", 2, 1},
		{Need{Commands: 50_000 * month}, Flat{}, Sizing{Peak: 1}, "cache.m6g.large", 2, 1},
		{Need{Bytes: 3e9}, Flat{Count: 3}, Sizing{Peak: 1}, "cache.m6g.large", 3, 1},
		{Need{}, Flat{}, Sizing{Peak: 1, Above: 1}, "cache.t4g.small", 2, 1},
		{Need{}, Flat{Node: "cache.r7g.large"}, Sizing{Peak: 1}, "cache.r7g.large", 2, 1},
		{Need{Bytes: 1e9}, Flat{Node: "cache.t4g.micro"}, Sizing{Peak: 1}, "cache.t4g.micro", 6, 3},
		{Need{Bytes: 1e9}, Flat{Node: "cache.t4g.micro", Shards: 2}, Sizing{Peak: 1}, "cache.t4g.micro", 4, 2},
		{Need{Bytes: 3e9}, Flat{Kind: SelfHosted}, Sizing{Peak: 1}, "t4g.medium", 2, 1},
	} {
		side, err := p.Size(c.flat, c.need, c.sizing)
		if err != nil || side.Node != c.node || side.Total() != c.count || side.Shards != c.shards {
			t.Errorf("%+v: %d x %s in %d shards, %v; want %d x %s", c, side.Total(), side.Node, side.Shards, err, c.count, c.node)
		}
		if fits := c.flat.Shards == 0; side.Fits != fits {
			t.Errorf("%+v: fits %v", c, side.Fits)
		}
	}
	// More than any node holds goes into shards.
	side, err := p.Size(Flat{}, Need{Bytes: 2e12}, Sizing{Peak: 1, Headroom: .2})
	if err != nil || side.Shards < 2 || !side.Fits {
		t.Errorf("2 TB: %+v, %v", side, err)
	}
	if _, err := p.Size(Flat{}, Need{Bytes: 1e17}, Sizing{Peak: 1}); err == nil {
		t.Error("100 PB fit")
	}
}

// For random needs: what is chosen fits, and nothing that is cheaper in one shard does.
func TestSizeIsTheCheapest(t *testing.T) {
	p := listPrices(t)
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 300 {
		need := Need{Bytes: rng.ExpFloat64() * 3e10, Commands: rng.ExpFloat64() * 5e10}
		s := Sizing{Headroom: rng.Float64() * .5, Peak: 1 + rng.Float64()*9}
		side, err := p.Size(Flat{}, need, s)
		if err != nil || !s.holds(side, need) {
			t.Fatalf("seed %d: %+v: %+v, %v", seed, need, side, err)
		}
		for _, n := range p.Nodes() {
			other, err := p.flatSide(Flat{Node: n.Type}, need)
			if err == nil && s.holds(other, need) && side.Shards == 1 && other.USD < side.USD {
				t.Fatalf("seed %d: %+v: %s for %v, but %s costs %v", seed, need, side.Node, side.USD, n.Type, other.USD)
			}
		}
	}
}

func TestNeighbours(t *testing.T) {
	p := listPrices(t)
	for node, want := range map[string][2]string{
		"cache.t4g.micro":  {"", "cache.t4g.small"},
		"cache.t4g.medium": {"cache.t4g.small", "cache.m6g.large"},
	} {
		side, err := p.flatSide(Flat{Node: node}, Need{})
		if err != nil {
			t.Fatal(err)
		}
		down, up := p.Neighbours(side, Need{})
		if (down == nil) != (want[0] == "") || down != nil && down.Node != want[0] || up == nil || up.Node != want[1] || up.USD <= side.USD {
			t.Errorf("%s: %+v, %+v", node, down, up)
		}
	}
}

func TestValkeyBytes(t *testing.T) {
	for value, want := range map[int64]int64{-1: 140, 0: 140, 1: 140, 4: 140, 5: 148, 91: 228, 92: 228, 93: 244, 2048: 2692, 2554: 2692, 2555: 3204, 4096: 5252} {
		if got := ValkeyBytes(value); got != want {
			t.Errorf("%d B: %d, want %d", value, got, want)
		}
	}
	last := int64(0)
	for n := range int64(100_000) {
		b := ValkeyBytes(n)
		if b < last || b < n+keyOverhead || float64(b) > 1.25*float64(n)+170 {
			t.Fatalf("%d B take %d after %d", n, b, last)
		}
		last = b
	}
}
