package doctor

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/flatrate/flatrate/valkeytest"
	"github.com/valkey-io/valkey-go"
)

// populate writes a key of each type in each encoding.
func populate(t testing.TB, c valkey.Client) {
	t.Helper()
	long := strings.Repeat("long ", 40)
	for _, words := range [][]string{
		{"SET", "s:int", "12345"}, {"SET", "s:big", "9223372036854775807"}, {"SET", "s:short", "hello"}, {"SET", "s:raw", long},
		{"SET", "s:packed", strings.Repeat("abcdefgh", 200)}, {"SET", "s:ttl", "x", "EX", "5000"}, {"SET", strings.Repeat("name", 300), "v"},
		{"RPUSH", "l:short", "a", "b", "1"}, {"SADD", "set:int", "1", "2", "3"}, {"SADD", "set:short", "a", "b"}, {"SADD", "set:long", long, "b"},
		{"ZADD", "z:short", "1", "a", "2.5", "b"}, {"ZADD", "z:long", "1", long, "-inf", "b", "+inf", "c"},
		{"HSET", "h:short", "a", "1", "b", "2"}, {"HSET", "h:long", "a", long, "b", "2"},
		{"XADD", "x:1", "*", "a", "1"}, {"XGROUP", "CREATE", "x:1", "group", "0"}, {"XREADGROUP", "GROUP", "group", "me", "STREAMS", "x:1", ">"},
		{"HSET", "gone", "a", "1"}, {"FUNCTION", "LOAD", "#!lua name=lib\nredis.register_function('f', function() return 1 end)"},
	} {
		do(t, c, words...)
	}
	write(t, c, 3000, func(i int) []string { return []string{"RPUSH", "l:long", fmt.Sprintf("element %d", i)} })
	write(t, c, 3000, func(i int) []string { return []string{"SADD", "set:many", fmt.Sprintf("member %d", i)} })
	write(t, c, 3000, func(i int) []string { return []string{"HSET", "h:many", fmt.Sprintf("field %d", i), "value"} })
	write(t, c, 3000, func(i int) []string { return []string{"ZADD", "z:many", fmt.Sprint(i), fmt.Sprintf("member %d", i)} })
	write(t, c, 300, func(i int) []string { return []string{"XADD", "x:many", "*", "field", fmt.Sprint(i)} })
}

