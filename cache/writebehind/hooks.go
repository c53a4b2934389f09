package writebehind

import "time"

// Hooks are optional funcs, called from any goroutine. They should return soon: callers and drainers wait for them.
type Hooks struct {
	// Written is called after each call of Origin: for how many writes, how long it took, its error.
	Written func(writes int, took time.Duration, err error)
	// Failed is called for each write that failed and is tried again; tries is how many calls it has failed.
	Failed func(key string, tries int, err error)
	// Dead is called for each write that becomes a dead letter.
	Dead func(key string, err error)
	// Full is called when the log has no room for a key.
	Full func(key string)
	// Began is called when this process begins to drain a partition, and Ended when it does so no longer. Cause is
	// nil after [Store.Close].
	Began func(partition int)
	Ended func(partition int, cause error)
	// Stuck is called when a call of Origin has not returned in time: it keeps its place among Config.Calls until it
	// does.
	Stuck func(partition int)
	// Refused is called when a loaded value was not stored because somebody has written since.
	Refused func(key string)
	// Error gets each error of the server that the background went on without. Op is "own", "claim", "ack", "fail",
	// "adopt" or "load".
	Error func(op string, err error)
}

func (h *Hooks) setDefaults() {
	if h.Written == nil {
		h.Written = func(int, time.Duration, error) {}
	}
	if h.Failed == nil {
		h.Failed = func(string, int, error) {}
	}
	if h.Dead == nil {
		h.Dead = func(string, error) {}
	}
	if h.Full == nil {
		h.Full = func(string) {}
	}
	if h.Began == nil {
		h.Began = func(int) {}
	}
	if h.Ended == nil {
		h.Ended = func(int, error) {}
	}
	if h.Stuck == nil {
		h.Stuck = func(int) {}
	}
	if h.Refused == nil {
		h.Refused = func(string) {}
	}
	if h.Error == nil {
		h.Error = func(string, error) {}
	}
}
