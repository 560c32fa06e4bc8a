package signer

import (
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/jwksd/jwksd/internal/jwa"
)

// TestC30TokensVerify signs with every algorithm and verifies with go-jose,
// which shares no code with this package, and with jwa.
func TestC30TokensVerify(t *testing.T) {
	for _, alg := range jwa.Names() {
		t.Run(alg, func(t *testing.T) {
			key, pub := testKey(t, alg)
			out, err := issue(`{"claims":{"sub":"ü","aud":["api"]}}`)
			if err != nil {
				t.Fatal(err)
			}
			token, err := SignToken(t.Context(), key, out.Typ, out.Payload)
			if err != nil {
				t.Fatal(err)
			}
			parts := strings.Split(string(token), ".")
			if len(parts) != 3 {
				t.Fatalf("%d segments", len(parts))
			}
			var raw [3][]byte
			for i, p := range parts {
				if raw[i], err = base64.RawURLEncoding.Strict().DecodeString(p); err != nil || strings.ContainsAny(p, "\r\n=") {
					t.Fatalf("segment %d: %v", i, err)
				}
			}
			a, _ := jwa.Lookup(alg)
			if err := a.Verify(pub, []byte(parts[0]+"."+parts[1]), raw[2]); err != nil {
				t.Fatal(err)
			}
			if string(raw[1]) != string(out.Payload) {
				t.Fatal("the payload changed")
			}
			if alg == "Ed25519" {
				return // go-jose does not know the name of RFC 9864
			}
			jws, err := jose.ParseSignedCompact(string(token), []jose.SignatureAlgorithm{jose.SignatureAlgorithm(alg)})
			if err != nil {
				t.Fatal(err)
			}
			if got, err := jws.Verify(pub); err != nil || string(got) != string(out.Payload) {
				t.Fatalf("go-jose: %q, %v", got, err)
			}
			if other, _ := testKey(t, "ES256"); alg == "EdDSA" {
				if _, err := jws.Verify(other.priv.Public()); err == nil {
					t.Fatal("verified with another key")
				}
			}
		})
	}
}

func TestC30FixedLengthSignatures(t *testing.T) {
	for alg, size := range map[string]int{"ES256": 64, "ES384": 96, "ES512": 132} {
		t.Run(alg, func(t *testing.T) {
			key, pub := testKey(t, alg)
			a, _ := jwa.Lookup(alg)
			var leadR, leadS bool
			for i := 0; !leadR || !leadS; i++ {
				if i == 20000 {
					t.Fatal("no leading zero came up")
				}
				input := fmt.Appendf(nil, "input %d", i)
				sig, err := key.Sign(t.Context(), input)
				if err != nil || len(sig) != size {
					t.Fatalf("%d bytes, %v", len(sig), err)
				}
				zeroR, zeroS := sig[0] == 0, sig[size/2] == 0
				if zeroR && !leadR || zeroS && !leadS {
					if err := a.Verify(pub, input, sig); err != nil {
						t.Fatalf("leading zero (r %v, s %v): %v", zeroR, zeroS, err)
					}
				}
				leadR, leadS = leadR || zeroR, leadS || zeroS
			}
		})
	}
}

func TestC30MalformedECDSA(t *testing.T) {
	ok := "\x30\x06\x02\x01\x01\x02\x01\x7f"
	if raw, err := joseECDSA([]byte(ok), 64); err != nil || raw[31] != 1 || raw[63] != 0x7f {
		t.Fatalf("%x, %v", raw, err)
	}
	long := "\x02\x21\x01" + strings.Repeat("\x00", 32)
	for _, der := range []string{"", "\x30\x00", ok + "\x00", ok[:7], "\x30\x03\x02\x01\x01",
		"\x30\x06\x02\x01\x00\x02\x01\x01", "\x30\x06\x02\x01\xff\x02\x01\x01", "\x30\x26" + long + "\x02\x01\x01",
		"\x30\x05\x02\x00\x02\x01\x01", "\x30\x09\x02\x01\x01\x02\x01\x01\x02\x01\x01"} {
		if raw, err := joseECDSA([]byte(der), 64); err == nil {
			t.Errorf("%x gave %x", der, raw)
		}
	}
}

func TestC30PSSSaltIsAsLongAsTheHash(t *testing.T) {
	for _, alg := range []string{"PS256", "PS384", "PS512"} {
		key, pub := testKey(t, alg)
		sig, err := key.Sign(t.Context(), []byte("x"))
		if err != nil {
			t.Fatal(err)
		}
		a, _ := jwa.Lookup(alg)
		exact := &rsa.PSSOptions{SaltLength: a.Hash.Size()}
		if err := rsa.VerifyPSS(pub.(*rsa.PublicKey), a.Hash, a.Digest([]byte("x")), sig, exact); err != nil {
			t.Errorf("%s: %v", alg, err)
		}
	}
}

