package session_test

import (
	"log"
	"net/http"
	"time"

	"github.com/flatrate/flatrate/session"
	"github.com/valkey-io/valkey-go"
)

var client valkey.Client // from flatrate.Connect

type visitor struct {
	User  string   `json:"user"`
	Theme string   `json:"theme,omitempty"`
	Cart  []string `json:"cart,omitempty"`
}

// A login begins a session, further requests read and change it, a logout ends it.
func Example() {
	sessions, err := session.New[visitor](client, session.Config{Idle: 30 * time.Minute})
	if err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		s, err := sessions.Create(r.Context(), visitor{User: "ann"}) // after the password was checked
		if err != nil {
			http.Error(w, "try again later", http.StatusServiceUnavailable)
			return
		}
		http.SetCookie(w, &http.Cookie{
			Name: "session", Value: s.Token, Path: "/",
			Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode,
		})
	})
	http.HandleFunc("POST /cart", func(w http.ResponseWriter, r *http.Request) {
		cookie, err := r.Cookie("session")
		if err != nil {
			http.Error(w, "log in first", http.StatusUnauthorized)
			return
		}
		s, ok, err := sessions.Get(r.Context(), cookie.Value)
		if err != nil {
			http.Error(w, "try again later", http.StatusServiceUnavailable)
			return
		}
		if ok {
			s.Value.Cart = append(s.Value.Cart, r.FormValue("item"))
			ok, err = sessions.Set(r.Context(), s) // sends the member "cart" only
		}
		if !ok || err != nil {
			http.Error(w, "log in first", http.StatusUnauthorized)
		}
	})
	http.HandleFunc("POST /logout", func(_ http.ResponseWriter, r *http.Request) {
		if cookie, err := r.Cookie("session"); err == nil {
			if err := sessions.Delete(r.Context(), cookie.Value); err != nil {
				log.Print(err)
			}
		}
	})
}
