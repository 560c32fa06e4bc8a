package vault

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jwksd/jwksd/keystore"
)

// transitVersion is the only version that a key of ours ever has. Every
// request pins it.
const transitVersion = 1

// TransitKey is what Vault tells about a key of the transit engine. There is
// nothing secret in it.
type TransitKey struct {
	Name string
	Type string // as Vault calls it: ecdsa-p256, ed25519, rsa-2048 …
	// Versions holds the public halves by version; it is nil for a type that
	// is not used here.
	Versions map[int]TransitVersion

	latest, minAvailable, minEncryption int
	autoRotate                          int64 // seconds
	exportable, plaintextBackup         bool
	derived, imported, deletable        bool
}

// TransitVersion is one version of a key.
type TransitVersion struct {
	Public    crypto.PublicKey // *ecdsa.PublicKey, *rsa.PublicKey or ed25519.PublicKey
	CreatedAt time.Time        // by Vault's clock
}

// transitTypes tells for each type of key that is used here whether a public
// key is of it.
var transitTypes = map[string]func(crypto.PublicKey) bool{
	"ecdsa-p256": isECDSA(256),
	"ecdsa-p384": isECDSA(384),
	"ecdsa-p521": isECDSA(521),
	"rsa-2048":   isRSA(2048),
	"rsa-3072":   isRSA(3072),
	"rsa-4096":   isRSA(4096),
	"ed25519":    func(pub crypto.PublicKey) bool { _, ok := pub.(ed25519.PublicKey); return ok },
}

func isECDSA(bits int) func(crypto.PublicKey) bool {
	return func(pub crypto.PublicKey) bool {
		k, ok := pub.(*ecdsa.PublicKey)
		return ok && k.Curve.Params().BitSize == bits
	}
}

func isRSA(bits int) func(crypto.PublicKey) bool {
	return func(pub crypto.PublicKey) bool {
		k, ok := pub.(*rsa.PublicKey)
		return ok && k.N.BitLen() == bits
	}
}

// transitKeyData is the answer to a reading. What the checks rest on must be
// there: its absence is not taken for a no.
type transitKeyData struct {
	Type            string                     `json:"type"`
	Keys            map[string]json.RawMessage `json:"keys"`
	LatestVersion   *int                       `json:"latest_version"`
	MinAvailable    int                        `json:"min_available_version"`
	MinEncryption   int                        `json:"min_encryption_version"`
	AutoRotate      int64                      `json:"auto_rotate_period"`
	Exportable      *bool                      `json:"exportable"`
	PlaintextBackup *bool                      `json:"allow_plaintext_backup"`
	Derived         *bool                      `json:"derived"`
	DeletionAllowed *bool                      `json:"deletion_allowed"`
	Imported        bool                       `json:"imported_key"`
}

func (d transitKeyData) key(name string) (TransitKey, error) {
	if d.Type == "" || d.LatestVersion == nil || d.Exportable == nil ||
		d.PlaintextBackup == nil || d.Derived == nil || d.DeletionAllowed == nil {
		return TransitKey{}, errTransitAnswer
	}
	key := TransitKey{
		Name: name, Type: d.Type,
		latest: *d.LatestVersion, minAvailable: d.MinAvailable, minEncryption: d.MinEncryption,
		autoRotate: d.AutoRotate,
		exportable: *d.Exportable, plaintextBackup: *d.PlaintextBackup,
		derived: *d.Derived, imported: d.Imported, deletable: *d.DeletionAllowed,
	}
	if transitTypes[d.Type] == nil || key.derived {
		return key, nil // such a key has no one public half
	}
	key.Versions = make(map[int]TransitVersion, len(d.Keys))
	for number, raw := range d.Keys {
		n, err := strconv.Atoi(number)
		if err != nil {
			return TransitKey{}, errTransitAnswer
		}
		if key.Versions[n], err = parseTransitVersion(raw); err != nil {
			return TransitKey{}, err
		}
	}
	return key, nil
}

func parseTransitVersion(raw json.RawMessage) (TransitVersion, error) {
	var v struct {
		PublicKey    string    `json:"public_key"`
		CreationTime time.Time `json:"creation_time"`
	}
	if json.Unmarshal(raw, &v) != nil || v.CreationTime.IsZero() {
		return TransitVersion{}, errTransitAnswer
	}
	pub, err := parseTransitPublic(v.PublicKey)
	return TransitVersion{Public: pub, CreatedAt: v.CreationTime.UTC()}, err
}

// parseTransitPublic reads a public key as Vault writes it: PEM for RSA and
// ECDSA, the bare 32 bytes in base64 for Ed25519.
func parseTransitPublic(s string) (crypto.PublicKey, error) {
	if !strings.HasPrefix(s, "-----") {
		raw, err := decodeStrict(base64.StdEncoding, s)
		if err != nil || len(raw) != ed25519.PublicKeySize {
			return nil, errTransitAnswer
		}
		return ed25519.PublicKey(raw), nil
	}
	block, rest := pem.Decode([]byte(s))
	if block == nil || block.Type != "PUBLIC KEY" || strings.TrimSpace(string(rest)) != "" {
		return nil, errTransitAnswer
	}
	pub, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, errTransitAnswer
	}
	return pub, nil
}

// Check refuses a key that is not as Create makes it, and returns the public
// half of one that is. The error wraps keystore.ErrCorrupt and names everything
// that is wrong: somebody else has made or changed this key, and what it signs
// may not have been signed by jwksd.
func (k TransitKey) Check(keyType string) (crypto.PublicKey, error) {
	var wrong []string
	refuse := func(is bool, format string, args ...any) {
		if is {
			wrong = append(wrong, fmt.Sprintf(format, args...))
		}
	}
	refuse(k.Type != keyType, "it is of type %s, not %s", excerptOf(k.Type), keyType)
	refuse(k.exportable, "it is exportable")
	refuse(k.plaintextBackup, "it allows plaintext backup")
	refuse(k.imported, "it was imported, so others may have it")
	refuse(k.derived, "it derives its keys")
	refuse(k.latest != transitVersion, "its latest version is %d, not %d: it was rotated in Vault", k.latest, transitVersion)
	refuse(k.minAvailable > transitVersion || k.minEncryption > transitVersion, "version %d is locked", transitVersion)
	refuse(k.autoRotate != 0, "it rotates by itself")
	refuse(k.deletable, "its deletion is allowed, as if its destruction had begun")
	v, ok := k.Versions[transitVersion]
	fits := transitTypes[keyType]
	refuse(len(wrong) == 0 && (!ok || fits == nil || !fits(v.Public)), "its version %d has no public key of type %s", transitVersion, keyType)
	if len(wrong) > 0 {
		return nil, fmt.Errorf("transit key %s is refused: %w: %s", k.Name, keystore.ErrCorrupt, strings.Join(wrong, "; "))
	}
	return v.Public, nil
}

// decodeStrict decodes base64 and accepts nothing that the encoding does not
// write. The decoder of the standard library skips line breaks.
func decodeStrict(enc *base64.Encoding, s string) ([]byte, error) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, base64.CorruptInputError(0)
	}
	return enc.Strict().DecodeString(s)
}
