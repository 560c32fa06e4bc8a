// Package e2e tests the real binary from outside: processes, signals, sockets
// and files, and nothing that a user of jwksd could not do.
package e2e