func TestC31Header(t *testing.T) {
	key, _ := testKey(t, "ES256")
	for typ, want := range map[string]string{
		"JWT":       `{"alg":"ES256","kid":"kid-of-ES256","typ":"JWT"}`,
		"at+jwt":    `{"alg":"ES256","kid":"kid-of-ES256","typ":"at+jwt"}`,
		"x<&>y":     `{"alg":"ES256","kid":"kid-of-ES256","typ":"x<&>y"}`,
		"a\"\\\x1f": `{"alg":"ES256","kid":"kid-of-ES256","typ":"a\"\\\u001f"}`,
	} {
		b, err := base64.RawURLEncoding.Strict().DecodeString(key.Header(typ))
		if err != nil || string(b) != want {
			t.Errorf("%q: %s, %v", typ, b, err)
		}
		var h struct{ Alg, KID, Typ string }
		if err := json.Unmarshal(b, &h); err != nil || h.Typ != typ {
			t.Errorf("%q: %+v, %v", typ, h, err)
		}
	}
	for _, alg := range []string{"EdDSA", "Ed25519"} {
		key, _ := testKey(t, alg)
		if b, _ := base64.RawURLEncoding.DecodeString(key.Header("JWT")); !strings.HasPrefix(string(b), `{"alg":"`+alg+`",`) || key.Algorithm() != alg {
			t.Errorf("%s: %s", alg, b)
		}
	}
}

func TestC31AKeyHasOneAlgorithm(t *testing.T) {
	rsaKey, err := testRSA()
	if err != nil {
		t.Fatal(err)
	}
	p256, _ := Generate("ES256", 0)
	ed, _ := Generate("EdDSA", 0)
	for alg, priv := range map[string]crypto.Signer{
		"ES384": p256, "RS256": p256, "EdDSA": p256, "ES256": ed, "PS256": ed, "ES512": rsaKey, "Ed25519": rsaKey,
		"none": p256, "HS256": p256, "": p256,
	} {
		if k, err := NewKey(alg, "kid", priv, priv.Public()); err == nil {
			t.Errorf("%s accepted %T: %v", alg, priv, k)
		}
	}
	if _, err := NewKey("ES256", "", p256, p256.Public()); err == nil {
		t.Error("accepted an empty kid")
	}
	for _, priv := range []crypto.Signer{nil, (*ecdsa.PrivateKey)(nil), (*rsa.PrivateKey)(nil), ed25519.PrivateKey(nil), ed25519.PrivateKey("short")} {
		if _, err := NewKey("ES256", "kid", priv, p256.Public()); err == nil {
			t.Errorf("accepted %T without a private half", priv)
		}
	}
}

func TestC33MismatchIsFoundByASignature(t *testing.T) {
	other := map[string]crypto.Signer{}
	for _, alg := range jwa.Names() {
		var err error
		a, _ := jwa.Lookup(alg)
		if a.KTY == "RSA" && other["RS256"] != nil {
			other[alg] = other["RS256"]
		} else if other[alg], err = Generate(alg, 0); err != nil {
			t.Fatal(err)
		}
	}
	for _, alg := range jwa.Names() {
		key, pub := testKey(t, alg)
		if _, err := NewKey(alg, "kid", key.priv, other[alg].Public()); !errors.Is(err, ErrMismatch) {
			t.Errorf("%s with the public key of another: %v", alg, err)
		}
		if _, err := NewKey(alg, "kid", key.priv, nil); err == nil {
			t.Errorf("%s accepted without a public key", alg)
		}
		if err := Prove(t.Context(), key, pub); err != nil {
			t.Errorf("%s: %v", alg, err)
		}
	}
	// A private key that claims the published half as its own is still found.
	mine, _ := Generate("ES256", 0)
	liar := *mine.(*ecdsa.PrivateKey)
	liar.PublicKey = *other["ES256"].Public().(*ecdsa.PublicKey)
	if _, err := NewKey("ES256", "kid", &liar, other["ES256"].Public()); err == nil {
		t.Error("a private key with a foreign public half passed")
	}
	edMine, edOther := other["EdDSA"].(ed25519.PrivateKey), other["Ed25519"].(ed25519.PrivateKey)
	edLiar := ed25519.PrivateKey(string(edMine[:32]) + string(edOther[32:]))
	if _, err := NewKey("EdDSA", "kid", edLiar, edLiar.Public()); !errors.Is(err, ErrMismatch) {
		t.Errorf("an Ed25519 seed with a foreign public half: %v", err)
	}
	broken := remote{NewHeaders("ES256", "kid"), func(context.Context, []byte) ([]byte, error) { return nil, context.Canceled }}
	if err := Prove(t.Context(), broken, mine.Public()); !errors.Is(err, context.Canceled) || errors.Is(err, ErrMismatch) {
		t.Errorf("a custody out of reach: %v", err)
	}
}

