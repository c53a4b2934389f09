package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"

	"github.com/flatrate/flatrate/cmd/flatrate/internal/report"
	"github.com/flatrate/flatrate/cmd/flatrate/internal/terraform"
	"github.com/rogpeppe/go-internal/diff"
)

type terraformUpgradeCmd struct {
	File  string `arg:"" help:"The file."`
	To    string `default:"8.0" placeholder:"VERSION" help:"The version of Valkey."`
	Write bool   `help:"Write the file, whole or not at all. Without it the difference is only shown."`
}

// Run shows the difference, and writes it if asked to.
func (c *terraformUpgradeCmd) Run(io stdio) error {
	if err := terraform.CheckVersion(c.To); err != nil {
		return usagef("--to %w", err)
	}
	data, err := terraform.ReadFile(c.File)
	if err != nil {
		return err
	}
	result, err := terraform.Upgrade(c.File, data, c.To)
	if err != nil {
		return err
	}
	changed := !bytes.Equal(data, result.Text)
	if changed && c.Write {
		if err := rewrite(c.File, data, result.Text); err != nil {
			return err
		}
	}
	out := &failing{Writer: io.out}
	_, _ = out.Write(diff.Diff(c.File, data, c.File, result.Text))
	for _, line := range result.Changes {
		io.warn("%s", line)
	}
	for _, line := range result.Notes {
		io.warn("%s", line)
	}
	switch {
	case !changed:
		io.warn("%s: nothing to change", report.Printable(c.File))
	case c.Write:
		io.warn("%s: written", report.Printable(c.File))
	default:
		io.warn("%s: not written; --write does", report.Printable(c.File))
	}
	return out.err
}

// rewrite replaces a file at once, and keeps its mode. What may not be written is not replaced either, nor what is no longer as it was read.
func rewrite(path string, was, text []byte) error {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o222 == 0 {
		return fmt.Errorf("%s: it may not be written (%v); nothing is changed", path, info.Mode().Perm())
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	now, err := terraform.ReadFile(path)
	if err != nil {
		return err
	}
	if !bytes.Equal(now, was) {
		return fmt.Errorf("%s: it was changed meanwhile; nothing is written", path)
	}
	return writeWholeAs(path, text, info.Mode().Perm())
}
