package object

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"

	"github.com/flatrate/flatrate/internal/server"
	"github.com/valkey-io/valkey-go"
)

// Server is what a server is, as far as memory goes.
type Server struct {
	// Kind is "valkey" or "redis".
	Kind string
	// Major and Minor are its version: 8, 0 for Valkey 8.0.1. Known are Valkey 7.2 and above, Redis 7.0 and above.
	Major, Minor int
	// Quantum is how far apart the allocator's small sizes are: 16 for jemalloc as Debian packages it, 8 for the one that
	// servers bring in their own source. Zero means 16.
	Quantum int
}

// ServerOf asks what client's server is, in one round trip. Quantum stays zero: no server says it.
func ServerOf(ctx context.Context, client valkey.Client) (Server, error) {
	ctx, cancel := context.WithTimeout(ctx, MaxWait)
	defer cancel()
	info, err := server.Probe(ctx, client)
	if err != nil {
		return Server{}, fmt.Errorf("object: %w", err)
	}
	if info.Kind == "" {
		return Server{}, errors.New("object: the server does not say what it is")
	}
	return Server{Kind: info.Kind, Major: info.Version.Major, Minor: info.Version.Minor}, nil
}

// machine returns the model of a server.
func (s Server) machine() (machine, error) {
	m := machine{quantum: s.Quantum}
	at := server.Version{Major: s.Major, Minor: s.Minor}
	switch {
	case m.quantum == 0:
		m.quantum = 16
	case m.quantum != 8 && m.quantum != 16:
		return m, fmt.Errorf("object: Server.Quantum is %d, neither 8 nor 16", s.Quantum)
	}
	switch {
	case s.Kind == "redis" && at.AtLeast(7, 0), s.Kind == "valkey" && at.AtLeast(7, 2) && !at.AtLeast(8, 0):
		m.generation = plainDict
	case s.Kind == "valkey" && at.AtLeast(9, 0):
		m.generation = allInObject
	case s.Kind == "valkey" && at.AtLeast(8, 1):
		m.generation = keyInObject
	case s.Kind == "valkey" && at.AtLeast(8, 0):
		m.generation = keyInEntry
	default:
		return m, fmt.Errorf("object: nothing is known of the memory of %s %d.%d", s.Kind, s.Major, s.Minor)
	}
	return m, nil
}

// Form is how an object may lie in the server.
type Form string

// The forms.
const (
	AsString Form = "string" // of JSON
	AsHash   Form = "hash"   // as this package has it
)

// Advice is what an object takes in each form.
type Advice struct {
	// String and Hash are bytes of used_memory for each object, its key and its place in the tables of keys
	// included; those grow by doubling, and this is their average.
	String, Hash float64
	// Listpack says that all samples fit the compact encoding of hashes: up to [ListpackFields] fields, and names and
	// values of up to [ListpackBytes] bytes.
	Listpack bool
	// Smaller is the form that takes less; AsString if both take the same.
	Smaller Form
	// Saving is the part of the larger form's bytes that the smaller one saves.
	Saving float64
}

// Advise says what objects take on a server, as a string of JSON and as a hash, on average over samples, for keys like
// key (all of it: PREFIX:obj:NAME:{KEY}), with a TTL or without. Nothing is sent: it is the arithmetic of the
// allocations that a server of that version makes, for its stock limits.
//
// It is within 3% of what used_memory says (docs/objects.md). Memory is not all: a string is written and read whole,
// and so is quicker where all of it is wanted.
func Advise[T any](s Server, key string, ttl bool, samples ...T) (Advice, error) {
	m, err := s.machine()
	if err != nil {
		return Advice{}, err
	}
	if len(samples) == 0 {
		return Advice{}, errors.New("object: no samples")
	}
	p, err := newPlan(reflect.TypeFor[T]())
	if err != nil {
		return Advice{}, err
	}
	a := Advice{Listpack: true}
	for i := range samples {
		text, err := json.Marshal(samples[i])
		if err != nil {
			return Advice{}, fmt.Errorf("object: as JSON: %w", err)
		}
		words, err := p.encodeAll(reflect.ValueOf(&samples[i]).Elem())
		if err != nil {
			return Advice{}, fmt.Errorf("object: as a hash: %w", err)
		}
		one, tables := m.stringBytes(len(key), len(text), ttl)
		a.String += float64(one) + float64(tables)*m.table()
		one, tables, packed := m.hashBytes(len(key), words, ttl)
		a.Hash += float64(one) + float64(tables)*m.table()
		a.Listpack = a.Listpack && packed
	}
	n := float64(len(samples))
	a.String, a.Hash = a.String/n, a.Hash/n
	a.Smaller = AsString
	if a.Hash < a.String {
		a.Smaller = AsHash
	}
	a.Saving = math.Abs(a.String-a.Hash) / max(a.String, a.Hash)
	return a, nil
}
