package jwks

import (
	"strconv"
	"time"
)

// maxAgeVariants bounds how many Cache-Control values one Published keeps.
const maxAgeVariants = 16

// Published is a set with everything its HTTP answers need, worked out once so
// that an answer costs next to nothing. It is immutable and safe for
// concurrent use.
type Published struct {
	body   []byte
	maxAge time.Duration

	// The values of header fields, in the form that http.Header holds. They go
	// into answers without being copied, so nobody may write to them.
	etag   []string
	length []string
	ages   []string
}

// NewPublished prepares set for publication with a freshness lifetime of at
// most maxAge, in whole seconds, rounded down.
//
// A maxAge below one second cannot be said in Cache-Control. It becomes
// "max-age=0, no-cache": caches may keep the set but ask before each use,
// which the ETag makes cheap. max-age=0 alone would let a cache that cannot
// reach us serve the set for as long as it likes.
func NewPublished(set *Set, maxAge time.Duration) *Published {
	return &Published{
		body:   set.body,
		maxAge: max(maxAge.Truncate(time.Second), 0),
		etag:   []string{set.etag},
		length: []string{strconv.Itoa(len(set.body))},
		ages:   cacheControls(maxAge),
	}
}

// Bytes returns the published document. It is shared: do not modify it.
func (p *Published) Bytes() []byte { return p.body }

// ETag returns the strong entity tag, quotes included.
func (p *Published) ETag() string { return p.etag[0] }

// MaxAge returns the longest freshness lifetime that an answer gives, in whole
// seconds.
func (p *Published) MaxAge() time.Duration { return p.maxAge }

// cacheControls returns the Cache-Control values for answers: evenly spaced
// ages from nine tenths of maxAge to maxAge, none above it. Verifiers that
// were all started together, or all refetched after a rotation, come back
// spread over that tenth instead of in one second, and drift further apart
// with every round. Below ten seconds there is one value: a tenth is less than
// the second that the field can express.
func cacheControls(maxAge time.Duration) []string {
	last := int64(maxAge / time.Second)
	if last < 1 {
		return []string{"public, max-age=0, no-cache"}
	}
	span := last / 10
	n := min(span+1, maxAgeVariants)
	ages := make([]string, n)
	for i := range ages {
		age := last
		if n > 1 {
			age = last - span + int64(i)*span/(n-1)
		}
		ages[i] = "public, max-age=" + strconv.FormatInt(age, 10)
	}
	return ages
}