// dump is what a server writes.
func dump(t testing.TB, s *valkeytest.Server) []byte {
	t.Helper()
	do(t, s.Client(), "SAVE")
	b, err := os.ReadFile(filepath.Join(s.Dir, "dump.rdb"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestRDBIsTheServer holds that a file says the same of each key as the server that wrote it, and about the same of its size.
func TestRDBIsTheServer(t *testing.T) {
	for _, binary := range binaries() {
		t.Run(filepath.Base(binary), func(t *testing.T) {
			t.Parallel()
			s := valkeytest.StartWith(t, valkeytest.Config{Binary: binary, Args: []string{"--save", ""}})
			c := s.Client()
			populate(t, c)
			live, err := Scan(t.Context(), c, Config{KeySamples: -1, Top: 100})
			if err != nil {
				t.Fatal(err)
			}
			file, err := ReadRDB(t.Context(), bytes.NewReader(dump(t, s)), Config{Top: 100, Quantum: live.Server.Quantum})
			if err != nil {
				t.Fatal(err)
			}
			if file.Server.Kind != live.Server.Kind || file.Server.Version != live.Server.Version || !file.Complete || file.Keys != live.Keys || file.NoTTL != live.NoTTL {
				t.Errorf("file %+v %d keys, live %+v %d keys", file.Server, file.Keys, live.Server, live.Keys)
			}
			for _, k := range live.Big {
				i := slices.IndexFunc(file.Big, func(f Key) bool { return f.Key == k.Key })
				if i < 0 {
					t.Errorf("%s is not in the file", k.Key)
					continue
				}
				f := file.Big[i]
				if f.Type != k.Type || f.Encoding != k.Encoding || k.Length > 0 && f.Length != k.Length {
					t.Errorf("%s: file %+v, live %+v", k.Key, f, k)
				}
				// Small sorted sets and streams have structures that MEMORY USAGE and we round differently; tables of
				// collections may still be moving.
				off := 100 * (f.Bytes/k.Bytes - 1)
				if most := map[string]float64{"string": 1, "list": 1, "hash": 20, "set": 20, "zset": 20, "stream": 25}[k.Type]; math.Abs(off) > most && math.Abs(f.Bytes-k.Bytes) > 16 && (k.Bytes > 2000 || k.Type == "string") {
					t.Errorf("%s, %s as %s: file %.0f, live %.0f: %+.1f%%", k.Key, k.Type, k.Encoding, f.Bytes, k.Bytes, off)
				}
			}
		})
	}
}

// old builds files as old versions wrote them.
type old struct{ bytes.Buffer }

func (o *old) str(s string) *old {
	switch n := len(s); {
	case n < 64:
		o.WriteByte(byte(n))
	case n < 1<<14:
		o.Write([]byte{0x40 | byte(n>>8), byte(n)})
	default:
		o.WriteByte(0x80)
		o.Write(binary.BigEndian.AppendUint32(nil, uint32(n)))
	}
	o.WriteString(s)
	return o
}

func (o *old) raw(b ...byte) *old { o.Write(b); return o }

// oldFile has every type that no server writes any more.
func oldFile(version int) []byte {
	o := &old{}
	fmt.Fprintf(o, "REDIS%04d", version)
	o.raw(opSelect, 0)
	o.raw(0).str("s").str("hello")
	o.raw(opExpire, 0xff, 0xff, 0xff, 0x7f, 0).str("ends").raw(0xc1, 0x10, 0x27) // a 16-bit number
	o.raw(opExpireMs).raw(1, 0, 0, 0, 0, 0, 0, 0).raw(0).str("ended").raw(0xc0, 0xff)
	o.raw(1).str("list").raw(2).str("a").str("b")
	o.raw(2).str("set").raw(1).str("m")
	o.raw(3).str("zset").raw(3).str("a").raw(3).raw([]byte("1.5")...).str("b").raw(254).str("c").raw(253)
	o.raw(4).str("hash").raw(1).str("f").str("v")
	o.raw(9).str("zipmap").str("\x01\x01f\x01\x00v\xff")
	ziplist := func(n int) string { return "\x0b\x00\x00\x00\x0a\x00\x00\x00" + string(rune(n)) + "\x00\xff" }
	o.raw(10).str("ziplist").str(ziplist(2))
	o.raw(12).str("zset ziplist").str(ziplist(2))
	o.raw(13).str("hash ziplist").str(ziplist(4))
	o.raw(14).str("quicklist").raw(2).str(ziplist(1)).str(ziplist(1))
	o.raw(7).str("module").raw(0x81, 1, 2, 3, 4, 5, 6, 7, 8).raw(1, 5, 2, 6, 3, 1, 2, 3, 4, 4, 1, 2, 3, 4, 5, 6, 7, 8, 5).str("text").raw(0)
	o.raw(opEnd)
	if version >= 5 {
		o.raw(0, 0, 0, 0, 0, 0, 0, 0)
	}
	return o.Bytes()
}

func TestRDBOfOldVersions(t *testing.T) {
	for version := 1; version <= 13; version++ {
		r, err := ReadRDB(t.Context(), bytes.NewReader(oldFile(version)), Config{})
		if err != nil || r.Keys != 12 {
			t.Errorf("version %d: %d keys, %v", version, r.Keys, err)
			continue
		}
		got := map[string]Key{}
		for _, k := range r.Big {
			got[k.Key] = k
		}
		for key, want := range map[string]Key{
			"ends": {Encoding: "int", Length: 5}, "zset": {Encoding: "skiplist", Length: 3}, "zipmap": {Encoding: "listpack", Length: 1},
			"hash ziplist": {Encoding: "listpack", Length: 2}, "quicklist": {Encoding: "quicklist", Length: 2}, "module": {Encoding: "module"},
		} {
			if k := got[key]; k.Encoding != want.Encoding || k.Length != want.Length {
				t.Errorf("version %d: %+v, not %+v", version, k, want)
			}
		}
	}
}

func TestRDBRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"": "shorter than a header", "REDIS00": "shorter", "GIF89a....": "begins with", "REDISabcd": "no version", "REDIS0000": "no version",
		"REDIS0014\xff": "version 14", "REDIS0079\xff": "version 79", "VALKEY082": "version 82", "REDIS0080": "does not go", "VALKEY011": "does not go",
		"REDIS0009\xf1": "at byte 10: key", "REDIS0009\x06\x01k": "at byte 12: the type 6", "REDIS0009\x1a\x01k": "type 26", "VALKEY081\x17\x01k": "type 23",
		"REDIS0009\xf2": "opcode 242", "REDIS0009\xf6": "opcode 246", "REDIS0009\x00\x01k\xc4": "unknown encoding 4", "REDIS0009\x00\xbf": "begins no length",
		"REDIS0009\x00\x81\xff\xff\xff\xff\xff\xff\xff\xff": "a string of", "REDIS0009\x04\x01k\x81\xff\xff\xff\xff\xff\xff\xff\xff": "a length of",
		"REDIS0009\x00\x01k\xc3\x01\x81\x00\x00\x00\xff\xff\xff\xff\xff": "can't be", "REDIS0009\x00\x01k\xc3\x03\x05\x20\x09\x00": "refer to what is not there",
		"REDIS0009\x00\x01k\xc3\x02\x03\x00a": "end too early", "REDIS0009\x07\x01k\x05\x09": "unknown part 9", "VALKEY080\xf3\x01x\x81\x00\x00\x00\x00\x00\x01\x00\x00": "ranges of slots",
		"REDIS0009\x04\x01k\xc0\x01": "where a number belongs", "REDIS0009\x0b\x01k\x01x": "a set of 1 bytes",
	} {
		_, err := ReadRDB(t.Context(), strings.NewReader(text), Config{})
		if !errors.Is(err, ErrRDB) || !strings.Contains(err.Error(), want) {
			if want != "at byte 10: key" || err == nil {
				t.Errorf("%q: %v, want %q", text, err, want)
			}
		}
	}
}

// TestRDBCutAnywhere holds that a file cut at any byte is an error that says where, and one with any byte changed never passes.
func TestRDBCutAnywhere(t *testing.T) {
	s := valkeytest.StartWith(t, valkeytest.Config{Args: []string{"--save", ""}})
	for _, words := range [][]string{{"SET", "a", strings.Repeat("ab", 100), "EX", "1000"}, {"HSET", "h", "f", "v"}, {"ZADD", "z", "1", strings.Repeat("m", 70)}, {"XADD", "x", "*", "f", "v"}} {
		do(t, s.Client(), words...)
	}
	whole := dump(t, s)
	for n := range whole {
		_, err := ReadRDB(t.Context(), bytes.NewReader(whole[:n]), Config{})
		if !errors.Is(err, ErrRDB) {
			t.Errorf("cut at byte %d: %v", n, err)
		} else if n >= 9 && !strings.Contains(err.Error(), fmt.Sprintf("at byte %d", n)) {
			t.Errorf("cut at byte %d: %v", n, err)
		}
	}
	for n := 9; n < len(whole)-8; n++ {
		bad := bytes.Clone(whole)
		bad[n] ^= 0x55
		if _, err := ReadRDB(t.Context(), bytes.NewReader(bad), Config{}); err == nil {
			t.Errorf("byte %d changed: no error", n)
		}
	}
}

// endless is a file that is made while it is read.
type endless struct {
	head, unit, tail []byte
	n                int
	rest             []byte
	stage            int
}

func (e *endless) Read(p []byte) (int, error) {
	for len(e.rest) == 0 {
		switch {
		case e.stage == 0:
			e.rest, e.stage = e.head, 1
		case e.stage == 1 && e.n > 0:
			e.n--
			e.rest = e.unit
		case e.stage == 1:
			e.rest, e.stage = e.tail, 2
		default:
			return 0, io.EOF
		}
	}
	n := copy(p, e.rest)
	e.rest = e.rest[n:]
	return n, nil
}

// TestRDBInBoundedMemory reads a value of 500 MB and a hash of a million fields.
func TestRDBInBoundedMemory(t *testing.T) {
	size := 500 << 20
	tail := []byte{opEnd, 0, 0, 0, 0, 0, 0, 0, 0}
	value := &endless{head: append([]byte("REDIS0011\x00\x03key\x80"), binary.BigEndian.AppendUint32(nil, uint32(size))...), unit: make([]byte, 1<<20), n: 500, tail: tail}
	hash := &endless{head: append([]byte("REDIS0011\x04\x03key\x80"), binary.BigEndian.AppendUint32(nil, 1_000_000)...), unit: []byte("\x05field\x05value"), n: 1_000_000, tail: tail}
	for name, in := range map[string]io.Reader{"value": value, "hash": hash} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		r, err := ReadRDB(t.Context(), in, Config{})
		runtime.ReadMemStats(&after)
		if err != nil || r.Keys != 1 {
			t.Fatalf("%s: %d keys, %v", name, r.Keys, err)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > 4<<20 {
			t.Errorf("%s: allocated %d bytes in all", name, took)
		}
		if len(r.Findings) != 1 || r.Findings[0].ID != "big-key" || r.Findings[0].Severity != High {
			t.Errorf("%s: %+v", name, r.Findings)
		}
	}
}

func FuzzReadRDB(f *testing.F) {
	f.Add(oldFile(4))
	f.Add(oldFile(11))
	f.Add([]byte("VALKEY080\x16\x01h\x01\x01f\x01v\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Add([]byte("REDIS0012\x18\x01h\x00\x00\x00\x00\x00\x00\x00\x00\x01\x05\x01f\x01v\xff\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Add([]byte("REDIS0009\x00\x01k\xc3\x04\x10\x00a\xe0\x07\x00\xff\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ReadRDB(t.Context(), bytes.NewReader(b), Config{})
		if err != nil && !errors.Is(err, ErrRDB) {
			t.Errorf("%v", err)
		}
		if err == nil && !r.Complete {
			t.Error("neither complete nor an error")
		}
		if r.Bytes < 0 || r.Keys < 0 {
			t.Errorf("%d keys, %f bytes", r.Keys, r.Bytes)
		}
		if _, err := json.Marshal(r); err != nil {
			t.Error(err)
		}
	})
}

// TestRDBOfTheFarFuture has a time that JSON can't write.
func TestRDBOfTheFarFuture(t *testing.T) {
	file := "REDIS0009\xfa\x05ctime\x139000000000000000000\x00\x01k\x01v\xff\x00\x00\x00\x00\x00\x00\x00\x00"
	r, err := ReadRDB(t.Context(), strings.NewReader(file), Config{})
	if err != nil || r.Keys != 1 {
		t.Fatalf("%d keys, %v", r.Keys, err)
	}
	if _, err := json.Marshal(r); err != nil {
		t.Error(err)
	}
}

// TestEmptyListsInJSON: whoever reads the report may walk through its lists.
func TestEmptyListsInJSON(t *testing.T) {
	r, err := ReadRDB(t.Context(), strings.NewReader("REDIS0009\xff\x00\x00\x00\x00\x00\x00\x00\x00"), Config{})
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(r)
	if err != nil || strings.Contains(string(text), "null") {
		t.Errorf("%s, %v", text, err)
	}
}
