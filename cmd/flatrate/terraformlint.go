package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/flatrate/flatrate/cmd/flatrate/internal/report"
	"github.com/flatrate/flatrate/cmd/flatrate/internal/terraform"
)

type terraformLintCmd struct {
	Path   string `arg:"" name:"file|dir" help:"A file, or a folder whose .tf files are read."`
	Output string `enum:"table,json" default:"table" help:"table or json."`
}

// Run reads, and prints what is wrong.
func (c *terraformLintCmd) Run(io stdio) error {
	result, err := terraform.Lint(c.Path)
	if err != nil {
		return err
	}
	if c.Output == "json" {
		out := json.NewEncoder(io.out)
		out.SetIndent("", "  ")
		err = out.Encode(result)
	} else {
		err = writeLint(io.out, result)
	}
	if err == nil && len(result.Findings) > 0 {
		err = findingsError{errors.New(findings(len(result.Findings)))}
	}
	return err
}

func findings(n int) string {
	if n == 1 {
		return "1 finding"
	}
	return fmt.Sprintf("%d findings", n)
}

func writeLint(w io.Writer, r terraform.Report) error {
	out := &failing{Writer: w}
	for _, f := range r.Findings {
		_, _ = fmt.Fprintf(out, "%s:%d: %s: %s: %s\n    fix: %s\n", report.Printable(f.File), f.Line, f.Rule, report.Printable(f.Resource), report.Printable(f.Reason), report.Printable(f.Fix))
	}
	for _, u := range r.Unknown {
		_, _ = fmt.Fprintf(out, "%s:%d: not known: %s\n", report.Printable(u.File), u.Line, report.Printable(u.What))
	}
	for _, note := range r.Notes {
		_, _ = fmt.Fprintf(out, "note: %s\n", report.Printable(note))
	}
	if len(r.Findings) == 0 {
		_, _ = fmt.Fprintln(out, "no findings")
	}
	return out.err
}
