package objecttest

import (
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/flatrate/flatrate/cache/object"
	"github.com/flatrate/flatrate/valkeytest"
)

// model drives a store and a map with the same random schedule.
func model(t *testing.T, env valkeytest.Env) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	m := &modelled{random: rand.New(rand.NewPCG(seed, 0)), store: newStore[user](t, env, object.Config{TTL: time.Hour}), has: map[string]user{}}
	m.email = fieldOf[string](t, m.store, "email")
	var err error
	if m.visits, err = object.NumberOf[int64](m.store, "visits"); err != nil {
		t.Fatal(err)
	}
	for step := range 1000 {
		m.step(t, step)
	}
}

type modelled struct {
	random *rand.Rand
	store  *object.Store[user]
	email  *object.Field[user, string]
	visits *object.Number[user, int64]
	has    map[string]user
}

func (m *modelled) word() string { return []string{"", "x", "y"}[m.random.IntN(3)] }

// step does one thing to both, and compares what they say.
func (m *modelled) step(t *testing.T, step int) {
	t.Helper()
	ctx, key, word := patient(t), string(rune('a'+m.random.IntN(4))), m.word()
	u, there := m.has[key]
	var ok, wantOK bool
	var err error
	switch m.random.IntN(6) {
	case 0:
		u, wantOK, ok = user{Name: strconv.Itoa(step), Email: word}, true, true
		err = m.store.Set(ctx, key, u)
		there = true
	case 1:
		ok, err = m.store.Delete(ctx, key)
		wantOK, there = there, false
	case 2:
		ok, err = m.email.Set(ctx, key, word)
		u.Email, wantOK = word, there
	case 3:
		other := m.word()
		ok, err = m.email.CompareAndSet(ctx, key, other, word)
		if wantOK = there && u.Email == other; wantOK {
			u.Email = word
		}
	case 4:
		var n int64
		n, ok, err = m.visits.Add(ctx, key, int64(step))
		u.Visits, wantOK = u.Visits+int64(step), there
		if there && n != u.Visits {
			t.Fatalf("step %d: the sum is %d, want %d", step, n, u.Visits)
		}
	default:
		var got user
		got, ok, err = m.store.Get(ctx, key)
		if wantOK = there; got != u {
			t.Fatalf("step %d: %+v, model %+v", step, got, u)
		}
	}
	if err != nil || ok != wantOK {
		t.Fatalf("step %d: %v, %v; model %v", step, ok, err, wantOK)
	}
	delete(m.has, key)
	if there {
		m.has[key] = u
	}
}
