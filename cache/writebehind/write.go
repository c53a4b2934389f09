package writebehind

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/flatrate/flatrate/internal/key"
)

// Write is what the origin has to do for one key.
type Write[V any] struct {
	// Key is the caller's.
	Key string
	// Value is the newest value; the zero V if Deleted.
	Value V
	// Deleted says that the key has no value any more.
	Deleted bool
	// Version grows with each write of a key that reaches the origin, and is the same whenever that is tried again. It
	// is the server's clock in microseconds, or more than the last version that the origin may have if that is higher:
	// so it goes on growing after the server has lost its data, as far as its clock is right.
	Version int64

	token string
}

// Token is the write's idempotency token: the same whenever it is tried again, and no other write's of stores with
// the same prefix. It has no white space or control bytes: NAME:P:VERSION:KEY, escaped as in the server's keys.
func (w Write[V]) Token() string { return w.token }

func newToken(tag, k string, version int64) string {
	return tag + ":" + strconv.FormatInt(version, 10) + ":" + key.Escape(k)
}

// Rejected is what an [Origin] returns if it has written a batch but for some: the index in the batch, and why. Those
// failed by themselves: each failure counts towards Config.Attempts.
type Rejected map[int]error

func (r Rejected) Error() string {
	first := slices.Sorted(maps.Keys(r))
	if len(first) == 0 {
		return "writebehind: no write was rejected"
	}
	return fmt.Sprintf("writebehind: %d writes were rejected, the first one: %v", len(r), r[first[0]])
}

// Unwrap returns the reasons.
func (r Rejected) Unwrap() []error { return slices.Collect(maps.Values(r)) }

// Permanent marks an error that no further attempt can change: the write is a dead letter at once. Nil stays nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanentError{err}
}

type permanentError struct{ err error }

func (e *permanentError) Error() string { return e.err.Error() }
func (e *permanentError) Unwrap() error { return e.err }

// The kinds of failure, as fail.lua has them.
const (
	among     = 0 // it failed among others, or was not tried
	alone     = 1 // it failed alone, and nobody knows whether the origin works
	refused   = 2 // it does, and refuses this write
	permanent = 3 // and always will
)

// kindOf says what an error of a write by itself is; rejected says that the origin has taken the others.
func kindOf(err error, rejected bool) int {
	var forever *permanentError
	switch {
	case errors.As(err, &forever):
		return permanent
	case rejected:
		return refused
	}
	return alone
}
