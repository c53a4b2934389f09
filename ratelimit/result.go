package ratelimit

import (
	"math"
	"strconv"
	"time"
)

// Never is the [Result.RetryAfter] of a request whose cost is above a limit or a burst.
const Never = time.Duration(math.MaxInt64)

// Result is a decision. A denial is a result, not an error.
type Result struct {
	// Allowed says whether the request may go on. It is false in the Result beside an error.
	Allowed bool
	// Mode says who decided: look at it where an admission by an outage mode matters.
	Mode Mode
	// Granted is how many units were charged: the cost if allowed, else none; what AllowAtMost got.
	Granted int64

	// Name, Limit, Remaining, ResetAfter and Reset are those of the most restrictive limit: of one that
	// denied, else of the one that has the smallest part left.

	// Name is that limit's.
	Name string
	// Limit is how many units a subject has in the window (a TokenBucket's burst), and Remaining what is
	// left of it.
	Limit, Remaining int64
	// ResetAfter is how long until all of it is available again if nothing more is used, and Reset when
	// that is by the server's clock (zero if the server was not asked).
	ResetAfter time.Duration
	Reset      time.Time
	// RetryAfter is zero if allowed; else how long until all limits admit the request if nobody else uses
	// them, and [Never] if they never will. For Concurrency it is how long the next lease lasts.
	RetryAfter time.Duration
	// Violated are the names of the limits that denied. Don't modify it.
	Violated []string

	limits []LimitResult // of several limits; one limit's are the fields above
	token  string        // of the place that a Concurrency limit gave
	at     int64         // when the server decided, Unix ms; zero if it was not asked
}

// LimitResult is what a decision says of one limit.
type LimitResult struct {
	Name             string
	Limit, Remaining int64
	ResetAfter       time.Duration
	Reset            time.Time
	RetryAfter       time.Duration // zero if this limit admits the request
}

// Limits returns the results of all limits, in the order of Config.Limits. It is empty where nothing is
// known of them: beside an error, and in the modes open and closed.
func (r Result) Limits() []LimitResult {
	if r.limits != nil || r.Limit == 0 {
		return r.limits
	}
	return []LimitResult{{r.Name, r.Limit, r.Remaining, r.ResetAfter, r.Reset, r.RetryAfter}}
}

// Mode is who decided.
type Mode uint8

// The modes.
const (
	// ModeServer: the server counted.
	ModeServer Mode = iota
	// ModeOpen: the server does not answer, and the limits don't hold ([OutageOpen]).
	ModeOpen
	// ModeClosed: the server does not answer, and nothing is admitted ([OutageClosed]).
	ModeClosed
	// ModeLocal: the server does not answer, and this process held to its share ([OutageLocal]).
	ModeLocal
	// ModeBatch: the unit came from a batch that this process took before ([Config.Batch]).
	ModeBatch
	// ModeDenied: the server has denied the subject until a time that is not over ([Config.RememberDenied]).
	ModeDenied
)

var modeNames = [...]string{"server", "open", "closed", "local", "batch", "denied"}

// String returns a word for logs and metrics: server, open, closed, local, batch or denied.
func (m Mode) String() string {
	if int(m) < len(modeNames) {
		return modeNames[m]
	}
	return "Mode(" + strconv.Itoa(int(m)) + ")"
}

// Outage is what a limit does while the server does not answer.
type Outage uint8

// The outage modes. Where the limits of a Config differ in it, the strictest counts: an error before
// closed, closed before local, local before open.
const (
	// OutageError returns an error, and the caller decides. In a Limit: as Config.Outage says.
	OutageError Outage = iota
	// OutageOpen admits everything.
	OutageOpen
	// OutageClosed denies everything.
	OutageClosed
	// OutageLocal admits this process's share: Limit / Config.Processes, in windows of this process's own. A cost
	// above it is denied, RetryAfter a second.
	OutageLocal
)

var outageNames = [...]string{"error", "open", "closed", "local"}

// String returns error, open, closed or local.
func (o Outage) String() string {
	if int(o) < len(outageNames) {
		return outageNames[o]
	}
	return "Outage(" + strconv.Itoa(int(o)) + ")"
}
