package lock

import (
	_ "embed"

	"github.com/flatrate/flatrate/internal/script"
)

var (
	//go:embed acquire.lua
	acquireLua string
	//go:embed release.lua
	releaseLua string
	//go:embed share_acquire.lua
	shareAcquireLua string
	//go:embed share_release.lua
	shareReleaseLua string
	//go:embed share_extend.lua
	shareExtendLua string

	only = scripts{acquire: script.New(acquireLua), release: script.New(releaseLua)}
	// A semaphore and an RW have several holders at a time, each with a lease of its own.
	shared = scripts{script.New(shareAcquireLua), script.New(shareReleaseLua), script.New(shareExtendLua)}
)

type scripts struct {
	acquire, release *script.Script
	extend           *script.Script // nil: as package lease does
}

// kind is what locks, permits, and the two sides of a read-write lock do differently.
type kind struct {
	scripts
	config             string   // the type whose fields errors name
	held, queue, place string   // parts of the keys
	mark               string   // begins each token
	args               []string // to acquire, after those that all kinds have
}

var mutex = kind{scripts: only, config: "Config", held: "own", queue: "wait", place: "place"}

// keys are those of acquire and release; extend takes the first.
func (k kind) keys(s keySpace, name, token string) []string {
	tag := tag(name)
	return []string{
		s.key(tag, k.held, name), s.key(tag, k.queue, name), s.key(tag, k.place, name), s.key(tag, "gone", token), s.fence(tag),
	}
}
