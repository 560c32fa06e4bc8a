//go:build !linux

package vaulttest

import "syscall"

func mortal() *syscall.SysProcAttr { return nil }
