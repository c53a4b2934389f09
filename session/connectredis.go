package session

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"strings"
	"time"

	"github.com/flatrate/flatrate/internal/link"
	"github.com/valkey-io/valkey-go"
)

// ConnectRedis says where Node's express-session keeps sessions with connect-redis.
type ConnectRedis struct {
	// Client is of the server that has them, which may be another one than the manager's.
	Client valkey.Client
	// Prefix is connect-redis's. Default "sess:".
	Prefix string
	// Secrets are those of express-session: a cookie signed with any of them is good.
	Secrets []string
}

// FromConnectRedis is what [Manager.TakeOver] takes to go on with the sessions of express-session and connect-redis.
// The manager's Cookie.Name has to be theirs, connect.sid by default: the cookie's value is the token, until a login
// or a renewal replaces it. The members of req.session become those of T, but for the cookie, whose originalMaxAge
// becomes the idle timeout. One round trip for each session, once; a logout deletes both.
func FromConnectRedis[T any](from ConnectRedis) (Legacy[T], error) {
	switch {
	case from.Client == nil:
		return Legacy[T]{}, errors.New("session: ConnectRedis.Client is nil")
	case len(from.Secrets) == 0:
		return Legacy[T]{}, errors.New("session: ConnectRedis.Secrets is empty")
	}
	for i, secret := range from.Secrets {
		if secret == "" {
			return Legacy[T]{}, fmt.Errorf("session: ConnectRedis.Secrets[%d] is empty", i)
		}
	}
	if from.Prefix == "" {
		from.Prefix = "sess:"
	}
	way := &link.Link{Client: from.Client}
	p := planOf(reflect.TypeFor[T]())
	return Legacy[T]{
		Find: func(ctx context.Context, token string) (value T, terms Terms, ok bool, err error) {
			id, ok := signedID(token, from.Secrets)
			if !ok {
				return value, terms, false, nil
			}
			key := from.Prefix + id
			text, err := way.Do(ctx, key, from.Client.B().Get().Key(key).Build()).ToString()
			if valkey.IsValkeyNil(err) {
				return value, terms, false, nil
			}
			if err != nil {
				return value, terms, false, err
			}
			terms, err = decodeConnect(p, text, reflect.ValueOf(&value).Elem())
			return value, terms, err == nil, err
		},
		Delete: func(ctx context.Context, token string) error {
			id, ok := signedID(token, from.Secrets)
			if !ok {
				return nil
			}
			key := from.Prefix + id
			return way.Do(ctx, key, from.Client.B().Del().Key(key).Build()).Error()
		},
	}, nil
}

// signedID takes the id out of a cookie of express-session: "s:", the id, a dot and its HMAC, escaped.
func signedID(cookie string, secrets []string) (id string, ok bool) {
	text, err := url.PathUnescape(cookie)
	if err != nil {
		return "", false
	}
	text, ok = strings.CutPrefix(text, "s:")
	dot := strings.LastIndexByte(text, '.')
	if !ok || dot < 1 {
		return "", false
	}
	id = text[:dot]
	for _, secret := range secrets {
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write([]byte(id))
		if hmac.Equal([]byte(base64.RawStdEncoding.EncodeToString(mac.Sum(nil))), []byte(text[dot+1:])) {
			return id, true
		}
	}
	return "", false
}

// decodeConnect reads the JSON that connect-redis stores.
func decodeConnect(p plan, text string, value reflect.Value) (terms Terms, err error) {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &raw); err != nil || raw == nil {
		return terms, errors.New("session: take over: the key holds no session of connect-redis")
	}
	var cookie struct {
		OriginalMaxAge *float64 `json:"originalMaxAge"`
	}
	if err := json.Unmarshal(raw["cookie"], &cookie); err != nil {
		return terms, errors.New("session: take over: the session of connect-redis has no cookie")
	}
	delete(raw, "cookie")
	if age := cookie.OriginalMaxAge; age != nil && *age >= 1 && *age <= float64(maxTimeout/time.Millisecond) {
		terms.Idle = time.Duration(*age) * time.Millisecond
	}
	var all []member
	for name, v := range raw {
		if checkName(name) == nil { // what T can't have, it does not get
			all = append(all, member{name, string(v)})
		}
	}
	return terms, p.decode(value, all)
}
