package session_test

import (
	"context"
	"fmt"
	"html"
	"log"
	"net/http"
	"time"

	"github.com/flatrate/flatrate/session"
	"github.com/valkey-io/valkey-go"
)

var client valkey.Client // from flatrate.Connect

type visitor struct {
	User  string   `json:"user,omitempty"`
	Theme string   `json:"theme,omitempty"`
	Cart  []string `json:"cart,omitempty"`
}

// A site with a cart for everybody, a login and a logout.
func Example() {
	sessions, err := session.New[visitor](client, session.Config{Idle: 30 * time.Minute, Absolute: 12 * time.Hour})
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /cart", func(_ http.ResponseWriter, r *http.Request) {
		s, err := sessions.Load(r.Context())
		if err != nil {
			return // answered with 503: Config.HTTP.Error
		}
		s.Value.Cart = append(s.Value.Cart, r.FormValue("item")) // saved before the response begins
	})
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		v, _, err := sessions.Read(r.Context()) // for a request that changes nothing
		if err == nil {
			fmt.Fprintf(w, "%s has %d items", html.EscapeString(v.User), len(v.Cart))
		}
	})
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		s, err := sessions.Load(r.Context())
		if err != nil {
			return
		}
		s.Value.User = r.FormValue("user") // after the password was checked
		if err := sessions.Login(r.Context(), s, session.Terms{User: s.Value.User}); err != nil {
			http.Error(w, "try again later", http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("POST /logout", func(w http.ResponseWriter, r *http.Request) {
		if err := sessions.Logout(r.Context()); err != nil {
			http.Error(w, "try again later", http.StatusServiceUnavailable)
		}
	})
	log.Fatal(http.ListenAndServe("127.0.0.1:8080", sessions.Handler(mux)))
}

// Without net/http the token is the caller's to carry.
func ExampleManager_Get() {
	sessions, err := session.New[visitor](client, session.Config{})
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	s, err := sessions.Begin(ctx, visitor{User: "ann"}, session.Terms{User: "ann", Device: "phone"})
	if err != nil {
		log.Fatal(err)
	}
	s, ok, err := sessions.Get(ctx, s.Token)
	if err != nil || !ok {
		log.Fatal(ok, err)
	}
	s.Value.Theme = "dark"
	ok, err = sessions.Set(ctx, s) // sends the member "theme" only
	fmt.Println(ok, err)
}

// A page that shows a user's sessions, and ends them.
func ExampleManager_List() {
	sessions, err := session.New[visitor](client, session.Config{})
	if err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("GET /sessions", func(w http.ResponseWriter, r *http.Request) {
		s, err := sessions.Load(r.Context())
		if err != nil {
			return
		}
		all, err := sessions.List(r.Context(), s.Value.User)
		if err != nil {
			http.Error(w, "try again later", http.StatusServiceUnavailable)
			return
		}
		for _, other := range all {
			fmt.Fprintln(w, other.ID == s.ID(), html.EscapeString(other.Device), other.Address, other.Seen)
		}
	})
	http.HandleFunc("POST /sessions/end", func(_ http.ResponseWriter, r *http.Request) {
		if s, err := sessions.Load(r.Context()); err == nil {
			_, _ = sessions.End(r.Context(), s.Value.User, r.FormValue("id")) // one
			_, _ = sessions.EndOthers(r.Context(), s)                         // or all others
		}
	})
}

// table is where sessions were before: for DynamoDB, two calls of its client.
type table interface {
	GetItem(ctx context.Context, id string) (user string, expires time.Time, found bool, err error)
	DeleteItem(ctx context.Context, id string) error
}

// Moving from a table: sessions are looked for here first, then there, and are here from then on.
func ExampleManager_TakeOver() {
	var old table
	sessions, err := session.New[visitor](client, session.Config{
		ForeignTokens: true, // the cookie goes on with the table's ids
		HTTP:          session.HTTP{Cookie: session.Cookie{Name: "sid"}},
	})
	if err != nil {
		log.Fatal(err)
	}
	err = sessions.TakeOver(session.Legacy[visitor]{
		Find: func(ctx context.Context, token string) (visitor, session.Terms, bool, error) {
			user, expires, found, err := old.GetItem(ctx, token)
			if err != nil || !found || time.Now().After(expires) { // a table deletes what has expired when it likes
				return visitor{}, session.Terms{}, false, err
			}
			return visitor{User: user}, session.Terms{}, true, nil
		},
		Delete: func(ctx context.Context, token string) error { return old.DeleteItem(ctx, token) },
	})
	if err != nil {
		log.Fatal(err)
	}
}
