package cache

import "time"

// Hooks are optional funcs, called from any goroutine. They should return soon: callers wait for them.
type Hooks struct {
	// Hit is called for each answer from a cache; tier says from which.
	Hit func(key string, tier Tier)
	// Miss is called when there is no entry that could be served.
	Miss func(key string)
	// Loaded is called after each load, with how long it took and its error; once per call of a batch's load,
	// with the first of its keys.
	Loaded func(key string, took time.Duration, err error)
	// Stale is called when an entry is served so long after its TTL, beside Hit.
	Stale func(key string, past time.Duration)
	// Waited is called after a wait for somebody else's load, of another process or of this one.
	Waited func(key string, waited time.Duration)
	// Refused is called when a value was not stored because it was loaded before an invalidation, or
	// because the lease had ended.
	Refused func(key string)
	// Audited is called after each comparison with the origin (Config.Audit). Stale means that the origin had another
	// value, and the cache still served the old one a second later.
	Audited func(key string, stale bool)
	// Error gets each error of the server, or of decoding, that a call went on without. Op is "get", "set"
	// or "delete".
	Error func(op string, err error)
}

// Tier is where a hit was found.
type Tier int

// The tiers.
const (
	Local  Tier = iota + 1 // in this process
	Server                 // in the server
)

func (h *Hooks) setDefaults() {
	if h.Hit == nil {
		h.Hit = func(string, Tier) {}
	}
	if h.Miss == nil {
		h.Miss = func(string) {}
	}
	if h.Loaded == nil {
		h.Loaded = func(string, time.Duration, error) {}
	}
	if h.Stale == nil {
		h.Stale = func(string, time.Duration) {}
	}
	if h.Waited == nil {
		h.Waited = func(string, time.Duration) {}
	}
	if h.Refused == nil {
		h.Refused = func(string) {}
	}
	if h.Audited == nil {
		h.Audited = func(string, bool) {}
	}
	if h.Error == nil {
		h.Error = func(string, error) {}
	}
}
