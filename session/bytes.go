package session

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/flatrate/flatrate/internal/key"
	"github.com/flatrate/flatrate/internal/link"
	"github.com/flatrate/flatrate/internal/patience"
	"github.com/flatrate/flatrate/internal/script"
	"github.com/valkey-io/valkey-go"
)

//go:embed store_put.lua
var storePutLua string

var storePut = script.New(storePutLua)

const storeShards = 64

// StoreConfig says how a [Store] keeps what it is given. The zero value is ready to use.
type StoreConfig struct {
	// Prefix stands before every key. Default "fr".
	Prefix string
	// Name keeps apart stores of different programs. Default "scs".
	Name string
	// Remember is for how long it is remembered that a token was deleted, so that a request which was under way can't
	// bring its session back. Whole milliseconds, from a second on. Default 1 hour.
	Remember time.Duration
	// MaxBytes is how much may be kept for a token, from 1024 to 524288. Default 65536.
	MaxBytes int
	// Timeout bounds the wait for each answer of the server where ctx has no deadline: from 10 ms to a minute. Default 1 s.
	Timeout time.Duration
}

// Store keeps bytes for a token until a time: what the session managers of other libraries stand on. It is a CtxStore
// and an IterableCtxStore of github.com/alexedwards/scs, in both forms, without importing it; contrib/gorilla has a
// store of gorilla/sessions on top. Such managers send whole sessions, so two requests at a time undo each other's
// changes; [Manager] does not. But no session comes back once it was deleted.
type Store struct {
	link.Link
	space  key.Space
	gone   string
	most   int
	secret []byte // of the names that All gives to tokens
}

// NewStore returns a Store on client, which stays the caller's to close.
func NewStore(client valkey.Client, cfg StoreConfig) (*Store, error) {
	if client == nil {
		return nil, errors.New("session: client is nil")
	}
	if cfg.Name == "" {
		cfg.Name = "scs"
	}
	if cfg.Remember == 0 {
		cfg.Remember = DefaultRemember
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = DefaultMaxBytes
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = patience.Default
	}
	switch {
	case cfg.Remember < time.Second || cfg.Remember > maxTimeout || cfg.Remember%time.Millisecond != 0:
		return nil, fmt.Errorf("session: StoreConfig.Remember is %v, not whole milliseconds from 1s to %v", cfg.Remember, maxTimeout)
	case cfg.MaxBytes < 1024 || cfg.MaxBytes > maxBytes:
		return nil, fmt.Errorf("session: StoreConfig.MaxBytes is %d, not from 1024 to %d", cfg.MaxBytes, maxBytes)
	case cfg.Timeout < 10*time.Millisecond || cfg.Timeout > time.Minute:
		return nil, fmt.Errorf("session: StoreConfig.Timeout is %v, not from 10ms to a minute", cfg.Timeout)
	}
	space, err := key.NewSpace(cfg.Prefix, "sess", cfg.Name)
	if err != nil {
		return nil, fmt.Errorf("session: StoreConfig.Prefix: %w", err)
	}
	s := &Store{space: space, gone: milliseconds(cfg.Remember), most: cfg.MaxBytes, secret: []byte(rand.Text())}
	s.Client, s.Wait.Most = client, cfg.Timeout
	return s, nil
}

// digestOf takes a token, or the name that All gave to one: which this process alone can make.
func (s *Store) digestOf(token string) string {
	if name, ok := strings.CutPrefix(token, "~"); ok && len(name) > digestLen {
		if d := name[:digestLen]; hmac.Equal([]byte(s.name(d)), []byte(token)) {
			return d
		}
	}
	return digest(token)
}

func (s *Store) name(digest string) string {
	mac := hmac.New(sha256.New, s.secret)
	mac.Write([]byte(digest))
	return "~" + digest + base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:16])
}

// shardOfDigest is its first six bits.
func shardOfDigest(digest string) string {
	b, err := base64.RawURLEncoding.DecodeString(digest)
	if err != nil || len(b) == 0 {
		return "0"
	}
	return strconv.Itoa(int(b[0] >> 2))
}

