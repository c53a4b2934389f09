package report

import (
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// Progress draws a bar on w while r is read, if w is a terminal. Size is how many bytes r holds, or -1 where nobody knows. Call
// done when no more is read: it takes the bar away.
func Progress(w io.Writer, r io.Reader, size int64) (counted io.Reader, done func()) {
	file, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return r, func() {}
	}
	bar := newBar(w, size)
	reader := progressbar.NewReader(r, bar)
	return &reader, func() { _ = bar.Finish() }
}

func newBar(w io.Writer, size int64) *progressbar.ProgressBar {
	return progressbar.NewOptions64(size,
		progressbar.OptionSetWriter(w),
		progressbar.OptionShowBytes(true),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionClearOnFinish(),
	)
}

// ProgressAt is Progress for a file that is read here and there.
func ProgressAt(w io.Writer, r io.ReaderAt, size int64) (counted io.ReaderAt, done func()) {
	file, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return r, func() {}
	}
	bar := newBar(w, size)
	return &readerAt{r, bar, size}, func() { _ = bar.Finish() }
}

type readerAt struct {
	io.ReaderAt
	bar  *progressbar.ProgressBar
	size int64
}

func (r *readerAt) ReadAt(p []byte, at int64) (int, error) {
	n, err := r.ReaderAt.ReadAt(p, at)
	_ = r.bar.Set64(min(r.size, max(r.bar.State().CurrentNum, at+int64(n))))
	return n, err
}

// ProgressCount draws a bar of things that are counted, on a terminal. Call set with how many are done of how many; a total
// of zero is not known.
func ProgressCount(w io.Writer) (set func(done, total int64), finish func()) {
	file, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return func(int64, int64) {}, func() {}
	}
	var bar *progressbar.ProgressBar
	return func(done, total int64) {
			if bar == nil {
				bar = progressbar.NewOptions64(max(1, total), progressbar.OptionSetWriter(w), progressbar.OptionShowCount(),
					progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())
			}
			_ = bar.Set64(min(done, max(1, total)))
		}, func() {
			if bar != nil {
				_ = bar.Finish()
			}
		}
}
