package session

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
)

var errReplaced = errors.New("session: the response was replaced, since the session could not be loaded or saved")

// hijacked stands for the code of a response that the handler writes by itself.
const hijacked = -1

// writer saves the session before the first byte of the response.
type writer struct {
	http.ResponseWriter
	before   func(code int) error // its error replaces the response
	replace  func(err error)
	begun    bool
	replaced bool
}

// begin is called before the first byte; it returns whether the response goes on.
func (w *writer) begin(code int) bool {
	if !w.begun {
		w.begun = true
		if err := w.before(code); err != nil {
			w.replaced = true
			w.replace(err)
		}
	}
	return !w.replaced
}

// WriteHeader implements [http.ResponseWriter].
func (w *writer) WriteHeader(code int) {
	if code >= 100 && code < 200 && code != http.StatusSwitchingProtocols && !w.replaced { // not yet the response
		w.ResponseWriter.WriteHeader(code)
		return
	}
	if w.begin(code) {
		w.ResponseWriter.WriteHeader(code)
	}
}

// Write implements [http.ResponseWriter].
func (w *writer) Write(b []byte) (int, error) {
	if !w.begin(http.StatusOK) {
		return 0, errReplaced
	}
	return w.ResponseWriter.Write(b)
}

// WriteString implements [io.StringWriter].
func (w *writer) WriteString(s string) (int, error) {
	if !w.begin(http.StatusOK) {
		return 0, errReplaced
	}
	return io.WriteString(w.ResponseWriter, s)
}

// ReadFrom lets the server send files by itself.
func (w *writer) ReadFrom(r io.Reader) (int64, error) {
	if !w.begin(http.StatusOK) {
		return 0, errReplaced
	}
	return io.Copy(w.ResponseWriter, r)
}

// FlushError is what [http.ResponseController] calls.
func (w *writer) FlushError() error {
	if !w.begin(http.StatusOK) {
		return errReplaced
	}
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Flush implements [http.Flusher].
func (w *writer) Flush() { _ = w.FlushError() }

// Hijack implements [http.Hijacker]. What has changed is saved before. A session that is not stored yet is not stored
// then: its token could not be sent, since the response is the caller's.
func (w *writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	first := !w.begun
	if !w.begin(hijacked) {
		return nil, nil, errReplaced
	}
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil && first {
		w.begun = false // as with HTTP/2: the response is still to come
	}
	return conn, rw, err
}

// Push implements [http.Pusher].
func (w *writer) Push(target string, opts *http.PushOptions) error {
	if p, ok := w.ResponseWriter.(http.Pusher); ok {
		return p.Push(target, opts)
	}
	return http.ErrNotSupported
}

// Unwrap is for [http.ResponseController].
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }
