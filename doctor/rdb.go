package doctor

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// The bytes that stand where a type would.
const (
	opSlotImport = 243
	opSlotInfo   = 244
	opFunction   = 245
	opModuleAux  = 247
	opIdle       = 248
	opFreq       = 249
	opAux        = 250
	opResize     = 251
	opExpireMs   = 252
	opExpire     = 253
	opSelect     = 254
	opEnd        = 255
)

// rdbFile is what is known of a file while it is read.
type rdbFile struct {
	in      *rdbInput
	version int
	valkey  bool
	db      int64
	aux     map[string]string
	model   model
	quantum int64
	begun   bool // the first key was seen: the model stands

	key    string
	keyLen int64
	end    int64 // Unix ms, or -1
	freq   int   // or -1
	emit   func(entry) error
	wants  func(key string) bool // whether to keep a string's value
}

func newRDBFile(r io.Reader, quantum int64) *rdbFile {
	return &rdbFile{in: newRDBInput(r), aux: map[string]string{}, quantum: quantum, end: -1, freq: -1, wants: func(string) bool { return false }}
}

// read reads the file to its end, and calls emit for each key.
func (f *rdbFile) read(ctx context.Context, emit func(entry) error) error {
	f.emit = emit
	if err := f.magic(); err != nil {
		return err
	}
	for n := 0; ; n++ {
		if n%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		op, err := f.in.byte()
		if err != nil {
			return err
		}
		if op == opEnd {
			return f.checksum()
		}
		if op >= 242 {
			err = f.opcode(op)
		} else {
			err = f.entry(op)
		}
		if err != nil {
			return err
		}
	}
}

func (f *rdbFile) magic() error {
	var b [9]byte
	if err := f.in.read(b[:]); err != nil {
		return fmt.Errorf("%w: it is shorter than a header", ErrRDB)
	}
	head := string(b[:])
	digits, isRedis := strings.CutPrefix(head, "REDIS")
	if !isRedis {
		digits, f.valkey = strings.CutPrefix(head, "VALKEY")
	}
	if !isRedis && !f.valkey {
		return fmt.Errorf("%w: it begins with %q, not with REDIS or VALKEY", ErrRDB, head[:6])
	}
	version, err := strconv.Atoi(digits)
	switch {
	case err != nil || version < 1:
		return fmt.Errorf("%w: %q is no version", ErrRDB, digits)
	case version > 13 && version != 80 && version != 81:
		return fmt.Errorf("%w: version %d; those that are read are 1 to 13, 80 and 81", ErrRDB, version)
	case f.valkey != (version >= 80):
		return fmt.Errorf("%w: version %d does not go with the header %q", ErrRDB, version, head)
	}
	f.version = version
	return nil
}

// checksum compares the last eight bytes; zero says that there is none.
func (f *rdbFile) checksum() error {
	if f.version < 5 {
		return nil
	}
	f.in.sum()
	want := f.in.crc
	got, err := f.in.fixed(8)
	if err != nil {
		return err
	}
	if got != 0 && got != want {
		return f.in.wrong("the checksum is %016x, not %016x: the file is damaged", want, got)
	}
	return nil
}

func (f *rdbFile) opcode(op byte) error {
	switch op {
	case opSelect:
		n, err := f.in.length()
		f.db = n
		return err
	case opExpireMs, opExpire:
		size, unit := 8, int64(1)
		if op == opExpire {
			size, unit = 4, 1000
		}
		v, err := f.in.fixed(size)
		f.end = min(int64(min(v, 1<<60)), 1<<52) * unit
		return err
	case opFreq:
		b, err := f.in.byte()
		f.freq = int(b)
		return err
	case opAux:
		return f.auxField()
	case opFunction:
		_, err := f.in.string(0)
		return err
	case opModuleAux:
		if _, err := f.in.number(); err != nil {
			return err
		}
		return f.moduleValue()
	case opSlotImport:
		return f.slotImport()
	case opIdle:
		return f.numbers(1)
	case opResize:
		return f.numbers(2)
	case opSlotInfo:
		return f.numbers(3)
	}
	return f.in.wrong("the opcode %d is not known", op)
}

func (f *rdbFile) numbers(n int64) error {
	for range n {
		if _, err := f.in.number(); err != nil {
			return err
		}
	}
	return nil
}

// auxField keeps the few that say who wrote the file, and when.
func (f *rdbFile) auxField() error {
	name, err := f.in.string(32)
	if err != nil {
		return err
	}
	field := string(name.head)
	value, err := f.in.string(64)
	if err != nil {
		return err
	}
	switch field {
	case "redis-ver", "valkey-ver", "ctime", "used-mem", "redis-bits":
		f.aux[field] = string(value.head)
	}
	return nil
}

func (f *rdbFile) slotImport() error {
	if _, err := f.in.string(0); err != nil {
		return err
	}
	n, err := f.in.length()
	if err != nil || n > 16384 {
		return errOr(err, f.in.wrong("%d ranges of slots", n))
	}
	return f.numbers(2 * n)
}

// begin chooses the model, once the fields before the first key are known.
func (f *rdbFile) begin() {
	if f.begun {
		return
	}
	f.begun = true
	kind, version := f.server()
	major, minor := majorMinor(version)
	f.model = newModel(kind, major, minor, f.quantum)
}

// server is who wrote the file. Without a field that says so, the format's version does.
func (f *rdbFile) server() (kind, version string) {
	switch {
	case f.aux["valkey-ver"] != "":
		return "valkey", f.aux["valkey-ver"]
	case f.valkey:
		return "valkey", "9.0.0"
	case f.aux["redis-ver"] != "":
		return "redis", f.aux["redis-ver"]
	}
	return "redis", "7.0.0"
}

func majorMinor(version string) (major, minor int) {
	a, rest, _ := strings.Cut(version, ".")
	b, _, _ := strings.Cut(rest, ".")
	major, _ = strconv.Atoi(a)
	minor, _ = strconv.Atoi(b)
	return major, minor
}

// entry reads a key and its value.
func (f *rdbFile) entry(kind byte) error {
	f.begin()
	key, err := f.in.string(maxHead)
	if err != nil {
		return err
	}
	f.key, f.keyLen = string(key.head), key.len
	e, err := f.value(kind)
	if err != nil {
		return fmt.Errorf("key %.100q: %w", f.key, err)
	}
	e.key, e.db, e.freq, e.end = f.key, f.db, f.freq, f.end
	e.bytes += float64(f.model.expiry(f.end >= 0))
	f.end, f.freq = -1, -1
	return f.emit(e)
}

func errOr(err, other error) error {
	if err != nil {
		return err
	}
	return other
}
