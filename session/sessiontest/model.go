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

// model drives sessions and a few maps with the same random schedule.
func model(t *testing.T, env valkeytest.Env) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	cfg := session.Config{Idle: time.Hour, Grace: time.Minute}
	if random.IntN(2) == 0 {
		cfg.Keys = []session.Key{key("a")}
	}
	m := manager[map[string]int](t, env, cfg)
	var all []*one
	var ended []string // tokens
	users := []string{"ann", "bob"}
	finish := func(i int) {
		ended = append(append(ended, all[i].token), all[i].old...)
		all = append(all[:i], all[i+1:]...)
	}
	for range 600 {
		if len(all) == 0 || random.IntN(10) == 0 {
			value := map[string]int{"n": len(all)}
			s := begin(t, m, maps.Clone(value))
			all = append(all, &one{value: value, token: s.Token})
		}
		if len(ended) > 0 && random.IntN(5) == 0 {
			get(t, m, ended[random.IntN(len(ended))], false)
		}
		i := random.IntN(len(all))
		o := all[i]
		s := get(t, m, o.token, true)
		if !reflect.DeepEqual(s.Value, o.value) {
			t.Fatalf("the server has %v, the model %v", s.Value, o.value)
		}
		for range random.IntN(3) {
			if name, value := string(rune('a'+random.IntN(4))), random.IntN(5); value == 0 {
				delete(s.Value, name)
				delete(o.value, name)
			} else {
				s.Value[name], o.value[name] = value, value
			}
		}
		switch random.IntN(8) {
		case 0:
			save(t, m, s, true)
			renew(t, m, s)
			o.old, o.token = append(o.old, o.token), s.Token
			if len(o.old) > 3 {
				o.old = o.old[1:]
			}
		case 1:
			user := users[random.IntN(2)]
			login1(t, m, s, user)
			o.old, o.token, o.user = nil, s.Token, user
		case 2:
			token := o.token
			if len(o.old) > 0 {
				token = o.old[random.IntN(len(o.old))]
			}
			if err := m.Delete(t.Context(), token); err != nil {
				t.Fatal(err)
			}
			finish(i)
			s.Value["resurrected"] = 1
			save(t, m, s, false)
		case 3:
			user := users[random.IntN(2)]
			n, err := m.EndAll(t.Context(), user)
			want := 0
			save1 := o.user != user
			for j := len(all) - 1; j >= 0; j-- {
				if all[j].user == user {
					finish(j)
					want++
				}
			}
			if err != nil || n != want {
				t.Fatalf("EndAll: %d, %v; want %d", n, err, want)
			}
			if save1 {
				save(t, m, s, true)
			}
		default:
			save(t, m, s, true)
			for _, old := range o.old {
				get(t, m, old, true)
			}
		}
		for _, user := range users {
			if random.IntN(20) == 0 {
				want := 0
				for _, o := range all {
					if o.user == user {
						want++
					}
				}
				listed(t, m, user, want)
			}
		}
	}
}
