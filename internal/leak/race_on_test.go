//go:build race

package leak

// raceEnabled tells whether the race detector is on; the binary under test gets
// it too.
const raceEnabled = true
