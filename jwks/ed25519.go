package jwks

import (
	"crypto/ed25519"
	"errors"
	"math/big"
	"slices"
)

// checkEd25519 refuses encodings that are no point of the curve, encodings of
// a point that has another one, and points of small order (RFC 8032
// section 5.1.3, RFC 8725 section 3.4). crypto/ed25519 verifies with the last
// two: under a point of order 8, one message in eight has a signature that
// anybody can write down.
//
// The curve is -x^2 + y^2 = 1 + d*x^2*y^2, so x^2 = (y^2 - 1) / (d*y^2 + 1),
// and y is all that has to be looked at:
//
//   - order 1 and 2: y = 1 and y = -1; order 4: y = 0;
//   - order 8: twice the point has y = 0, which means x^2 = -y^2, and with the
//     curve's equation d*y^4 + 2*y^2 - 1 = 0.
//
// Keys are public and come one at a time: neither constant time nor speed
// matters.
func checkEd25519(key ed25519.PublicKey) error {
	one, two := big.NewInt(1), big.NewInt(2)
	p := new(big.Int).Sub(new(big.Int).Lsh(one, 255), big.NewInt(19))
	d := new(big.Int).ModInverse(big.NewInt(121666), p)
	d.Mul(d, big.NewInt(-121665)).Mod(d, p)

	le := slices.Clone(key)
	slices.Reverse(le)
	le[0] &= 0x7f // the top bit is the sign of x
	y := new(big.Int).SetBytes(le)
	if y.Cmp(p) >= 0 {
		return errors.New("Ed25519 key is not canonically encoded")
	}
	y2 := new(big.Int).Exp(y, two, p)
	u := new(big.Int).Sub(y2, one)
	dy2 := new(big.Int).Mul(d, y2)
	v := new(big.Int).Add(dy2, one)
	order8 := new(big.Int).Add(dy2, two) // (d*y^2 + 2)*y^2 - 1
	order8.Mul(order8, y2).Sub(order8, one).Mod(order8, p)
	if y.Sign() == 0 || u.Mod(u, p).Sign() == 0 || order8.Sign() == 0 {
		return errors.New("Ed25519 key is a point of small order: it verifies forged signatures")
	}
	// u/v is a square exactly when u*v is one.
	if uv := u.Mul(u, v); big.Jacobi(uv.Mod(uv, p), p) != 1 {
		return errors.New("Ed25519 key is not a point of the curve")
	}
	return nil
}
