package vaulttest

import "syscall"

// mortal lets a process die with the thread that started it.
func mortal() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