func TestC01GenerateRefuses(t *testing.T) {
	for _, alg := range []string{"none", "noNE", "HS256", "HS512", "es256", "ES256K", "RSA1_5", ""} {
		if _, err := Generate(alg, 0); !errors.Is(err, jwa.ErrUnsupported) {
			t.Errorf("%q: %v", alg, err)
		}
	}
	for _, bits := range []int{-1, 1, 1024, 2047, jwa.MaxRSABits + 1} {
		if _, err := Generate("RS256", bits); err == nil {
			t.Errorf("accepted %d bits", bits)
		}
	}
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewKey("RS256", "kid", weak, weak.Public()); err == nil {
		t.Error("accepted 1024 bits")
	}
}

func TestPrivateKeyRoundTrip(t *testing.T) {
	for _, alg := range jwa.Names() {
		key, pub := testKey(t, alg)
		der, err := MarshalPrivate(key.priv)
		if err != nil {
			t.Fatal(err)
		}
		back, err := ParsePrivate(der)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := NewKey(alg, "kid", back, pub); err != nil {
			t.Errorf("%s: %v", alg, err)
		}
		for _, bad := range [][]byte{append(der[:len(der):len(der)], 0), der[:len(der)-1], nil, []byte("garbage"), der[4:]} {
			if _, err := ParsePrivate(bad); err == nil {
				t.Errorf("%s: parsed %d of %d bytes", alg, len(bad), len(der))
			}
		}
	}
	x, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(x)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParsePrivate(der); !errors.Is(err, errKeyType) {
		t.Errorf("X25519: %v", err)
	}
	sec1, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if der, err = x509.MarshalECPrivateKey(sec1); err != nil {
		t.Fatal(err)
	}
	if _, err := ParsePrivate(der); err == nil {
		t.Error("parsed SEC 1")
	}
	if _, err := MarshalPrivate(opaque{sec1}); err == nil {
		t.Error("encoded an opaque signer")
	}
}

type opaque struct{ crypto.Signer }

func TestC69PrivateKeyIsNotPrinted(t *testing.T) {
	key, _ := testKey(t, "EdDSA")
	secret := key.priv.(ed25519.PrivateKey)
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "key", key, "value", *key)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "key", key, "value", *key)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
		fmt.Fprintf(&log, verb, key)
		fmt.Fprintf(&log, verb, *key)
		fmt.Fprintf(&log, verb, []any{key, *key})
	}
	for _, form := range []string{"%v", "%x", "%X", "%#v", "%s"} {
		if s := strings.Trim(fmt.Sprintf(form, []byte(secret[:8])), "[]{}"); strings.Contains(log.String(), s) {
			t.Errorf("the private key is printed: %s", log.String())
		}
	}
	//lint:ignore SA9005 that nothing comes out is what is tested
	if b, err := json.Marshal(key); err != nil || string(b) != "{}" {
		t.Errorf("%s, %v", b, err)
	}
	if !strings.Contains(key.String(), key.KID()) {
		t.Error(key.String())
	}
}

func TestKeyIsSafeForConcurrentUse(t *testing.T) {
	for _, alg := range []string{"ES256", "EdDSA", "PS256"} {
		key, pub := testKey(t, alg)
		a, _ := jwa.Lookup(alg)
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				for j := range 5 {
					input := fmt.Appendf(nil, "%d %d", i, j)
					if sig, err := key.Sign(t.Context(), input); err != nil || a.Verify(pub, input, sig) != nil {
						t.Errorf("%s: %v", alg, err)
					}
				}
			})
		}
		wg.Wait()
	}
}

func TestAppendToken(t *testing.T) {
	key, _ := testKey(t, "EdDSA") // deterministic
	want, err := SignToken(t.Context(), key, "JWT", []byte(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, dst := range [][]byte{[]byte(`{"token":"`), append(make([]byte, 0, 4096), "abc"...)} {
		got, err := AppendToken(t.Context(), dst, key, "JWT", []byte(`{}`))
		if err != nil || string(got) != string(dst)+string(want) {
			t.Errorf("%s, %v", got, err)
		}
	}
	down := remote{NewHeaders("ES256", "kid"), func(ctx context.Context, _ []byte) ([]byte, error) { return nil, ctx.Err() }}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := AppendToken(ctx, []byte("x"), down, "JWT", nil); !errors.Is(err, context.Canceled) || string(got) != "x" {
		t.Errorf("%q, %v", got, err)
	}
	long := remote{NewHeaders("RS256", "kid"), func(context.Context, []byte) ([]byte, error) { return make([]byte, 1024), nil }}
	if got, err := SignToken(t.Context(), long, "JWT", []byte(`{}`)); err != nil || !strings.HasSuffix(string(got), "."+strings.Repeat("A", 1366)) {
		t.Errorf("a long signature: %q, %v", got, err)
	}
}
