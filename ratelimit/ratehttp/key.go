package ratehttp

import (
	"net/http"
	"path"
	"strings"
)

// KeyFunc says whom a request counts for. ok is false if it does not know. The funcs of this package begin
// a subject with its kind, so that an address is never taken for a user of the same spelling.
type KeyFunc func(*http.Request) (subject string, ok bool)

// Header takes the value of a header, such as X-API-Key: "X-Api-Key:abc". A header that is missing, empty, or
// given more than once is no key. Use it for a header that something checks: a client that may send what it
// likes has as many subjects as it likes.
func Header(name string) KeyFunc {
	name = http.CanonicalHeaderKey(name)
	return func(r *http.Request) (string, bool) {
		values := r.Header[name]
		if name == "Host" {
			values = []string{r.Host}
		}
		if len(values) != 1 || values[0] == "" {
			return "", false
		}
		return name + ":" + values[0], true
	}
}

// User takes what of returns, as from the request's context: "user:42". The empty string is no key.
func User(of func(*http.Request) string) KeyFunc {
	return func(r *http.Request) (string, bool) {
		user := of(r)
		return "user:" + user, user != ""
	}
}

// Route takes the pattern by which an [http.ServeMux] chose the handler: "route:GET /orders/{id}". There is one
// behind a mux only, not before it.
func Route() KeyFunc {
	return func(r *http.Request) (string, bool) { return "route:" + r.Pattern, r.Pattern != "" }
}

// Path takes the cleaned path: "path:/orders/7". Beside an address or a user it makes limits for each path;
// who may invent paths then has a limit for each.
func Path() KeyFunc {
	return func(r *http.Request) (string, bool) { return "path:" + path.Clean("/"+r.URL.Path), true }
}

// Method takes the method: "method:POST".
func Method() KeyFunc {
	return func(r *http.Request) (string, bool) {
		method := r.Method
		if method == "" {
			method = http.MethodGet
		}
		return "method:" + method, true
	}
}

// All combines keys into one subject, as for each user and route: "user:42 route:GET%20/a". It has none
// if one of them has none.
func All(keys ...KeyFunc) KeyFunc {
	// Between the parts stands a space, so none stands within.
	escape := strings.NewReplacer("%", "%25", " ", "%20")
	return func(r *http.Request) (string, bool) {
		var b strings.Builder
		for i, key := range keys {
			subject, ok := key(r)
			if !ok {
				return "", false
			}
			if i > 0 {
				b.WriteByte(' ')
			}
			b.WriteString(escape.Replace(subject))
		}
		return b.String(), len(keys) > 0
	}
}

// First takes the first key that the request has, as the user's, else the address.
func First(keys ...KeyFunc) KeyFunc {
	return func(r *http.Request) (string, bool) {
		for _, key := range keys {
			if subject, ok := key(r); ok {
				return subject, true
			}
		}
		return "", false
	}
}
