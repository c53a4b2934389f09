package doctor

import (
	"context"
	"fmt"
	"io"
	"math"
	"strconv"
	"time"
)

// ReadRDB reads an RDB file, versions 1 to 13, 80 and 81, in memory that does not grow with it: values are
// passed over, and what they take in memory follows from their lengths. Errors about its content wrap [ErrRDB]
// and say at which byte; what was read until then is returned beside them.
//
// Sizes are those on the kind of server that wrote the file. Where Config.Quantum is zero and r is an
// io.ReadSeeker, a file whose sizes fit the other allocator better is read twice: it says how much memory was
// in use when it was written.
func ReadRDB(ctx context.Context, r io.Reader, cfg Config) (Report, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return Report{}, err
	}
	if cfg.Sample > 0 {
		return Report{}, fmt.Errorf("%w: Sample is for servers: a file is read as a whole", ErrConfig)
	}
	quantum := int64(8)
	if cfg.Quantum != 0 {
		quantum = int64(cfg.Quantum)
	}
	report, used, err := readOnce(ctx, r, cfg, quantum)
	again, ok := r.(io.Seeker)
	if err != nil || cfg.Quantum != 0 || !ok || used == 0 {
		return report, err
	}
	if float64(used) < report.Bytes*1.02 { // used_memory is never less than the keys: 8 fits
		return report, nil
	}
	if _, err := again.Seek(0, io.SeekStart); err != nil {
		return report, nil //nolint:nilerr // a pipe: the first reading has to do
	}
	other, _, err := readOnce(ctx, r, cfg, 16)
	if err != nil {
		return report, err
	}
	if math.Abs(float64(used)-base-other.Bytes) < math.Abs(float64(used)-base-report.Bytes) {
		return other, nil
	}
	return report, nil
}

// maxTime is a second that JSON can write, with room for what ends later.
const maxTime = 1 << 37

// base is about what an empty server has in use.
const base = 900 << 10

func readOnce(ctx context.Context, r io.Reader, cfg Config, quantum int64) (Report, int64, error) {
	var t *tally
	var f *rdbFile
	first := func() {
		start := cfg.now()
		if at, err := strconv.ParseInt(f.aux["ctime"], 10, 64); err == nil && at > 0 && at < maxTime {
			start = time.Unix(at, 0)
		}
		t = newTally(cfg, start)
	}
	f = newRDBFile(r, quantum)
	f.wants = func(key string) bool { return t == nil || !cfg.NoValues && t.wants(key) }
	err := f.read(ctx, func(e entry) error {
		if t == nil {
			first()
		}
		if e.end >= 0 && e.end <= t.Start {
			t.Expired++
			return nil
		}
		t.add(e)
		if cfg.Progress != nil && t.Seen%batchKeys == 0 {
			cfg.Progress(t.Seen, 0)
		}
		return nil
	})
	if t == nil {
		first()
	}
	f.begin()
	kind, version := f.server()
	report := Report{Format: 1, Source: "rdb", Taken: time.UnixMilli(t.Start).UTC(), Complete: err == nil}
	report.Server = Server{Kind: kind, Version: version, Quantum: int(quantum)}
	used, _ := strconv.ParseInt(f.aux["used-mem"], 10, 64)
	report.Server.Used = used
	t.fill(&report, t.Seen, t.tables(f.model, t.Seen, 1))
	report.Objects = objects(t.Values, f.model, report.Prefixes)
	conclude(&report, cfg, t, nil)
	return report, used, err
}
