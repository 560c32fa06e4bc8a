package signer

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/jwksd/jwksd/internal/jwa"
)

const (
	goodHeader  = `{"alg":"EdDSA","kid":"kid-of-EdDSA","typ":"JWT"}`
	goodPayload = `{"iss":"https://auth.example.com","exp":1800000100}`
)

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

func signingInput(header, payload string) string { return b64(header) + "." + b64(payload) }

func checkInput(input string) (Claims, error) {
	in, err := ParseSigningInput(input)
	if err != nil {
		return Claims{}, err
	}
	return in.Check(testRules(), testNow)
}

func TestC19HeaderIsWhatTheDaemonWouldWrite(t *testing.T) {
	for header, code := range map[string]string{
		goodHeader: "",
		` { "typ" : "JWT", "kid":"k","alg":"ES256"}`:           "",
		`{"alg":"ES256","kid":"k","typ":"secevent+jwt"}`:       "",
		`{"alg":"ES256","kid":"k"}`:                            CodeInvalidHeader,
		`{"alg":"ES256","typ":"JWT"}`:                          CodeInvalidHeader,
		`{"kid":"k","typ":"JWT"}`:                              CodeInvalidHeader,
		`{}`:                                                   CodeInvalidHeader,
		`{"alg":"ES256","kid":"","typ":"JWT"}`:                 CodeInvalidHeader,
		`{"alg":"ES256","kid":5,"typ":"JWT"}`:                  CodeInvalidHeader,
		`{"alg":"none","kid":"k","typ":"JWT"}`:                 CodeInvalidAlg,
		`{"alg":"HS256","kid":"k","typ":"JWT"}`:                CodeInvalidAlg,
		`{"alg":"ES256","kid":"k","typ":null}`:                 CodeInvalidTyp,
		`{"alg":"ES256","kid":"k","typ":"jwt"}`:                CodeInvalidTyp,
		`{"alg":"ES256","kid":"k","typ":"application/at+jwt"}`: CodeInvalidTyp,
		`{"alg":"ES256","kid":"k","typ":"dpop+jwt"}`:           CodeTypNotGranted,
		`{"alg":"ES256","alg":"ES256","kid":"k","typ":"JWT"}`:  CodeDuplicateMember,
		goodHeader + `x`:                                       CodeTrailingData,
		"\xef\xbb\xbf" + goodHeader:                            CodeByteOrderMark,
		`[]`:                                                   CodeNotAnObject,
		`nope`:                                                 CodeInvalidJSON,
	} {
		_, err := checkInput(signingInput(header, goodPayload))
		if code != "" {
			wantCode(t, err, code)
		} else if err != nil {
			t.Errorf("%s: %v", header, err)
		}
	}
	for _, name := range []string{"cty", "jwk", "jku", "x5u", "x5c", "crit", "b64", "zip", "x", "ALG"} {
		_, err := checkInput(signingInput(goodHeader[:len(goodHeader)-1]+`,"`+name+`":"JWT"}`, goodPayload))
		wantCode(t, err, CodeHeaderNotAllowed)
	}
}

