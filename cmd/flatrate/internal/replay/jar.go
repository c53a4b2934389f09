package replay

import (
	"strings"
	"time"
)

// jar holds the session tokens that browsers would send back as cookies. Two generations keep it as small as the idle timeout
// allows: a token used less than idle ago is always there, one older than twice that never is. Whether its session still lives,
// the server decides.
type jar struct {
	idle   time.Duration
	turned time.Time // when young began; zero before the first request
	young  map[browser]string
	old    map[browser]string
}

// browser is who shares a cookie.
type browser struct{ address, agent string }

func newJar(idle time.Duration) *jar {
	return &jar{idle: idle, young: map[browser]string{}, old: map[browser]string{}}
}

// token returns a browser's cookie, or nothing.
func (j *jar) token(b browser, now time.Time) string {
	j.turn(now)
	token, ok := j.young[b]
	if ok {
		return token
	}
	if token, ok = j.old[b]; ok {
		j.keep(b, token)
	}
	return token
}

// keep stores a browser's cookie as used now, that is, at the time of the last call of token.
func (j *jar) keep(b browser, token string) {
	if _, ok := j.young[b]; !ok {
		// The log's line would live on behind its parts.
		b = browser{strings.Clone(b.address), strings.Clone(b.agent)}
	}
	j.young[b] = token
}

// turn starts a new generation where the young one is old enough.
func (j *jar) turn(now time.Time) {
	switch age := now.Sub(j.turned); {
	case j.turned.IsZero(), age >= 2*j.idle:
		j.old, j.turned = map[browser]string{}, now
	case age >= j.idle:
		j.old, j.turned = j.young, j.turned.Add(j.idle)
	default:
		return
	}
	j.young = map[browser]string{}
}
