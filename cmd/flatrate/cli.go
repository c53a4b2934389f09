package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/flatrate/flatrate/cmd/flatrate/internal/report"
)

// The exit codes, see docs/cli.md.
const (
	exitError       = 1
	exitUsage       = 2
	exitFindings    = 3
	exitInterrupted = 130
)

// commands is the whole command line.
type commands struct {
	Replay    replayCmd    `cmd:"" help:"Send an access log through rate limits, sessions and a cache, and price the result."`
	Cost      costCmd      `cmd:"" help:"Say what metered services cost, and what a flat rate would, with a verdict for each."`
	Prices    pricesCmd    `cmd:"" help:"List or update the prices that cost uses."`
	Sample    sampleCmd    `cmd:"" help:"Write a generated access log to standard output."`
	Terraform terraformCmd `cmd:"" help:"Write Terraform for ElastiCache, find what is wrong with it, and take Redis OSS to Valkey in it."`
	Doctor    doctorCmd    `cmd:"" help:"Look at a server or an RDB file: what takes the memory, and what is wrong."`
	Serve     serveCmd     `cmd:"" help:"Serve rate limits over HTTP, and to Envoy over gRPC."`
	Queue     queueCmd     `cmd:"" help:"Look at queues, send to them, and move, delete or stop what is in them."`
	Config    configCmd    `cmd:"" help:"Check a configuration of serve."`
	Version   versionCmd   `cmd:"" help:"Print the version."`

	globals
}

// globals are the flags of every command.
type globals struct {
	Valkey string `placeholder:"URL" help:"The server to use, such as valkey://host:6379. Without one, an embedded engine runs."`
}

// stdio is where a command reads and writes.
type stdio struct {
	in       io.Reader
	out, err io.Writer
}

// warn writes one line to standard error. What is in it may be anybody's.
func (s stdio) warn(format string, args ...any) {
	_, _ = fmt.Fprintf(s.err, "flatrate: %s\n", report.Printable(fmt.Sprintf(format, args...)))
}

// interruptible is r until ctx ends. Reading a terminal or a pipe can't be interrupted, so that somebody else has to wait for it.
func interruptible(ctx context.Context, r io.Reader) (in io.Reader, closeInput func()) {
	out, w := io.Pipe()
	go func() {
		_, err := io.Copy(w, r)
		w.CloseWithError(err)
	}()
	stop := context.AfterFunc(ctx, func() { _ = w.CloseWithError(ctx.Err()) })
	return out, func() { stop(); _ = out.Close() }
}

// failing is a writer that remembers its first error.
type failing struct {
	io.Writer
	err error
}

func (w *failing) Write(p []byte) (n int, err error) {
	n, err = w.Writer.Write(p)
	if w.err == nil {
		w.err = err
	}
	return n, err
}

// warnAll writes an error; joined errors stand on a line each.
func (s stdio) warnAll(err error) {
	for line := range strings.Lines(err.Error()) {
		s.warn("%s", strings.TrimSuffix(line, "\n"))
	}
}

// usageError is a wrong flag or argument that the parser can't see.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// run parses args, runs the command, and returns the exit code.
func run(ctx context.Context, args []string, io stdio) int {
	var cli commands
	exited := -1 // set by --help
	help := &failing{Writer: io.out}
	parser, err := kong.New(&cli,
		kong.Name("flatrate"),
		kong.Description("One Valkey at a flat rate in place of metered services. Every flag can be set as FLATRATE_FLAG."),
		kong.DefaultEnvars("FLATRATE"),
		kong.Writers(help, io.err),
		kong.Exit(func(code int) { exited = code }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(io),
	)
	if err != nil {
		io.warn("%v", err)
		return exitError
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	parsed, err := parser.Parse(args)
	if help.err != nil {
		io.warn("%v", help.err)
		return exitError
	}
	if exited >= 0 {
		return exited
	}
	if err != nil {
		io.warnAll(err)
		return exitUsage
	}
	if onCommandLine(parsed, "valkey") && hasPassword(cli.Valkey) || slices.ContainsFunc(args, func(a string) bool {
		return strings.Contains(a, "://") && !strings.HasPrefix(a, "-") && a != cli.Valkey && hasPassword(a)
	}) {
		io.warn("warning: others can read the password of --valkey in the process list; use FLATRATE_VALKEY or ?password_file=PATH")
	}
	return exitCode(ctx, parsed.Run(cli.globals), io)
}

// exitCode reports err, and turns it into the process's exit code.
func exitCode(ctx context.Context, err error, io stdio) int {
	if err == nil {
		return 0
	}
	if ctx.Err() != nil {
		io.warn("interrupted")
		return exitInterrupted
	}
	for _, err := range joined(err) {
		io.warn("%v", err)
	}
	if errors.As(err, new(usageError)) {
		return exitUsage
	}
	if errors.As(err, new(findingsError)) {
		return exitFindings
	}
	return exitError
}

// findingsError says that there are findings: they have been printed, and the exit code tells.
type findingsError struct{ error }

// joined takes apart what errors.Join has joined. Another error is one, whatever lines its text may have.
func joined(err error) []error {
	several, ok := err.(interface{ Unwrap() []error })
	if !ok || errors.Join(several.Unwrap()...).Error() != err.Error() {
		return []error{err}
	}
	var all []error
	for _, one := range several.Unwrap() {
		all = append(all, joined(one)...)
	}
	return all
}

// onCommandLine says whether a flag stands on the command line, and not only in the environment.
func onCommandLine(parsed *kong.Context, flag string) bool {
	for _, path := range parsed.Path {
		if path.Flag != nil && path.Flag.Name == flag && !path.Resolved {
			return true
		}
	}
	return false
}

// hasPassword says whether a URL carries a password. It also sees one in a URL that is otherwise broken.
func hasPassword(url string) bool {
	rest := url
	if _, after, found := strings.Cut(url, "://"); found {
		rest = after
	}
	at := strings.LastIndexByte(rest, '@')
	if at < 0 {
		return false
	}
	_, password, _ := strings.Cut(rest[:at], ":")
	return password != ""
}