func TestC19SegmentsAreCanonical(t *testing.T) {
	h, p := b64(goodHeader), b64(goodPayload+" ")
	if len(p)%4 == 0 {
		t.Fatal("the payload has no spare bits to set")
	}
	last := strings.IndexByte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", p[len(p)-1])
	loose := p[:len(p)-1] + string("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[last+1])
	for _, input := range []string{
		"", ".", h, h + ".", "." + p, h + "." + p + ".", h + "." + p + "." + p, h + "." + p + "=", h + "." + p + "==",
		h + "." + p + "\n", h + "\n." + p, h + "." + p[:4] + "\r\n" + p[4:], " " + h + "." + p, h + ". " + p,
		h + "." + loose, h + "." + p[:len(p)-1] + "+", h + "." + strings.Replace(p, "L", "/", 1), h + "." + p[:5],
	} {
		if _, err := checkInput(input); err == nil {
			t.Errorf("accepted %q", input)
		} else if _, ok := err.(*InputError); !ok {
			t.Errorf("%q: %v", input, err)
		}
	}
	_, err := checkInput(h + "." + loose)
	wantCode(t, err, CodeInvalidInput)
}

func TestC19PayloadObeysTheClaimsRules(t *testing.T) {
	iss := `"iss":"https://auth.example.com",`
	for payload, code := range map[string]string{
		goodPayload: "",
		`{` + iss + `"exp":1800003600,"iat":1800000005,"nbf":0,"aud":["a"],"jti":"x","sub":"s"}`: "",
		`{"exp":1800000100}`:                 CodeClaimMissing,
		`{"iss":"https://auth.example.com"}`: CodeClaimMissing,
		`{}`:                                 CodeClaimMissing,
		`{"iss":"https://evil.example.com","exp":1800000100}`: CodeForeignIssuer,
		`{"iss":5,"exp":1800000100}`:                          CodeInvalidClaim,
		`{` + iss + `"exp":1800000100.5}`:                     CodeInvalidDate,
		`{` + iss + `"exp":1.8000001e9}`:                      CodeInvalidDate,
		`{` + iss + `"exp":1800000100,"nbf":1.5}`:             CodeInvalidDate,
		`{` + iss + `"exp":1800000100,"iat":1800000000.0}`:    CodeInvalidDate,
		`{` + iss + `"exp":"1800000100"}`:                     CodeInvalidDate,
		`{` + iss + `"exp":1800003601}`:                       CodeExpTooFar,
		`{` + iss + `"exp":1800000000}`:                       CodeExpired,
		`{` + iss + `"exp":1800000100,"nbf":1800000100}`:      CodeNotBefore,
		`{` + iss + `"exp":1800000100,"iat":1800000006}`:      CodeIssuedAt,
		`{` + iss + `"exp":1800000100,"iat":1799999994}`:      CodeIssuedAt,
		`{` + iss + `"exp":1800000100,"aud":[]}`:              CodeInvalidClaim,
		`{` + iss + `"exp":1800000100,"jti":1}`:               CodeInvalidClaim,
		`{` + iss + `"exp":1800000100,"jti":""}`:              CodeInvalidClaim,
		`{` + iss + `"exp":1800000100,"x":1e400}`:             CodeNumberRange,
		`{` + iss + `"exp":1800000100,"exp":1800000100}`:      CodeDuplicateMember,
		`{` + iss + `"exp":1800000100,"x":` + nest(31) + `}`:  "",
		`{` + iss + `"exp":1800000100,"x":` + nest(32) + `}`:  CodeTooDeep,
		goodPayload + ` {}`:                                   CodeTrailingData,
		`[` + goodPayload + `]`:                               CodeNotAnObject,
		`"` + b64(goodPayload) + `"`:                          CodeNotAnObject,
		signingInput(goodHeader, goodPayload) + `.AA`:         CodeInvalidJSON,
	} {
		_, err := checkInput(signingInput(goodHeader, payload))
		if code != "" {
			wantCode(t, err, code)
		} else if err != nil {
			t.Errorf("%s: %v", payload, err)
		}
	}
}

func TestC19AccessTokenProfile(t *testing.T) {
	full := []string{`"iss":"https://auth.example.com"`, `"exp":1800000100`, `"aud":"a"`, `"sub":"s"`, `"client_id":"c"`, `"iat":1800000000`, `"jti":"j"`}
	header := strings.Replace(goodHeader, "JWT", "at+jwt", 1)
	out, err := checkInput(signingInput(header, "{"+strings.Join(full, ",")+"}"))
	if err != nil || out.JTI != "j" || out.Subject != "s" || string(out.Audience) != `"a"` || out.IssuedAt.Unix() != nowSec || out.TTL.Seconds() != 100 {
		t.Fatalf("%+v, %v", out, err)
	}
	for i := range full {
		rest := append(append([]string{}, full[:i]...), full[i+1:]...)
		_, err := checkInput(signingInput(header, "{"+strings.Join(rest, ",")+"}"))
		wantCode(t, err, CodeClaimMissing)
		if name := strings.Split(full[i], `"`)[1]; err.(*InputError).Field != name {
			t.Errorf("%s is missing, not %v", name, err)
		}
	}
}

func TestC19SignsOnlyWithTheNamedKey(t *testing.T) {
	key, pub := testKey(t, "EdDSA")
	input := signingInput(goodHeader, goodPayload)
	in, err := ParseSigningInput(input)
	if err != nil || in.Alg != "EdDSA" || in.KID != key.KID() || in.Typ != "JWT" {
		t.Fatalf("%+v, %v", in, err)
	}
	sig, err := in.Sign(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	if a, _ := jwa.Lookup("EdDSA"); a.Verify(pub, []byte(input), sig) != nil {
		t.Error("the signature does not match")
	}
	for _, header := range []string{
		`{"alg":"EdDSA","kid":"other","typ":"JWT"}`,
		fmt.Sprintf(`{"alg":"Ed25519","kid":%q,"typ":"JWT"}`, key.KID()),
		fmt.Sprintf(`{"alg":"ES256","kid":%q,"typ":"JWT"}`, key.KID()),
	} {
		in, err := ParseSigningInput(signingInput(header, goodPayload))
		if err != nil {
			t.Fatal(err)
		}
		_, err = in.Sign(t.Context(), key)
		wantCode(t, err, CodeHeaderKeyMismatch)
	}
}
