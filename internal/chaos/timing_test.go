package chaos

import "time"

// The timing of the keysets. The lead is D + H + C + 2S = 2s + 1s + 1s + 0.5s =
// 4.5s, and a period must be a second longer.
const (
	staleness = 2 * time.Second        // D
	maxAge    = time.Second            // H
	cacheFor  = time.Second            // C
	skew      = 250 * time.Millisecond // S
	period    = 6 * time.Second        // R
	tokenLife = 15 * time.Second       // T
	grace     = 500 * time.Millisecond

	// broken is longer than the lead, a period, and then some: a verifier that
	// keeps a set so long breaks its part of the promise.
	broken = 20 * time.Second

	// shortest is how long the daemons rotate at least.
	shortest = 2 * time.Minute
)

const issuer = "https://issuer.test"
