package rategrpc

import (
	"context"
	"net/http"
	"strings"

	"github.com/flatrate/flatrate/ratelimit/ratehttp"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
)

// KeyFunc says whom a call counts for. ok is false if it does not know. The funcs of this package begin a subject
// with its kind, as those of package ratehttp do.
type KeyFunc func(context.Context, Call) (subject string, ok bool)

// Address takes the caller's address, behind proxies too: it is [ratehttp.Address], which says what cfg means and
// which error it returns. The header is read from the metadata.
func Address(cfg ratehttp.AddressConfig) (KeyFunc, error) {
	key, err := ratehttp.Address(cfg)
	if err != nil {
		return nil, err
	}
	header := cfg.Header
	if header == "" {
		header = "X-Forwarded-For"
	}
	return func(ctx context.Context, _ Call) (string, bool) {
		p, ok := peer.FromContext(ctx)
		if !ok || p.Addr == nil {
			return "", false
		}
		r := &http.Request{RemoteAddr: p.Addr.String(), Header: http.Header{
			http.CanonicalHeaderKey(header): metadata.ValueFromIncomingContext(ctx, header),
		}}
		// The listener's own address says whether it is a unix socket.
		return key(r.WithContext(context.WithValue(ctx, http.LocalAddrContextKey, p.LocalAddr)))
	}, nil
}

// Metadata takes a value of the metadata, such as x-api-key: "metadata:x-api-key:abc". One that is missing, empty, or given
// more than once is no key. Use it for what something checks: a client that may send what it likes has as
// many subjects as it likes.
func Metadata(name string) KeyFunc {
	name = strings.ToLower(name)
	return func(ctx context.Context, _ Call) (string, bool) {
		values := metadata.ValueFromIncomingContext(ctx, name)
		if len(values) != 1 || values[0] == "" {
			return "", false
		}
		return "metadata:" + name + ":" + values[0], true
	}
}

// User takes what of returns, as from the context: "user:42". The empty string is no key.
func User(of func(context.Context) string) KeyFunc {
	return func(ctx context.Context, _ Call) (string, bool) {
		user := of(ctx)
		return "user:" + user, user != ""
	}
}

// Method takes the full name of the method: "method:/shop.Orders/Get".
func Method() KeyFunc {
	return func(_ context.Context, call Call) (string, bool) { return "method:" + call.Method, true }
}

// All combines keys into one subject, as for each user and method. It has none if one of them has none.
func All(keys ...KeyFunc) KeyFunc {
	// Between the parts stands a space, so none stands within.
	escape := strings.NewReplacer("%", "%25", " ", "%20")
	return func(ctx context.Context, call Call) (string, bool) {
		parts := make([]string, len(keys))
		for i, key := range keys {
			subject, ok := key(ctx, call)
			if !ok {
				return "", false
			}
			parts[i] = escape.Replace(subject)
		}
		return strings.Join(parts, " "), len(keys) > 0
	}
}

// First takes the first key that the call has, as the user's, else the address.
func First(keys ...KeyFunc) KeyFunc {
	return func(ctx context.Context, call Call) (string, bool) {
		for _, key := range keys {
			if subject, ok := key(ctx, call); ok {
				return subject, true
			}
		}
		return "", false
	}
}
