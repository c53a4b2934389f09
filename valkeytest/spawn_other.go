//go:build !linux

package valkeytest

import "os/exec"

func start(cmd *exec.Cmd) error { return cmd.Start() }
