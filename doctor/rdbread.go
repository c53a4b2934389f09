package doctor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
)

// ErrRDB is what every error about the content of an RDB file wraps.
var ErrRDB = errors.New("doctor: RDB file")

const (
	maxHead   = 4 << 10   // bytes kept of a string; the rest is passed over
	maxLength = 1 << 48   // of anything: more is a damaged file
	rdbBuffer = 256 << 10 // the read buffer
)

// jones is the checksum's table; the polynomial is reflected.
var jones = crc64.MakeTable(0x95AC9329AC4BC9B5)

// rdbInput reads a file once, in one buffer, and knows where it is.
type rdbInput struct {
	r        io.Reader
	buf      []byte
	pos, end int
	base     int64 // offset of buf[0]
	crc      uint64
	summed   int // buf up to here is in crc
	head     [maxHead]byte
}

func newRDBInput(r io.Reader) *rdbInput { return &rdbInput{r: r, buf: make([]byte, rdbBuffer)} }

func (in *rdbInput) offset() int64 { return in.base + int64(in.pos) }

func (in *rdbInput) wrong(format string, args ...any) error {
	return fmt.Errorf("%w: at byte %d: %s", ErrRDB, in.offset(), fmt.Sprintf(format, args...))
}

// sum brings the checksum up to where we are. Go's CRC is inverted before and after, the file's is not.
func (in *rdbInput) sum() {
	in.crc = ^crc64.Update(^in.crc, jones, in.buf[in.summed:in.pos])
	in.summed = in.pos
}

func (in *rdbInput) fill() error {
	in.sum()
	in.base += int64(in.end)
	in.pos, in.end, in.summed = 0, 0, 0
	for range 100 {
		n, err := in.r.Read(in.buf)
		in.end = n
		switch {
		case n > 0:
			return nil
		case err == io.EOF:
			return in.wrong("the file ends in the middle")
		case err != nil:
			return fmt.Errorf("%w: at byte %d: %w", ErrRDB, in.offset(), err)
		}
	}
	return in.wrong("%v", io.ErrNoProgress)
}

func (in *rdbInput) byte() (byte, error) {
	if in.pos == in.end {
		if err := in.fill(); err != nil {
			return 0, err
		}
	}
	b := in.buf[in.pos]
	in.pos++
	return b, nil
}

// read fills p, at most maxHead bytes.
func (in *rdbInput) read(p []byte) error {
	for len(p) > 0 {
		if in.pos == in.end {
			if err := in.fill(); err != nil {
				return err
			}
		}
		n := copy(p, in.buf[in.pos:in.end])
		in.pos += n
		p = p[n:]
	}
	return nil
}

func (in *rdbInput) skip(n int64) error {
	for n > 0 {
		if in.pos == in.end {
			if err := in.fill(); err != nil {
				return err
			}
		}
		step := min(n, int64(in.end-in.pos))
		in.pos += int(step)
		n -= step
	}
	return nil
}

func (in *rdbInput) fixed(n int) (uint64, error) {
	var b [8]byte
	err := in.read(b[:n])
	return binary.LittleEndian.Uint64(b[:]), err
}

// rawLength reads a length, or the kind of a string that is encoded in another way.
func (in *rdbInput) rawLength() (n uint64, encoded bool, err error) {
	first, err := in.byte()
	if err != nil {
		return 0, false, err
	}
	var b [8]byte
	switch {
	case first>>6 == 0:
		return uint64(first & 0x3f), false, nil
	case first>>6 == 1:
		second, err := in.byte()
		return uint64(first&0x3f)<<8 | uint64(second), false, err
	case first == 0x80:
		err := in.read(b[:4])
		return uint64(binary.BigEndian.Uint32(b[:])), false, err
	case first == 0x81:
		err := in.read(b[:8])
		return binary.BigEndian.Uint64(b[:]), false, err
	case first>>6 == 3:
		return uint64(first & 0x3f), true, nil
	}
	return 0, false, in.wrong("%#x begins no length", first)
}

