package main

import (
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/flatrate/flatrate/valkeytest"
	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"flatrate": main})
}

// TestScripts runs the shell transcripts in testdata.
func TestScripts(t *testing.T) {
	server := sync.OnceValue(func() *valkeytest.Server { return valkeytest.Start(t) })
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			if strings.HasPrefix(filepath.Base(env.WorkDir), "script-queue") {
				env.Setenv("FLATRATE_VALKEY", "unix://"+server().Socket)
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"zip":    zipFile,
			"cut":    cutFile,
			"append": appendFile,
		},
	})
}

// zipFile compresses: zip FROM TO
func zipFile(ts *testscript.TestScript, _ bool, args []string) {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write([]byte(ts.ReadFile(args[0])))
	ts.Check(err)
	ts.Check(w.Close())
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), out.Bytes(), 0o600))
}

// cutFile takes bytes from a file's end: cut FILE BYTES
func cutFile(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	info, err := os.Stat(path)
	ts.Check(err)
	n, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	ts.Check(os.Truncate(path, info.Size()-n))
}

// appendFile appends a Go string literal, some times: append FILE LITERAL [TIMES]
func appendFile(ts *testscript.TestScript, _ bool, args []string) {
	text, err := strconv.Unquote(`"` + args[1] + `"`)
	ts.Check(err)
	times := 1
	if len(args) > 2 {
		times, err = strconv.Atoi(args[2])
		ts.Check(err)
	}
	file, err := os.OpenFile(ts.MkAbs(args[0]), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	ts.Check(err)
	_, err = file.WriteString(strings.Repeat(text, times))
	ts.Check(err)
	ts.Check(file.Close())
}
