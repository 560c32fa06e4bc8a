package signer

import (
	"context"
	"encoding/base64"
)

// signatureRoom is reserved for the encoded signature: enough for RSA with
// 2048 bits. A longer signature costs one more allocation.
const signatureRoom = 1 + 342

// SignToken signs payload with key and gives the JWS compact serialisation
// (RFC 7515 section 7.1). typ and payload are what Claims holds; SignToken
// does not check them again. An error comes from the key only.
func SignToken(ctx context.Context, key Signing, typ string, payload []byte) ([]byte, error) {
	return AppendToken(ctx, nil, key, typ, payload)
}

// AppendToken is SignToken into a buffer of the caller: it appends the token
// to dst and returns the extended buffer. On an error dst is returned as it
// was.
func AppendToken(ctx context.Context, dst []byte, key Signing, typ string, payload []byte) ([]byte, error) {
	enc := base64.RawURLEncoding
	header := key.Header(typ)
	buf := dst
	if need := len(header) + 1 + enc.EncodedLen(len(payload)) + signatureRoom; cap(buf)-len(buf) < need {
		buf = append(make([]byte, 0, len(dst)+need), dst...)
	}
	buf = append(buf, header...)
	buf = append(buf, '.')
	buf = enc.AppendEncode(buf, payload)
	sig, err := key.Sign(ctx, buf[len(dst):])
	if err != nil {
		return dst, err
	}
	buf = append(buf, '.')
	return enc.AppendEncode(buf, sig), nil
}
