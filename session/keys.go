package session

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/flatrate/flatrate/internal/key"
)

// A token reads SECRET.TAG. The tag is the hash tag of the session's key: four characters for a visitor, at random,
// so that a session keeps its slot when its token is replaced, and sixteen for a user, the same for all sessions of
// the user, so that they and their index share a slot.
const (
	secretLen     = 26 // crypto/rand.Text: 130 bits
	visitorTagLen = 4
	userTagLen    = 16
	digestLen     = 22
)

// Tokens that others have made, with Config.ForeignTokens.
const (
	minForeign = 16
	maxForeign = 256
)

const shards = 16 // of the registry of ends

// place is where a session lies.
type place struct{ tag, digest string }

// String is how records, the index of ends and hooks name a place.
func (p place) String() string { return p.tag + ":" + p.digest }

func (p place) ofUser() bool { return len(p.tag) == userTagLen }

func parsePlace(text string) (p place, ok bool) {
	p.tag, p.digest, ok = strings.Cut(text, ":")
	return p, ok && (len(p.tag) == userTagLen || len(p.tag) == visitorTagLen) && len(p.digest) == digestLen && base64url(p.tag) && base64url(p.digest)
}

// keySpace holds fr:sess:{TAG}:TOKEN.
type keySpace struct{ space key.Space }

func newKeySpace(prefix string) (keySpace, error) {
	s, err := key.NewSpace(prefix, "sess")
	if err != nil {
		return keySpace{}, fmt.Errorf("session: Config.Prefix: %w", err)
	}
	return keySpace{s}, nil
}

func (k keySpace) session(p place) string { return k.space.Part(p.tag, p.digest) }

func (k keySpace) user(tag string) string { return k.space.Part(tag, "user") }

// of are the keys of the scripts about one session: its own, and its user's index if it has a user.
func (k keySpace) of(p place) []string {
	if p.ofUser() {
		return []string{k.session(p), k.user(p.tag)}
	}
	return []string{k.session(p)}
}

func (k keySpace) ends(shard string) string { return k.space.Part(shard, "ends") }

func (k keySpace) notes(shard string) string { return k.space.Part(shard, "notes") }

func (k keySpace) sweep(shard string) string { return k.space.Part(shard, "sweep") }

// digest is what a key has of a token: 128 bits, which can't be turned back.
func digest(token string) string {
	sum := sha256.Sum256([]byte(token))
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

// newToken returns a token with a tag; without one it is a visitor's.
func newToken(tag string) string {
	secret := rand.Text()
	if tag == "" {
		var b [3]byte
		_, _ = rand.Read(b[:]) // never fails
		tag = base64.RawURLEncoding.EncodeToString(b[:])
	}
	return secret + "." + tag
}

// userTag is 96 bits of a digest of the user's id, keyed if there is a secret.
func userTag(secret []byte, user string) string {
	text := []byte("user:" + user)
	var sum []byte
	if len(secret) > 0 {
		mac := hmac.New(sha256.New, secret)
		mac.Write(text)
		sum = mac.Sum(nil)
	} else {
		plain := sha256.Sum256(text)
		sum = plain[:]
	}
	return base64.RawURLEncoding.EncodeToString(sum[:12])
}

// locate says where the session of a token lies; ok is false for what can't be a token.
func locate(token string, foreign bool) (p place, ok bool) {
	if wellFormed(token) {
		return place{token[secretLen+1:], digest(token)}, true
	}
	if !foreign || !acceptable(token) {
		return place{}, false
	}
	d := digest(token)
	return place{d[:visitorTagLen], d}, true
}

// wellFormed says whether token has the form of newToken.
func wellFormed(token string) bool {
	if len(token) != secretLen+1+visitorTagLen && len(token) != secretLen+1+userTagLen || token[secretLen] != '.' {
		return false
	}
	for i := range secretLen {
		if c := token[i]; (c < 'A' || c > 'Z') && (c < '2' || c > '7') {
			return false
		}
	}
	return base64url(token[secretLen+1:])
}

func base64url(text string) bool {
	for i := range len(text) {
		c := text[i]
		if (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// acceptable says whether a token of somebody else's may be one: printable ASCII of some length.
func acceptable(token string) bool {
	if len(token) < minForeign || len(token) > maxForeign {
		return false
	}
	for i := range len(token) {
		if c := token[i]; c <= ' ' || c >= 0x7f {
			return false
		}
	}
	return true
}
