package ratelimitd

import (
	"errors"
	"net"
	"sync"
)

// listener holds so many connections, and closes further ones at once: a caller is told now rather than left to wait
// behind clients that may be slow on purpose.
type listener struct {
	*net.TCPListener
	places  chan struct{}
	refused func()

	mu       sync.Mutex // is held while stop empties the queue
	stopping bool
	left     []net.Conn    // of the queue
	stopped  chan struct{} // is closed when Accept has nothing more
	once     sync.Once
}

func newListener(l *net.TCPListener, most int, refused func()) *listener {
	return &listener{TCPListener: l, places: make(chan struct{}, most), refused: refused, stopped: make(chan struct{})}
}

// open is how many connections there are.
func (l *listener) open() int { return len(l.places) }

// Accept returns the next connection that has a place.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.next()
		if err != nil {
			l.once.Do(func() { close(l.stopped) })
			return nil, err
		}
		select {
		case l.places <- struct{}{}:
			return &conn{Conn: c, leave: sync.OnceFunc(func() { <-l.places })}, nil
		default:
			_ = c.Close()
			l.refused()
		}
	}
}

// next is a new connection, or one that stop has left.
func (l *listener) next() (net.Conn, error) {
	c, err := l.AcceptTCP()
	if err == nil {
		return c, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.stopping {
		return nil, err
	}
	if len(l.left) == 0 {
		return nil, net.ErrClosed
	}
	first := l.left[0]
	l.left = l.left[1:]
	return first, nil
}

// stop closes the listener, and returns when all that was in its queue has been accepted. Someone has to be in Accept.
func (l *listener) stop() {
	l.mu.Lock()
	l.stopping = true
	l.left = takeQueue(l.TCPListener)
	_ = l.Close()
	l.mu.Unlock()
	<-l.stopped
}

// Close bears being called again: net/http, which may close it after stop, would report that a request was cut off.
func (l *listener) Close() error {
	if err := l.TCPListener.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

type conn struct {
	net.Conn
	leave func()
}

// Close also gives up the place.
func (c *conn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}
