package session

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// Key encrypts sessions. Each session has a data key of its own, that seals its members with AES-256-GCM; a Key
// seals the data keys, and binds each to the place of its session. So keys are rotated by putting a new one first: the
// old one has to stay for as long as sessions live that began under it.
type Key struct {
	// ID names the key in the server: 1 to 32 letters, digits, '-' or '_'.
	ID string
	// Secret is 16, 24 or 32 random bytes: AES-128, 192 or 256.
	Secret []byte
}

const (
	sealName    = "@k" // the member that holds the data key; the first one of a sealed session
	dataKeyLen  = 32
	maxKeyID    = 32
	sealContext = "flatrate session "
)

var errSeal = errors.New("session: the session was not sealed by one of Config.Keys, or was changed")

// rings are Config.Keys; the first one seals.
type rings []ring

type ring struct {
	id   string
	aead cipher.AEAD
}

func newRings(keys []Key) (rings, error) {
	var all rings
	for i, k := range keys {
		if k.ID == "" || len(k.ID) > maxKeyID || !base64url(k.ID) {
			return nil, fmt.Errorf("session: Config.Keys[%d].ID is not 1 to %d letters, digits, - or _", i, maxKeyID)
		}
		if all.find(k.ID) != nil {
			return nil, fmt.Errorf("session: Config.Keys[%d].ID is that of another key", i)
		}
		aead, err := newAEAD(k.Secret)
		if err != nil {
			return nil, fmt.Errorf("session: Config.Keys[%d].Secret has %d bytes, not 16, 24 or 32", i, len(k.Secret))
		}
		all = append(all, ring{k.ID, aead})
	}
	return all, nil
}

func (r rings) find(id string) cipher.AEAD {
	for _, k := range r {
		if k.id == id {
			return k.aead
		}
	}
	return nil
}

// newAEAD makes nonces by itself, as a program restricted to FIPS algorithms has to.
func newAEAD(secret []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// seal is the data key of one session.
type seal struct {
	key  []byte
	aead cipher.AEAD
}

func sealText(aead cipher.AEAD, text []byte, about string) string {
	sealed := aead.Seal(nil, nil, text, []byte(about)) //nolint:gosec // newAEAD takes no nonce: it makes its own
	return base64.RawURLEncoding.EncodeToString(sealed)
}

func openText(aead cipher.AEAD, sealed, about string) ([]byte, error) {
	b, err := base64.RawURLEncoding.DecodeString(sealed)
	if err != nil {
		return nil, errSeal
	}
	text, err := aead.Open(nil, nil, b, []byte(about))
	if err != nil {
		return nil, errSeal
	}
	return text, nil
}

func (s *seal) member(name, value string) string {
	return `"` + sealText(s.aead, []byte(value), sealContext+"member "+name) + `"`
}

// changes are sealed, but for those that remove a member.
func (s *seal) changes(all []change) []change {
	sealed := make([]change, len(all))
	for i, c := range all {
		if c.value != "" {
			c.value = s.member(c.name, c.value)
		}
		sealed[i] = c
	}
	return sealed
}

// bound is the data key as it stands in the session's first member.
func (r rings) bound(s *seal, at place) string {
	return `"` + r[0].id + "." + sealText(r[0].aead, s.key, sealContext+"key "+at.String()) + `"`
}

// sealAll returns members as they are stored: as they are, if there are no keys. The data key is that of old, if
// there is one.
func (m *Manager[T]) sealAll(at place, stored []member, old *seal) (*seal, []member, error) {
	if len(m.rings) == 0 {
		return nil, stored, nil
	}
	s := old
	if s == nil {
		key := make([]byte, dataKeyLen)
		_, _ = rand.Read(key) // never fails
		aead, err := newAEAD(key)
		if err != nil {
			return nil, nil, err
		}
		s = &seal{key, aead}
	}
	wire := make([]member, 0, len(stored)+1)
	wire = append(wire, member{sealName, m.rings.bound(s, at)})
	for _, line := range stored {
		wire = append(wire, member{line.name, s.member(line.name, line.value)})
	}
	return s, wire, nil
}

// openAll is the reverse of sealAll.
func (m *Manager[T]) openAll(at place, wire []member) (*seal, []member, error) {
	sealed := len(wire) > 0 && wire[0].name == sealName
	switch {
	case !sealed && (len(m.rings) == 0 || m.cfg.AcceptPlain):
		return nil, wire, nil
	case !sealed, len(m.rings) == 0:
		return nil, nil, errSeal
	}
	id, text, _ := strings.Cut(strings.Trim(wire[0].value, `"`), ".")
	aead := m.rings.find(id)
	if aead == nil {
		return nil, nil, fmt.Errorf("%w: its key is %q", errSeal, id)
	}
	key, err := openText(aead, text, sealContext+"key "+at.String())
	if err != nil {
		return nil, nil, err
	}
	s := &seal{key: key}
	if s.aead, err = newAEAD(key); err != nil {
		return nil, nil, errSeal
	}
	stored := make([]member, 0, len(wire))
	for _, line := range wire[1:] {
		value, err := s.open(line.name, line.value)
		if err != nil {
			return nil, nil, err
		}
		stored = append(stored, member{line.name, value})
	}
	return s, stored, nil
}

func (s *seal) open(name, value string) (string, error) {
	text, err := openText(s.aead, strings.Trim(value, `"`), sealContext+"member "+name)
	return string(text), err
}
