// Package usage reads what says how much a service was used: today, access logs in common and combined format. It also generates
// such logs, for trying things out.
package usage

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"iter"
	"strconv"
	"unicode/utf8"
)

// MaxLine is the longest line that is read. Longer ones are skipped, and never held in memory.
const MaxLine = 1 << 20

// ErrNoLines means that the log was empty.
var ErrNoLines = errors.New("the log is empty")

// ErrNoEntries means that the log had lines, but none that could be read.
var ErrNoEntries = errors.New("no line is in common or combined log format")

// LineError is a line that could not be read. It ends nothing: the reading goes on.
type LineError struct {
	Line    int64
	Reason  string
	Excerpt string // quoted, and short
}

func (e *LineError) Error() string {
	return fmt.Sprintf("line %d: %s: %s", e.Line, e.Reason, e.Excerpt)
}

// ReadLog yields the entries of a log, plain or gzip, in memory that does not grow with its lines. A line that can't be read yields
// a [LineError]. Any other error comes last, after every line before it.
func ReadLog(r io.Reader) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		log, err := newLog(r)
		if err != nil {
			yield(Entry{}, err)
			return
		}
		for {
			entry, err := log.next()
			if err == io.EOF { //nolint:errorlint // next returns it bare
				break
			}
			if !yield(entry, err) {
				return
			}
			if err != nil && !isLineError(err) {
				return
			}
		}
		switch {
		case log.lines == 0:
			yield(Entry{}, ErrNoLines)
		case log.entries == 0:
			yield(Entry{}, ErrNoEntries)
		}
	}
}

// log reads lines. Blank ones wait until it is known whether the file ends with them: then they are none.
type log struct {
	in             *bufio.Reader // its size is the longest line
	lines, entries int64
	blank          int64 // lines at the end of those read so far
	line           []byte
	long           bool // line is the start of one over MaxLine
	err            error
	ready          bool // line, long and err wait behind blank lines
}

func newLog(r io.Reader) (*log, error) {
	in := bufio.NewReaderSize(r, 64<<10)
	if magic, _ := in.Peek(2); string(magic) == "\x1f\x8b" {
		unzipped, err := gzip.NewReader(in)
		if err != nil {
			return nil, readError(0, err)
		}
		unzipped.Multistream(false)
		r = &members{in, unzipped}
	} else {
		r = in
	}
	in = bufio.NewReaderSize(r, MaxLine+len("\r\n"))
	if mark, _ := in.Peek(3); string(mark) == "\ufeff" {
		_, _ = in.Discard(3)
	}
	return &log{in: in}, nil
}

// members reads a gzip file of one or several members. Zeros behind them are the padding of tapes and block devices, as gzip(1)
// has it.
type members struct {
	in *bufio.Reader
	*gzip.Reader
}

func (m *members) Read(p []byte) (int, error) {
	n, err := m.Reader.Read(p)
	switch {
	case err != io.EOF: //nolint:errorlint // a reader returns it bare
		return n, err
	case n > 0:
		return n, nil // the end of the member comes once more
	}
	for {
		b, err := m.in.ReadByte()
		if err != nil {
			return 0, err
		}
		if b != 0 {
			break
		}
	}
	if err := m.in.UnreadByte(); err != nil {
		return 0, err
	}
	if err := m.Reset(m.in); err != nil {
		return 0, err
	}
	m.Multistream(false)
	return 0, nil
}

// next returns the next entry, a LineError, another error, or io.EOF.
func (l *log) next() (Entry, error) {
	for !l.ready {
		l.readLine()
		if l.err == nil && !l.long && len(bytes.TrimSpace(l.line)) == 0 {
			l.blank++
			continue
		}
		l.ready = true
	}
	if l.err == io.EOF { //nolint:errorlint // a reader returns it bare
		return Entry{}, io.EOF
	}
	if l.blank > 0 {
		l.blank--
		l.lines++
		return Entry{}, &LineError{Line: l.lines, Reason: "blank", Excerpt: `""`}
	}
	l.ready = false
	if l.err != nil {
		return Entry{}, readError(l.lines, l.err)
	}
	l.lines++
	var entry Entry
	reason := "longer than 1 MiB"
	if !l.long {
		entry, reason = parseEntry(string(l.line))
	}
	if reason != "" {
		return Entry{}, &LineError{Line: l.lines, Reason: reason, Excerpt: excerpt(l.line)}
	}
	l.entries++
	entry.Line = l.lines
	return entry, nil
}

// readLine reads one line, without its end, valid until the next call. A line that an error cuts off is no line, but the last one
// of a file needs no end.
func (l *log) readLine() {
	l.line, l.err = l.in.ReadSlice('\n')
	l.long = errors.Is(l.err, bufio.ErrBufferFull)
	if l.long {
		l.line = bytes.Clone(l.line[:2*mostExcerpt])
		for errors.Is(l.err, bufio.ErrBufferFull) {
			_, l.err = l.in.ReadSlice('\n')
		}
	}
	if l.err == io.EOF && len(l.line) > 0 { //nolint:errorlint // a reader returns it bare
		l.err = nil
	}
	if !l.long {
		l.line = bytes.TrimSuffix(bytes.TrimSuffix(l.line, []byte("\n")), []byte("\r"))
		l.long = len(l.line) > MaxLine
	}
}

// readError says what ended a log, and where.
func readError(lines int64, err error) error {
	var corrupt flate.CorruptInputError
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		err = errors.New("the gzip data is cut short")
	case errors.Is(err, gzip.ErrHeader), errors.Is(err, gzip.ErrChecksum), errors.As(err, &corrupt):
		err = fmt.Errorf("the gzip data is damaged: %w", err)
	}
	if lines == 0 {
		return err
	}
	return fmt.Errorf("after line %d: %w", lines, err)
}

func isLineError(err error) bool {
	var bad *LineError
	return errors.As(err, &bad)
}

const mostExcerpt = 60

// excerpt quotes the start of a line, for a terminal.
func excerpt(line []byte) string {
	if len(line) <= mostExcerpt {
		return strconv.QuoteToASCII(string(line))
	}
	end := mostExcerpt
	for end > mostExcerpt-utf8.UTFMax && !utf8.RuneStart(line[end]) {
		end--
	}
	return strconv.QuoteToASCII(string(line[:end])) + "..."
}
