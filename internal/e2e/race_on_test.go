//go:build race

package e2e

// raceEnabled: the tests run under the race detector, so the binary does too.
const raceEnabled = true