// number reads a length that may be any number of 64 bits.
func (in *rdbInput) number() (uint64, error) {
	n, encoded, err := in.rawLength()
	if err == nil && encoded {
		err = in.wrong("a string stands where a number belongs")
	}
	return n, err
}

// length reads how many bytes or elements follow.
func (in *rdbInput) length() (int64, error) {
	n, err := in.number()
	if err == nil && n > maxLength {
		err = in.wrong("a length of %d", n)
	}
	return int64(n), err
}

// text is a string of the file. Head is its beginning, and good until the next one is read.
type text struct {
	len     int64
	head    []byte
	integer bool // written as a number
}

// string reads a string, and keeps up to want bytes of it.
func (in *rdbInput) string(want int) (text, error) {
	n, encoded, err := in.rawLength()
	if err != nil {
		return text{}, err
	}
	if encoded {
		return in.encoded(n, want)
	}
	if n > maxLength {
		return text{}, in.wrong("a string of %d bytes", n)
	}
	t := text{len: int64(n)}
	t.head = in.head[:min(int64(want), t.len, maxHead)]
	if err := in.read(t.head); err != nil {
		return text{}, err
	}
	return t, in.skip(t.len - int64(len(t.head)))
}

func (in *rdbInput) encoded(kind uint64, want int) (text, error) {
	if kind <= 2 {
		size := 1 << kind
		v, err := in.fixed(size)
		if err != nil {
			return text{}, err
		}
		shift := 64 - 8*size
		head := fmt.Appendf(in.head[:0], "%d", int64(v<<shift)>>shift)
		return text{len: int64(len(head)), head: head, integer: true}, nil
	}
	if kind != 3 {
		return text{}, in.wrong("a string in the unknown encoding %d", kind)
	}
	packed, err := in.length()
	if err != nil {
		return text{}, err
	}
	whole, err := in.length()
	if err != nil {
		return text{}, err
	}
	if packed == 0 || whole == 0 || whole/300 > packed { // three bytes make 264 at most
		return text{}, in.wrong("%d compressed bytes can't be %d bytes", packed, whole)
	}
	head, err := in.unpack(packed, min(int64(want), whole, maxHead), whole)
	return text{len: whole, head: head}, err
}

// unpack reads LZF until it has want bytes, and passes over the rest.
func (in *rdbInput) unpack(packed, want, whole int64) ([]byte, error) {
	end := in.offset() + packed
	out := in.head[:0]
	for int64(len(out)) < want {
		if in.offset() >= end {
			return nil, in.wrong("compressed bytes end too early")
		}
		control, err := in.byte()
		if err != nil {
			return nil, err
		}
		if control < 32 {
			n := min(int64(control)+1, want-int64(len(out)))
			at := len(out)
			out = out[:at+int(n)]
			if err := in.read(out[at:]); err != nil {
				return nil, err
			}
			continue
		}
		if out, err = in.repeat(out, control, want); err != nil {
			return nil, err
		}
	}
	if in.offset() > end || want == whole && in.offset() != end {
		return nil, in.wrong("compressed bytes do not end where they should")
	}
	return out, in.skip(end - in.offset())
}

// repeat appends bytes that were there before.
func (in *rdbInput) repeat(out []byte, control byte, want int64) ([]byte, error) {
	n := int64(control >> 5)
	if n == 7 {
		more, err := in.byte()
		if err != nil {
			return nil, err
		}
		n += int64(more)
	}
	low, err := in.byte()
	if err != nil {
		return nil, err
	}
	from := len(out) - (int(control&0x1f)<<8 | int(low)) - 1
	if from < 0 {
		return nil, in.wrong("compressed bytes refer to what is not there")
	}
	for range min(n+2, want-int64(len(out))) {
		out = append(out, out[from])
		from++
	}
	return out, nil
}
