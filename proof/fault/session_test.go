package fault

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flatrate/flatrate/session"
	"github.com/flatrate/flatrate/valkeytest"
	"github.com/valkey-io/valkey-go"
)

// sessionFaults is what the workers of TestSessionFaults have seen.
type sessionFaults struct {
	checker

	logouts, everywhere, renewals atomic.Int64
	lost, back, out               atomic.Int64 // violations
}

// cartOf is what one worker's user does: a session whose members several requests change at a time.
type cartOf struct {
	m     []*session.Manager[map[string]int] // of several processes
	user  string
	check *sessionFaults
}

// round begins two sessions of a user, changes one from four sides, renews it, and ends all: in one of three ways.
func (u *cartOf) round(ctx context.Context, t *testing.T) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second) // a hang guard
	defer cancel()
	begin := func() *session.Session[map[string]int] {
		s, err := u.m[0].Begin(ctx, map[string]int{}, session.Terms{User: u.user})
		if !u.check.step(err) {
			return nil
		}
		return s
	}
	s, other := begin(), begin()
	if s == nil || other == nil {
		return
	}
	tokens := []string{s.Token, other.Token}
	var acked [4]int // the last number that was answered
	var all sync.WaitGroup
	for i := range acked {
		m, name := u.m[i%len(u.m)], fmt.Sprint("member", i)
		all.Go(func() {
			for n := 1; n <= 5; n++ {
				mine, ok, err := m.Get(ctx, s.Token)
				if !u.check.step(err) {
					continue
				}
				if !ok {
					u.check.out.Add(1)
					return
				}
				if mine.Value[name] < acked[i] {
					u.check.lost.Add(1)
				}
				mine.Value[name] = n
				ok, err = m.Set(ctx, mine)
				if !u.check.step(err) { // it may still arrive, after the next one
					acked[i] = 0
					return
				}
				if ok {
					acked[i] = n
				}
			}
		})
	}
	all.Wait()
	renewed, ok, err := u.m[0].Get(ctx, s.Token)
	if !u.check.step(err) {
		return
	}
	if !ok {
		u.check.out.Add(1)
		return
	}
	if u.check.step(u.m[0].Renew(ctx, renewed)) && renewed.Token != "" {
		u.check.renewals.Add(1)
		tokens = append(tokens, renewed.Token)
		got, ok, err := u.m[1].Get(ctx, renewed.Token)
		if u.check.step(err) {
			if !ok {
				u.check.out.Add(1)
			}
			for i, n := range acked {
				if ok && got.Value[fmt.Sprint("member", i)] < n {
					u.check.lost.Add(1)
				}
			}
		}
	}
	u.end(ctx, renewed, tokens)
}

// end ends the sessions while one more request writes, and looks whether they stay ended.
func (u *cartOf) end(ctx context.Context, late *session.Session[map[string]int], tokens []string) {
	var all sync.WaitGroup
	all.Go(func() {
		late.Value["late"] = 1
		_, err := u.m[1].Set(ctx, late)
		u.check.step(err)
	})
	ended := true
	if rand.IntN(2) == 0 {
		_, err := u.m[0].EndAll(ctx, u.user)
		if ended = u.check.step(err); ended {
			u.check.everywhere.Add(1)
		}
	} else {
		for _, token := range tokens {
			if !u.check.step(u.m[0].Delete(ctx, token)) {
				ended = false
			}
		}
		if ended {
			u.check.logouts.Add(1)
		}
	}
	all.Wait()
	if !ended {
		return
	}
	for _, token := range tokens {
		_, alive, err := u.m[0].Get(ctx, token)
		if u.check.step(err) && alive {
			u.check.back.Add(1)
		}
	}
}

// TestSessionFaults runs logins, changes, renewals and logouts against servers that keep what they acknowledged
// (appendfsync always) while they are killed and restarted, stopped, and their connections cut: one server, and a
// cluster of three.
func TestSessionFaults(t *testing.T) {
	faults := 4 // enough to notice in the gate that something broke
	if os.Getenv("FLATRATE_FAULT") != "" {
		faults = 200
	}
	keeping := valkeytest.Config{Args: []string{"--appendonly", "yes", "--appendfsync", "always", "--cluster-require-full-coverage", "no"}}
	for name, start := range map[string]func(t *testing.T) ([]*valkeytest.Server, valkey.Client){
		"one": func(t *testing.T) ([]*valkeytest.Server, valkey.Client) {
			s := valkeytest.StartWith(t, keeping)
			return []*valkeytest.Server{s}, connect(t, s)
		},
		"cluster": func(t *testing.T) ([]*valkeytest.Server, valkey.Client) {
			nodes := valkeytest.ClusterWith(t, 3, keeping)
			return nodes.Servers, nodes.Client()
		},
	} {
		t.Run(name, func(t *testing.T) { sessionsUnder(t, faults, start) })
	}
}

func sessionsUnder(t *testing.T, faults int, start func(t *testing.T) ([]*valkeytest.Server, valkey.Client)) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	servers, client := start(t)
	var check sessionFaults
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	managers := []*session.Manager[map[string]int]{mustManager(t, client), mustManager(t, client)}
	var workers sync.WaitGroup
	for i := range 8 {
		u := &cartOf{m: managers, user: fmt.Sprint("user", i), check: &check}
		workers.Go(func() {
			for ctx.Err() == nil {
				u.round(context.WithoutCancel(ctx), t)
			}
		})
	}
	kinds := map[string]int{}
	for range faults {
		progress(t, &check.checker)
		server := servers[random.IntN(len(servers))]
		switch kind := random.IntN(3); kind {
		case 0:
			kinds["killed and restarted"]++
			server.Restart()
		case 1:
			kinds["stopped"]++
			server.Pause()
			<-time.After(time.Duration(random.IntN(300)) * time.Millisecond) // how long the fault lasts
			server.Resume()
		case 2:
			kinds["connections cut"]++
			c := server.Client()
			_ = c.Do(ctx, c.B().Arbitrary("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no").Build()).Error()
		}
	}
	progress(t, &check.checker)
	stop()
	workers.Wait()
	t.Logf("faults: %v; operations: %d, of which failed: %d; %d renewals, %d logouts, %d times everywhere", kinds,
		check.ops.Load(), check.failed.Load(), check.renewals.Load(), check.logouts.Load(), check.everywhere.Load())
	for what, n := range map[string]int64{
		"sessions alive after an answered logout": check.back.Load(),
		"answered changes that were lost":         check.lost.Load(),
		"visitors logged out by nobody":           check.out.Load(),
	} {
		t.Logf("%s: %d", what, n)
		if n != 0 {
			t.Errorf("%s: %d", what, n)
		}
	}
	if check.renewals.Load() == 0 || check.logouts.Load()+check.everywhere.Load() == 0 {
		t.Error("nothing was tested")
	}
}

func mustManager(t *testing.T, client valkey.Client) *session.Manager[map[string]int] {
	t.Helper()
	m, err := session.New[map[string]int](client, session.Config{Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return m
}
