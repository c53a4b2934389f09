package sessiontest

import (
	"maps"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/flatrate/flatrate/session"
	"github.com/flatrate/flatrate/valkeytest"
)

// one is a session as the model has it.
type one struct {
	value map[string]int
	user  string
	token string
	old   []string // within their grace: alive while the session is
}

// modelRun drives sessions and a few maps with the same random schedule.
type modelRun struct {
	*testing.T
	random *rand.Rand
	m      *session.Manager[map[string]int]
	all    []*one
	ended  []string // tokens
}

func model(t *testing.T, env valkeytest.Env) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	cfg := session.Config{Idle: time.Hour, Grace: time.Minute}
	if random.IntN(2) == 0 {
		cfg.Keys = []session.Key{key("a")}
	}
	r := &modelRun{T: t, random: random, m: manager[map[string]int](t, env, cfg)}
	for range 600 {
		r.step()
	}
}

// forget is for sessions that were ended.
func (r *modelRun) forget(i int) {
	r.ended = append(append(r.ended, r.all[i].token), r.all[i].old...)
	r.all = append(r.all[:i], r.all[i+1:]...)
}

func (r *modelRun) user() string { return []string{"ann", "bob"}[r.random.IntN(2)] }

func (r *modelRun) step() {
	if len(r.all) == 0 || r.random.IntN(10) == 0 {
		value := map[string]int{"n": len(r.all)}
		s := begin(r.T, r.m, maps.Clone(value))
		r.all = append(r.all, &one{value: value, token: s.Token})
	}
	if len(r.ended) > 0 && r.random.IntN(5) == 0 {
		get(r.T, r.m, r.ended[r.random.IntN(len(r.ended))], false)
	}
	i := r.random.IntN(len(r.all))
	o := r.all[i]
	s := get(r.T, r.m, o.token, true)
	if !reflect.DeepEqual(s.Value, o.value) {
		r.Fatalf("the server has %v, the model %v", s.Value, o.value)
	}
	for range r.random.IntN(3) {
		if name, value := string(rune('a'+r.random.IntN(4))), r.random.IntN(5); value == 0 {
			delete(s.Value, name)
			delete(o.value, name)
		} else {
			s.Value[name], o.value[name] = value, value
		}
	}
	r.act(i, o, s)
	if user, want := r.user(), 0; r.random.IntN(10) == 0 {
		for _, o := range r.all {
			if o.user == user {
				want++
			}
		}
		listed(r.T, r.m, user, want)
	}
}

// act saves what was changed, and does something else with it.
func (r *modelRun) act(i int, o *one, s *session.Session[map[string]int]) {
	switch r.random.IntN(8) {
	case 0:
		save(r.T, r.m, s, true)
		renew(r.T, r.m, s)
		o.old, o.token = append(o.old, o.token), s.Token
		if len(o.old) > 3 {
			o.old = o.old[1:]
		}
	case 1:
		user := r.user()
		login1(r.T, r.m, s, user)
		o.old, o.token, o.user = nil, s.Token, user
	case 2:
		token := o.token
		if len(o.old) > 0 {
			token = o.old[r.random.IntN(len(o.old))]
		}
		if err := r.m.Delete(r.Context(), token); err != nil {
			r.Fatal(err)
		}
		r.forget(i)
		s.Value["resurrected"] = 1
		save(r.T, r.m, s, false)
	case 3:
		save(r.T, r.m, s, true)
		r.endAll(r.user())
	default:
		save(r.T, r.m, s, true)
		for _, old := range o.old {
			get(r.T, r.m, old, true)
		}
	}
}

func (r *modelRun) endAll(user string) {
	n, err := r.m.EndAll(r.Context(), user)
	want := 0
	for j := len(r.all) - 1; j >= 0; j-- {
		if r.all[j].user == user {
			r.forget(j)
			want++
		}
	}
	if err != nil || n != want {
		r.Fatalf("EndAll: %d, %v; want %d", n, err, want)
	}
}
