package valkeytest

import (
	"os/exec"
	"runtime"
	"sync"
	"syscall"
)

// start starts a child that the kernel kills when this process dies, however it dies: a test that
// panics or runs into its time limit runs no clean-up. The signal is bound to the thread that
// started the child, so one thread starts them all and never ends.
func start(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	done := make(chan error)
	spawner() <- func() { done <- cmd.Start() }
	return <-done
}

var spawner = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
})
