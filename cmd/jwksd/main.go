// Command jwksd owns JWT signing keys so that nobody else has to.
package main

import (
	"context"
	"os"
)

// main leaves signals alone: they end a command that waits, for its input or
// for an answer. Only serve, and a change under way, catch the first one.
func main() {
	os.Exit(execute(context.Background(), os.Args[1:], terminal{in: os.Stdin, out: os.Stdout, err: os.Stderr}))
}
