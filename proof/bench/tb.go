package main

import (
	"fmt"
	"slices"
	"testing"
)

// B is what an area starts its servers with: valkeytest.StartWith(b, ...).
//
// valkeytest takes a testing.TB, and this is one outside a test: valkeytest needs its clean-up and its
// way to fail, nothing else, so those are here and every other method is absent (a call panics).
// testing.Benchmark would do it too, but it decides itself how often it calls what it is given, and
// keeps failures to itself.
type B struct {
	testing.TB
	// Quick is set when the figures may be rough; a row whose work has a fixed size does less of it.
	Quick bool

	cleanups []func()
}

// failure is what B panics with; run recovers it.
type failure string

// Helper does nothing: a failure here has no line to point at.
func (b *B) Helper() {}

// Cleanup runs f when the area is done, the last one first.
func (b *B) Cleanup(f func()) { b.cleanups = append(b.cleanups, f) }

// Fatalf ends the area with an error.
func (b *B) Fatalf(format string, args ...any) { panic(failure(fmt.Sprintf(format, args...))) }

// Fatal ends the area with an error.
func (b *B) Fatal(args ...any) { panic(failure(fmt.Sprint(args...))) }

// Skip ends the area with an error: there is nothing to measure without a server.
func (b *B) Skip(args ...any) { b.Fatal(args...) }

// Must ends the area with err, if there is one.
func (b *B) Must(err error) {
	if err != nil {
		b.Fatal(err)
	}
}

// run calls f and then the clean-ups, and returns what ended f early.
func (b *B) run(f func() error) (err error) {
	defer func() {
		for _, cleanup := range slices.Backward(b.cleanups) {
			cleanup()
		}
	}()
	defer func() {
		if p := recover(); p != nil {
			text, ok := p.(failure)
			if !ok {
				panic(p)
			}
			err = fmt.Errorf("%s", text)
		}
	}()
	return f()
}
