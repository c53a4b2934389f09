package breaker

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

var errAway = errors.New("away")

// server is what a probe asks.
type server struct {
	away, hangs    atomic.Bool
	probes         atomic.Int64
	opened, closed atomic.Int64
}

func (s *server) probe(ctx context.Context) error {
	s.probes.Add(1)
	if s.hangs.Load() {
		<-ctx.Done()
		return ctx.Err()
	}
	if s.away.Load() {
		return errAway
	}
	return nil
}

func (s *server) breaker() *Breaker {
	return &Breaker{
		Opened: func(error) { s.opened.Add(1) },
		Closed: func() { s.closed.Add(1) },
	}
}

func TestOpensAndRecoversWithinASecond(t *testing.T) {
	for name, away := range map[string]func(*server) *atomic.Bool{
		"dead": func(s *server) *atomic.Bool { return &s.away }, "silent": func(s *server) *atomic.Bool { return &s.hangs },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var s server
				b := s.breaker()
				if b.Err() != nil {
					t.Fatal("a new one is open")
				}
				away(&s).Store(true)
				for range 10 {
					b.Open(errAway, s.probe)
				}
				for range 100 {
					time.Sleep(100 * time.Millisecond)
					if !errors.Is(b.Err(), errAway) {
						t.Fatal("closed while the server is away")
					}
				}
				if n := s.probes.Load(); n < 10 || n > 60 {
					t.Errorf("%d probes in ten seconds", n)
				}
				away(&s).Store(false)
				begin := time.Now()
				for b.Err() != nil {
					time.Sleep(time.Millisecond)
				}
				if took := time.Since(begin); took > time.Second {
					t.Errorf("closed %v after the server was back", took)
				}
				if s.opened.Load() != 1 || s.closed.Load() != 1 {
					t.Errorf("opened %d times, closed %d times", s.opened.Load(), s.closed.Load())
				}
			})
		})
	}
}

func TestAFalseAlarmIsShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s server
		b := s.breaker()
		b.Open(errAway, s.probe)
		synctest.Wait()
		if b.Err() != nil || s.probes.Load() != 1 {
			t.Errorf("%v after %d probes", b.Err(), s.probes.Load())
		}
	})
}

func TestSuspicion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s server
		b := s.breaker()
		b.Suspect(s.probe)
		synctest.Wait()
		if b.Err() != nil || s.probes.Load() != 1 || s.opened.Load() != 0 {
			t.Fatalf("the server answers: %v after %d probes", b.Err(), s.probes.Load())
		}
		s.hangs.Store(true)
		for range 10 {
			b.Suspect(s.probe)
		}
		time.Sleep(leastTimeout - time.Millisecond)
		if b.Err() != nil || s.probes.Load() != 2 {
			t.Fatalf("nothing is known yet: %v after %d probes", b.Err(), s.probes.Load())
		}
		time.Sleep(2 * time.Millisecond)
		if b.Err() == nil {
			t.Fatal("the server is silent")
		}
		s.hangs.Store(false)
		time.Sleep(time.Second)
		if b.Err() != nil {
			t.Fatal("the server is back")
		}
	})
}

// TestNobodyIsAskedForEver: a program that has stopped asking must not probe until it ends.
func TestNobodyIsAskedForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s server
		b := s.breaker()
		s.away.Store(true)
		b.Open(errAway, s.probe)
		time.Sleep(30 * time.Second)
		if b.Err() == nil {
			t.Fatal("closed while the server is away")
		}
		time.Sleep(59 * time.Second)
		n := s.probes.Load()
		time.Sleep(5 * time.Second) // a minute after Err was called
		if s.probes.Load() == n {
			t.Error("it gave up early")
		}
		n = s.probes.Load()
		time.Sleep(time.Hour)
		if s.probes.Load() > n+1 {
			t.Errorf("%d probes for nobody", s.probes.Load()-n)
		}
	})
}

// TestAProbeThatDoesNotEndWithItsContext: a suspicion is settled in time, by one probe, and so is the outage.
func TestAProbeThatDoesNotEndWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s server
		b := s.breaker()
		var deaf Probe = func(context.Context) error {
			s.probes.Add(1)
			time.Sleep(5 * time.Second)
			return nil
		}
		for range 10 {
			b.Suspect(deaf)
		}
		time.Sleep(leastTimeout + time.Millisecond)
		if b.Err() == nil || s.probes.Load() != 2 {
			t.Fatalf("%v after %d probes, one of the suspicion and one of the outage", b.Err(), s.probes.Load())
		}
		time.Sleep(6 * time.Second)
		if b.Err() != nil || s.probes.Load() != 2 || s.opened.Load() != 1 || s.closed.Load() != 1 {
			t.Errorf("%v after %d probes, opened %d times, closed %d times", b.Err(), s.probes.Load(), s.opened.Load(), s.closed.Load())
		}
	})
}

// TestAProbeWaitsAsLongAsACall: a server that answers calls in their time answers probes too.
func TestAProbeWaitsAsLongAsACall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s server
		b := s.breaker()
		b.Timeout = 2 * time.Second
		slow := func(ctx context.Context) error {
			s.probes.Add(1)
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(time.Second):
				return nil
			}
		}
		b.Suspect(slow)
		time.Sleep(3 * time.Second)
		if b.Err() != nil || s.opened.Load() != 0 {
			t.Fatalf("a server that is slow: %v", b.Err())
		}
		b.Open(errAway, slow)
		time.Sleep(3 * time.Second)
		if b.Err() != nil || s.probes.Load() != 2 {
			t.Errorf("%v after %d probes", b.Err(), s.probes.Load())
		}
	})
}

// TestRefused: errors that the server answers with are reported in turn with its answers, and keep no call from it.
func TestRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s server
		b := s.breaker()
		said := func(opened, closed int64) {
			t.Helper()
			if s.opened.Load() != opened || s.closed.Load() != closed {
				t.Fatalf("opened %d times, closed %d times, want %d and %d", s.opened.Load(), s.closed.Load(), opened, closed)
			}
		}
		b.Answered()
		said(0, 0)
		for range 3 {
			b.Refuse(errAway)
			if b.Err() != nil {
				t.Fatal("calls are kept from a server that answers")
			}
		}
		said(1, 0)
		for range 3 {
			b.Answered()
		}
		said(1, 1)
		// A server that refuses, and then does not answer: one outage.
		b.Refuse(errAway)
		s.away.Store(true)
		b.Open(errAway, s.probe)
		time.Sleep(time.Second)
		b.Refuse(errAway)
		b.Answered()
		if b.Err() == nil {
			t.Fatal("the server is away")
		}
		said(2, 1)
		s.away.Store(false)
		time.Sleep(time.Second)
		if b.Err() != nil {
			t.Fatal("the server is back")
		}
		said(2, 2)
	})
}
