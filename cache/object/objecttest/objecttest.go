// Package objecttest is the conformance suite of package object: what holds on every kind of server.
package objecttest

import (
	"context"
	"errors"
	"math"
	"math/big"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flatrate/flatrate/cache/object"
	"github.com/flatrate/flatrate/valkeytest"
)

// Run runs the suite against env.
func Run(t *testing.T, env valkeytest.Env) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, valkeytest.Env)
	}{
		{"SetGetDelete", setGetDelete},
		{"Types", types},
		{"Empty", empty},
		{"Fields", fields},
		{"CompareAndSet", compareAndSet},
		{"Add", add},
		{"Ranges", ranges},
		{"Together", together},
		{"TTL", ttl},
		{"FieldTTL", fieldTTL},
		{"Foreign", foreign},
		{"Keys", keys},
		{"Large", large},
		{"Model", model},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, env) })
	}
}

// patient is a context for calls on a machine that others use too: they would else end after a second.
func patient(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

type user struct {
	Name   string `cache:"name"`
	Email  string `cache:"email,omitempty"`
	Visits int64  `cache:"visits"`
	secret string //nolint:unused // it is not stored
	Skip   string `cache:"-"`
}

func newStore[T any](t *testing.T, env valkeytest.Env, cfg object.Config) *object.Store[T] {
	t.Helper()
	if cfg.Prefix == "" {
		cfg.Prefix = valkeytest.Prefix(t)
	}
	s, err := object.New[T](env.Client, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func set[T any](t *testing.T, s *object.Store[T], key string, value T) {
	t.Helper()
	if err := s.Set(patient(t), key, value); err != nil {
		t.Fatalf("Set(%.40q): %v", key, err)
	}
}

func want[T any](t *testing.T, s *object.Store[T], key string, value T) {
	t.Helper()
	if got, ok, err := s.Get(patient(t), key); err != nil || !ok || !reflect.DeepEqual(got, value) {
		t.Fatalf("Get(%.40q) = %+v, %v, %v; want %+v", key, got, ok, err, value)
	}
}

func wantNone[T any](t *testing.T, s *object.Store[T], key string) {
	t.Helper()
	if got, ok, err := s.Get(patient(t), key); err != nil || ok {
		t.Fatalf("Get(%.40q) = %+v, %v, %v; want none", key, got, ok, err)
	}
}

func fieldOf[V, T any](t *testing.T, s *object.Store[T], name string) *object.Field[T, V] {
	t.Helper()
	f, err := object.FieldOf[V](s, name)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func setGetDelete(t *testing.T, env valkeytest.Env) {
	s := newStore[user](t, env, object.Config{})
	wantNone(t, s, "a")
	set(t, s, "a", user{Name: "ann", Email: "a@example.com", Visits: 1, Skip: "x"})
	want(t, s, "a", user{Name: "ann", Email: "a@example.com", Visits: 1})
	set(t, s, "a", user{Name: "anna"}) // the address goes
	want(t, s, "a", user{Name: "anna"})
	for _, want := range []bool{true, false} {
		if existed, err := s.Delete(patient(t), "a"); err != nil || existed != want {
			t.Errorf("Delete: %v, %v", existed, err)
		}
	}
	wantNone(t, s, "a")
}

// Base is embedded.
type Base struct {
	ID int
}

type named string

type everything struct {
	Base
	Text    string
	Named   named
	Bytes   []byte
	Yes, No bool
	I8      int8
	I64     int64
	U8      uint8
	U64     uint64
	F32     float32
	F64     float64
	When    time.Time
	For     time.Duration
	Addr    netip.Addr
	Big     big.Int
	Next    *everything
	Number  *int
	None    *int
	List    []string
	Map     map[string]int
	Any     any
	Inner   struct{ A, B int }
	Array   [3]int
	Empty   struct{}
}

func types(t *testing.T, env valkeytest.Env) {
	s := newStore[everything](t, env, object.Config{})
	n := 7
	all := everything{
		Base: Base{4}, Text: "\x00\xff{}\r\n", Named: "n", Bytes: []byte("\x00\xff"), Yes: true, I8: math.MinInt8, I64: math.MinInt64,
		U8: math.MaxUint8, U64: math.MaxUint64, F32: math.MaxFloat32, F64: math.SmallestNonzeroFloat64,
		When: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), For: time.Hour, Addr: netip.MustParseAddr("::1"), Big: *big.NewInt(12345),
		Next: &everything{Text: "next", When: time.Unix(0, 0).UTC()}, Number: &n, List: []string{"a", ""}, Map: map[string]int{"b": 2}, Any: []any{"x", 1.5},
		Inner: struct{ A, B int }{1, 2}, Array: [3]int{1, 2, 3},
	}
	set(t, s, "k", all)
	got, ok, err := s.Get(patient(t), "k")
	if err != nil || !ok {
		t.Fatal(err)
	}
	if got.Big.Cmp(&all.Big) != 0 || got.Next == nil || got.Next.Text != "next" {
		t.Errorf("%+v", got)
	}
	got.Big, got.Next, all.Big, all.Next = big.Int{}, nil, big.Int{}, nil
	if !reflect.DeepEqual(got, all) {
		t.Errorf("got  %+v\nwant %+v", got, all)
	}
	if id, ok, err := fieldOf[int](t, s, "ID").Get(patient(t), "k"); err != nil || !ok || id != 4 {
		t.Errorf("ID: %d, %v, %v", id, ok, err)
	}
	if f, ok, err := fieldOf[*int](t, s, "None").Get(patient(t), "k"); err != nil || ok || f != nil {
		t.Errorf("None: %v, %v, %v", f, ok, err)
	}
	unfit := newStore[struct {
		F   func() int `cache:"-"`
		Any any
	}](t, env, object.Config{})
	if err := unfit.Set(patient(t), "k", struct {
		F   func() int `cache:"-"`
		Any any
	}{Any: func() {}}); err == nil || !strings.Contains(err.Error(), "Any") {
		t.Errorf("a func in an interface: %v", err)
	}
}

// empty holds that an object without fields is one.
func empty(t *testing.T, env valkeytest.Env) {
	type hollow struct {
		A string `cache:"a,omitempty"`
		B *int   `cache:"b"`
	}
	s := newStore[hollow](t, env, object.Config{})
	set(t, s, "k", hollow{})
	want(t, s, "k", hollow{})
	a := fieldOf[string](t, s, "a")
	for _, value := range []string{"x", "", "", "y"} { // the last field goes, and comes back
		if ok, err := a.Set(patient(t), "k", value); err != nil || !ok {
			t.Fatalf("%v, %v", ok, err)
		}
		want(t, s, "k", hollow{A: value})
	}
	set(t, s, "one", hollow{A: "x"})
	if ok, err := a.Set(patient(t), "one", ""); err != nil || !ok {
		t.Fatalf("%v, %v", ok, err)
	}
	want(t, s, "one", hollow{})
}

func fields(t *testing.T, env valkeytest.Env) {
	s := newStore[user](t, env, object.Config{})
	name, email := fieldOf[string](t, s, "name"), fieldOf[string](t, s, "email")
	if ok, err := name.Set(patient(t), "k", "nobody"); err != nil || ok {
		t.Errorf("an object was made of a field: %v, %v", ok, err)
	}
	wantNone(t, s, "k")
	set(t, s, "k", user{Name: "ann", Visits: 3})
	if got, ok, err := email.Get(patient(t), "k"); err != nil || ok || got != "" {
		t.Errorf("%q, %v, %v", got, ok, err)
	}
	if ok, err := email.Set(patient(t), "k", "a@example.com"); err != nil || !ok {
		t.Errorf("%v, %v", ok, err)
	}
	if got, ok, err := email.Get(patient(t), "k"); err != nil || !ok || got != "a@example.com" {
		t.Errorf("%q, %v, %v", got, ok, err)
	}
	want(t, s, "k", user{Name: "ann", Email: "a@example.com", Visits: 3})
	for _, wrong := range []func() error{
		func() error { _, err := object.FieldOf[string](s, "none"); return err },
		func() error { _, err := object.FieldOf[string](s, "visits"); return err },
		func() error { _, err := object.FieldOf[string](s, "Skip"); return err },
		func() error { _, err := object.NumberOf[int](s, "visits"); return err },
	} {
		if err := wrong(); err == nil {
			t.Error("a wrong field was accepted")
		}
	}
}

func compareAndSet(t *testing.T, env valkeytest.Env) {
	s := newStore[user](t, env, object.Config{})
	name, email := fieldOf[string](t, s, "name"), fieldOf[string](t, s, "email")
	visits, err := object.NumberOf[int64](s, "visits")
	if err != nil {
		t.Fatal(err)
	}
	cas := func(f *object.Field[user, string], has, value string, want bool) {
		t.Helper()
		if ok, err := f.CompareAndSet(patient(t), "k", has, value); err != nil || ok != want {
			t.Errorf("%q -> %q: %v, %v", has, value, ok, err)
		}
	}
	cas(name, "", "x", false)
	wantNone(t, s, "k")
	set(t, s, "k", user{Name: "ann"})
	cas(name, "bob", "x", false)
	cas(name, "ann", "anna", true)
	cas(email, "x", "y", false)
	cas(email, "", "x", true)
	cas(email, "", "y", false)
	cas(email, "x", "", true)
	cas(email, "", "z", true)
	want(t, s, "k", user{Name: "anna", Email: "z"})
	if ok, err := visits.CompareAndSet(patient(t), "k", 0, 5); err != nil || !ok {
		t.Errorf("%v, %v", ok, err)
	}
	type counted struct {
		N int `cache:"n,omitempty"`
		A string
	}
	c := newStore[counted](t, env, object.Config{})
	n, err := object.NumberOf[int](c, "n")
	if err != nil {
		t.Fatal(err)
	}
	set(t, c, "k", counted{})
	for range 2 { // a zero that is not stored, and one that is
		if ok, err := n.CompareAndSet(patient(t), "k", 0, 1); err != nil || !ok {
			t.Errorf("%v, %v", ok, err)
		}
		if sum, ok, err := n.Add(patient(t), "k", -1); err != nil || !ok || sum != 0 {
			t.Errorf("%d, %v, %v", sum, ok, err)
		}
	}
}

func add(t *testing.T, env valkeytest.Env) {
	type scores struct {
		N int64
		F float64
		M int64 `cache:"m,omitempty"`
	}
	s := newStore[scores](t, env, object.Config{})
	n, err1 := object.NumberOf[int64](s, "N")
	f, err2 := object.NumberOf[float64](s, "F")
	m, err3 := object.NumberOf[int64](s, "m")
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := n.Add(patient(t), "k", 1); err != nil || ok {
		t.Errorf("an object was made of a number: %v, %v", ok, err)
	}
	wantNone(t, s, "k")
	set(t, s, "k", scores{N: 1 << 60, F: 0.5})
	if sum, ok, err := n.Add(patient(t), "k", 3); err != nil || !ok || sum != 1<<60+3 {
		t.Errorf("%d, %v, %v", sum, ok, err)
	}
	if sum, ok, err := f.Add(patient(t), "k", -2.25); err != nil || !ok || sum != -1.75 {
		t.Errorf("%v, %v, %v", sum, ok, err)
	}
	if sum, ok, err := m.Add(patient(t), "k", 4); err != nil || !ok || sum != 4 {
		t.Errorf("a field that is missing: %d, %v, %v", sum, ok, err)
	}
	want(t, s, "k", scores{N: 1<<60 + 3, F: -1.75, M: 4})
	for _, bad := range []float64{math.NaN(), math.Inf(1)} {
		if _, _, err := f.Add(patient(t), "k", bad); !errors.Is(err, object.ErrRange) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

// ranges holds that a sum which does not fit leaves the field as it was.
func ranges(t *testing.T, env valkeytest.Env) {
	type bounded struct {
		I8  int8
		U8  uint8
		U32 uint32
		I64 int64
		U64 uint64
		M   uint16 `cache:",omitempty"`
	}
	s := newStore[bounded](t, env, object.Config{})
	has := bounded{I8: -100, U8: 250, U32: math.MaxUint32, I64: math.MaxInt64, U64: math.MaxInt64}
	set(t, s, "k", has)
	i8, err1 := object.NumberOf[int8](s, "I8")
	u8, err2 := object.NumberOf[uint8](s, "U8")
	u32, err3 := object.NumberOf[uint32](s, "U32")
	i64, err4 := object.NumberOf[int64](s, "I64")
	u64, err5 := object.NumberOf[uint64](s, "U64")
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		t.Fatal(err)
	}
	for name, act := range map[string]func() error{
		"int8":       func() error { _, _, err := i8.Add(patient(t), "k", -29); return err },
		"uint8":      func() error { _, _, err := u8.Add(patient(t), "k", 6); return err },
		"uint32":     func() error { _, _, err := u32.Add(patient(t), "k", 1); return err },
		"int64":      func() error { _, _, err := i64.Add(patient(t), "k", 1); return err },
		"uint64":     func() error { _, _, err := u64.Add(patient(t), "k", 1); return err },
		"uint64, by": func() error { _, _, err := u64.Add(patient(t), "k", math.MaxUint64); return err },
	} {
		if env.Embedded && strings.HasSuffix(name, "int64") {
			continue // its HINCRBY does not notice
		}
		if err := act(); !errors.Is(err, object.ErrRange) {
			t.Errorf("%s: %v", name, err)
		}
	}
	want(t, s, "k", has)
	if sum, ok, err := u8.Add(patient(t), "k", 5); err != nil || !ok || sum != 255 {
		t.Errorf("%d, %v, %v", sum, ok, err)
	}
}

// together adds from many goroutines: nothing is lost.
func together(t *testing.T, env valkeytest.Env) {
	s := newStore[user](t, env, object.Config{})
	set(t, s, "k", user{Name: "0"})
	visits, err := object.NumberOf[int64](s, "visits")
	if err != nil {
		t.Fatal(err)
	}
	name := fieldOf[string](t, s, "name")
	var swapped atomic.Int64
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			for range 25 {
				if _, ok, err := visits.Add(patient(t), "k", 2); err != nil || !ok {
					t.Errorf("%v, %v", ok, err)
				}
				has, _, err := name.Get(patient(t), "k")
				n, _ := strconv.Atoi(has)
				ok, casErr := name.CompareAndSet(patient(t), "k", has, strconv.Itoa(n+1))
				if err := errors.Join(err, casErr); err != nil {
					t.Error(err)
				}
				if ok {
					swapped.Add(1)
				}
			}
		})
	}
	callers.Wait()
	want(t, s, "k", user{Name: strconv.FormatInt(swapped.Load(), 10), Visits: 400})
}

func ttl(t *testing.T, env valkeytest.Env) {
	const life = 150 * time.Millisecond
	s := newStore[user](t, env, object.Config{TTL: life})
	set(t, s, "k", user{Name: "ann"})
	if _, err := fieldOf[string](t, s, "name").Set(patient(t), "k", "anna"); err != nil {
		t.Fatal(err)
	}
	env.Advance(life + time.Millisecond)
	wantNone(t, s, "k")
	if ok, err := s.Touch(patient(t), "k"); err != nil || ok {
		t.Errorf("Touch of none: %v, %v", ok, err)
	}
	forever := newStore[user](t, env, object.Config{TTL: object.NoTTL})
	set(t, forever, "k", user{})
	if ok, err := forever.Touch(patient(t), "k"); err != nil || !ok {
		t.Errorf("Touch without a TTL: %v, %v", ok, err)
	}
	prefix := valkeytest.Prefix(t)
	long := newStore[user](t, env, object.Config{Prefix: prefix, Name: "n", TTL: time.Hour})
	set(t, long, "k", user{})
	expire := env.Client.B().Pexpire().Key(prefix + ":obj:n:{k}").Milliseconds(60_000).Build()
	if err := env.Client.Do(patient(t), expire).Error(); err != nil {
		t.Fatal(err)
	}
	if ok, err := long.Touch(patient(t), "k"); err != nil || !ok {
		t.Errorf("%v, %v", ok, err)
	}
	left, err := env.Client.Do(patient(t), env.Client.B().Pttl().Key(prefix+":obj:n:{k}").Build()).AsInt64()
	if err != nil || left < 60_001 {
		t.Errorf("%d ms are left, %v", left, err)
	}
}

// fieldTTL ends fields by themselves where the server can, and says so where it can't.
func fieldTTL(t *testing.T, env valkeytest.Env) {
	type login struct {
		Name string
		Code string `cache:"code,ttl=100ms"`
	}
	s := newStore[login](t, env, object.Config{})
	name, code := fieldOf[string](t, s, "Name"), fieldOf[string](t, s, "code")
	err := s.Set(patient(t), "k", login{"ann", "123"})
	if errors.Is(err, object.ErrNoFieldTTL) {
		if _, err := code.Set(patient(t), "k", "x"); !errors.Is(err, object.ErrNoFieldTTL) {
			t.Errorf("Set: %v", err)
		}
		if _, err := name.Expire(patient(t), "k", time.Second); !errors.Is(err, object.ErrNoFieldTTL) {
			t.Errorf("Expire: %v", err)
		}
		wantNone(t, s, "k")
		t.Log("this server has no TTL for fields")
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	env.Advance(101 * time.Millisecond)
	want(t, s, "k", login{Name: "ann"})
	if ok, err := code.Set(patient(t), "k", "456"); err != nil || !ok {
		t.Errorf("%v, %v", ok, err)
	}
	env.Advance(101 * time.Millisecond)
	want(t, s, "k", login{Name: "ann"})
	if ok, err := code.Expire(patient(t), "k", time.Second); err != nil || ok {
		t.Errorf("Expire of a field that is not there: %v, %v", ok, err)
	}
	if ok, err := code.Expire(patient(t), "none", time.Second); err != nil || ok {
		t.Errorf("Expire of no object: %v, %v", ok, err)
	}
	set(t, s, "k", login{"ann", "789"})
	for _, bad := range []time.Duration{0, -1, time.Microsecond} {
		if _, err := name.Expire(patient(t), "k", bad); err == nil {
			t.Errorf("Expire of %v", bad)
		}
	}
	if ok, err := name.Expire(patient(t), "k", 50*time.Millisecond); err != nil || !ok {
		t.Errorf("%v, %v", ok, err)
	}
	env.Advance(51 * time.Millisecond)
	if _, ok, err := name.Get(patient(t), "k"); err != nil || ok {
		t.Errorf("it did not end: %v, %v", ok, err)
	}
}

// foreign puts what is no object, or one with a wrong field, in an object's place: reading tells, Set heals.
func foreign(t *testing.T, env valkeytest.Env) {
	for _, cmd := range [][]string{{"SET", "text"}, {"RPUSH", "x"}, {"HSET", "name", "ann", "visits", "many"}, {"HSET", "visits", "99999999999999999999"}} {
		prefix := valkeytest.Prefix(t)
		s := newStore[user](t, env, object.Config{Prefix: prefix, Name: "n"})
		visits, err := object.NumberOf[int64](s, "visits")
		if err != nil {
			t.Fatal(err)
		}
		if err := env.Client.Do(patient(t), env.Client.B().Arbitrary(cmd[0]).Keys(prefix+":obj:n:{k}").Args(cmd[1:]...).Build()).Error(); err != nil {
			t.Fatal(err)
		}
		got, ok, err := s.Get(patient(t), "k")
		var field *object.FieldError
		if err == nil || ok || got != (user{}) || cmd[0] == "HSET" && (!errors.As(err, &field) || field.Field != "visits") {
			t.Errorf("%q: Get = %+v, %v, %v", cmd, got, ok, err)
		}
		if _, ok, err := visits.Get(patient(t), "k"); err == nil || ok {
			t.Errorf("%q: Get of a field: %v, %v", cmd, ok, err)
		}
		if _, ok, err := visits.Add(patient(t), "k", 1); err == nil || ok {
			t.Errorf("%q: Add: %v, %v", cmd, ok, err)
		}
		if cmd[0] != "HSET" {
			if ok, err := visits.Set(patient(t), "k", 1); err == nil || ok {
				t.Errorf("%q: Set of a field: %v, %v", cmd, ok, err)
			}
		}
		set(t, s, "k", user{Name: "ann"})
		want(t, s, "k", user{Name: "ann"})
	}
}

func keys(t *testing.T, env valkeytest.Env) {
	prefix := valkeytest.Prefix(t)
	for _, name := range []string{"", "a", "a:b", "a{b}"} {
		s := newStore[user](t, env, object.Config{Prefix: prefix, Name: name})
		for _, key := range []string{"", "%", "{", "}", "{}", "a", "a ", "b:{a}", "%7Ba%7D", "a\x00", "a\n", "ü", "\xff", strings.Repeat("x", 513)} {
			wantNone(t, s, key)
			set(t, s, key, user{Name: name + key})
			want(t, s, key, user{Name: name + key})
		}
	}
}

// large has fields of a megabyte, beyond what lies in a listpack.
func large(t *testing.T, env valkeytest.Env) {
	s := newStore[user](t, env, object.Config{})
	big := user{Name: strings.Repeat("x", 1<<20), Email: strings.Repeat("y", 1<<20)}
	set(t, s, "k", big)
	want(t, s, "k", big)
	visits, err := object.NumberOf[int64](s, "visits")
	if err != nil {
		t.Fatal(err)
	}
	if n, ok, err := visits.Add(patient(t), "k", 1); err != nil || !ok || n != 1 {
		t.Errorf("%d, %v, %v", n, ok, err)
	}
}
