package interop

import (
	"context"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flatrate/flatrate/ratelimit"
	"github.com/flatrate/flatrate/valkeytest"
	"github.com/valkey-io/valkey-go"
)

// rateLanguages are the languages of docs/recipes/ratelimit.
func rateLanguages() []language {
	var all []language
	for _, l := range languages {
		program := strings.Replace(l.command[1], "client.", "ratelimit.", 1)
		l.command = []string{l.command[0], program}
		all = append(all, l)
	}
	return append(all, language{"php", []string{"php", "php/ratelimit.php"}, []string{"php", "-r", `exit(extension_loaded("redis") ? 0 : 1);`},
		"php with its client is missing: apt-get install php-cli php-redis"})
}

// TestRateLimitVectors holds the recipes against the test vectors. Go's is in package ratelimit.
func TestRateLimitVectors(t *testing.T) {
	for _, l := range installed(t, rateLanguages()) {
		server := valkeytest.Start(t)
		if r := l.run(t.Context(), t, "vectors", server.Socket); r.Keys < 15 || r.Steps < 10*r.Keys {
			t.Errorf("%s: %d plans, %d steps", l.name, r.Keys, r.Steps)
		}
	}
}

// TestRateLimitCalls goes through the rest of the recipes.
func TestRateLimitCalls(t *testing.T) {
	for _, l := range installed(t, rateLanguages()) {
		server := valkeytest.Start(t)
		l.run(t.Context(), t, "calls", server.Socket)
	}
}

// TestRateLimitShared lets all languages use up the same limits: together they get what one of them would.
func TestRateLimitShared(t *testing.T) {
	const denials = 20
	others := installed(t, rateLanguages())
	century := 100 * 365 * 24 * time.Hour // one window, until 2069
	type limit = ratelimit.Limit
	for _, c := range []struct {
		plan   string
		limits []limit
		want   int
	}{
		{`[{"algorithm":"fixed","limit":400,"window":3153600000000}]`, []limit{{Limit: 400, Window: century}}, 400},
		{`[{"algorithm":"bucket","limit":1,"window":86400000,"burst":300}]`,
			[]limit{{Algorithm: ratelimit.TokenBucket, Limit: 1, Window: 24 * time.Hour, Burst: 300}}, 300},
		{`[{"algorithm":"sliding","limit":300,"window":3600000}]`, []limit{{Algorithm: ratelimit.SlidingWindow, Limit: 300, Window: time.Hour}}, 300},
		{`[{"algorithm":"log","limit":300,"window":3600000}]`, []limit{{Algorithm: ratelimit.SlidingLog, Limit: 300, Window: time.Hour}}, 300},
		{`[{"algorithm":"fixed","limit":400,"window":3153600000000},{"algorithm":"log","limit":250,"window":3600000},{"algorithm":"quota","limit":100000,"period":"month"}]`,
			[]limit{{Limit: 400, Window: century}, {Algorithm: ratelimit.SlidingLog, Limit: 250, Window: time.Hour},
				{Algorithm: ratelimit.Quota, Limit: 100_000, Period: ratelimit.Month}}, 250},
	} {
		server := valkeytest.Start(t)
		l, err := ratelimit.New(server.Client(), ratelimit.Config{Limits: c.limits, Timeout: 10 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		turns := make([]int, len(others)+1)
		var all sync.WaitGroup
		for i, o := range others {
			all.Go(func() {
				turns[i] = o.run(t.Context(), t, "share", server.Socket, `{"limits":`+c.plan+`}`, strconv.Itoa(denials), strconv.Itoa(len(others)+1)).Turns
			})
		}
		all.Go(func() {
			if err := together(t, server.Client(), len(others)+1); err != nil {
				t.Error(err)
				return
			}
			for denied := 0; denied < denials; {
				r, err := l.Allow(t.Context(), "shared")
				if err != nil {
					t.Error(err)
					return
				}
				turns[len(others)] += int(r.Granted)
				if !r.Allowed {
					denied++
				}
			}
		})
		all.Wait()
		sum := 0
		for _, n := range turns {
			sum += n
		}
		if sum != c.want {
			t.Errorf("%s: %v together %d, want %d", c.plan, turns, sum, c.want)
		}
		t.Logf("%s: %v", c.plan, turns)
	}
}

// together waits until all callers are here.
func together(t *testing.T, client valkey.Client, callers int) error {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := client.Do(ctx, client.B().Incr().Key("here").Build()).Error(); err != nil {
		return err
	}
	for {
		n, err := client.Do(ctx, client.B().Get().Key("here").Build()).AsInt64()
		if err != nil || int(n) >= callers {
			return err
		}
		<-time.After(time.Millisecond)
	}
}

// TestRateLimitPlaces lets all languages share the two places of a limit.
func TestRateLimitPlaces(t *testing.T) {
	const rounds = 40
	others := installed(t, rateLanguages())
	server := valkeytest.Start(t)
	client := server.Client()
	l, err := ratelimit.New(client, ratelimit.Config{
		Limits: []ratelimit.Limit{{Algorithm: ratelimit.Concurrency, Limit: 2}}, Timeout: 10 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	turns, overlaps := make([]int, len(others)+1), make([]int, len(others)+1)
	var all sync.WaitGroup
	for i, o := range others {
		all.Go(func() {
			r := o.run(ctx, t, "places", server.Socket, `{"limits":[{"algorithm":"concurrency","limit":2}]}`, strconv.Itoa(rounds))
			turns[i], overlaps[i] = r.Turns, r.Overlaps
		})
	}
	all.Go(func() {
		for me := len(others); turns[me] < rounds; turns[me]++ {
			r, err := l.Wait(ctx, "shared", 1)
			if err != nil {
				t.Error(err)
				return
			}
			if inside, err := client.Do(ctx, client.B().Incr().Key("inside").Build()).AsInt64(); err != nil || inside > 2 {
				overlaps[me]++
			}
			<-time.After(rand.N(3 * time.Millisecond))
			if err := client.Do(ctx, client.B().Decr().Key("inside").Build()).Error(); err != nil {
				t.Error(err)
			}
			if held, err := l.Release(ctx, "shared", r); !held || err != nil {
				t.Errorf("release: %v %v", held, err)
			}
		}
	})
	all.Wait()
	for i := range turns {
		if turns[i] != rounds || overlaps[i] != 0 {
			t.Errorf("caller %d: %d turns of %d, %d overlaps", i, turns[i], rounds, overlaps[i])
		}
	}
}