func (s *Store) keys(digest string) []string {
	shard := shardOfDigest(digest)
	return []string{s.space.Part(shard, digest), s.space.Part(shard, "all")}
}

// FindCtx returns what is kept for a token; ok is false if there is nothing. One round trip.
func (s *Store) FindCtx(ctx context.Context, token string) (b []byte, ok bool, err error) {
	k := s.keys(s.digestOf(token))[0]
	text, err := s.Do(ctx, k, s.Client.B().Get().Key(k).Build()).ToString()
	if valkey.IsValkeyNil(err) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, wrap("find", err)
	}
	b, ok = kept(text)
	return b, ok, nil
}

// kept is what a store's value holds, unless it remembers that it was deleted.
func kept(text string) ([]byte, bool) {
	if text == "" || text[0] != live {
		return nil, false
	}
	return []byte(text[1:]), true
}

// CommitCtx keeps b for a token until expiry, by this process's clock: it is stored as a duration. If the token was
// deleted before, nothing is kept, and that is no error: the request that commits may not know. One round trip.
func (s *Store) CommitCtx(ctx context.Context, token string, b []byte, expiry time.Time) error {
	left := time.Until(expiry)
	switch {
	case left < time.Millisecond:
		return s.DeleteCtx(ctx, token)
	case len(b) >= s.most:
		return fmt.Errorf("%w: %d bytes, more than %d", ErrTooLarge, len(b)+1, s.most)
	}
	return wrap("commit", s.Exec(ctx, storePut, s.keys(s.digestOf(token)), milliseconds(left), string(live)+string(b)).Error())
}

// DeleteCtx deletes what is kept for a token, and remembers that it was. One round trip.
func (s *Store) DeleteCtx(ctx context.Context, token string) error {
	return wrap("delete", s.Exec(ctx, end, s.keys(s.digestOf(token)), s.gone, "1").Error())
}

// AllCtx returns what is kept for all tokens. They are not known here: each is given a name that this Store takes for
// the token, and nobody else. Two round trips for a thousand sessions, one more for each further thousand; no scan.
func (s *Store) AllCtx(ctx context.Context) (map[string][]byte, error) {
	calls := make([]script.Call, storeShards)
	for i := range calls {
		calls[i] = script.Call{Script: index, Keys: []string{s.space.Part(strconv.Itoa(i), "all")}}
	}
	var digests []string
	for _, reply := range s.Execs(ctx, calls...) {
		scores, err := zscores(reply)
		if err != nil {
			return nil, wrap("all", err)
		}
		for _, score := range scores {
			digests = append(digests, score.Member)
		}
	}
	all := make(map[string][]byte, len(digests))
	for len(digests) > 0 {
		some := digests[:min(batch, len(digests))]
		digests = digests[len(some):]
		gets := make(valkey.Commands, len(some))
		for i, d := range some {
			gets[i] = s.Client.B().Get().Key(s.keys(d)[0]).Build()
		}
		for i, reply := range s.Client.DoMulti(s.Wait.Bounded(ctx), gets...) {
			text, err := reply.ToString()
			if err != nil && !valkey.IsValkeyNil(err) {
				return nil, wrap("all", err)
			}
			if b, ok := kept(text); ok {
				all[s.name(some[i])] = b
			}
		}
	}
	return all, nil
}

// Find is FindCtx without a context.
func (s *Store) Find(token string) (b []byte, found bool, err error) {
	return s.FindCtx(context.Background(), token)
}

// Commit is CommitCtx without a context.
func (s *Store) Commit(token string, b []byte, expiry time.Time) error {
	return s.CommitCtx(context.Background(), token, b, expiry)
}

// Delete is DeleteCtx without a context.
func (s *Store) Delete(token string) error { return s.DeleteCtx(context.Background(), token) }

// All is AllCtx without a context.
func (s *Store) All() (map[string][]byte, error) { return s.AllCtx(context.Background()) }
