package vault

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jwksd/jwksd/keystore"
)

// TransitScheme says how a key signs. Nothing is left to Vault's defaults,
// which are a salt as long as fits, PSS, and ASN.1.
type TransitScheme struct {
	// Hash is Vault's name of the hash that made the digests: sha2-256,
	// sha2-384 or sha2-512. Empty for Ed25519, which signs the input itself.
	Hash string
	// RSA is pkcs1v15 or pss, and empty for other keys. The salt of pss is as
	// long as the hash.
	RSA string
	// JWS asks for r||s of fixed length in place of ASN.1, for ECDSA.
	JWS bool
	// Size is the length of a signature in bytes.
	Size int
}

// transitSignRequest is the body of a request to sign.
type transitSignRequest struct {
	Input     string             `json:"input,omitempty"`
	Batch     []transitBatchItem `json:"batch_input,omitempty"`
	Version   int                `json:"key_version"`
	Prehashed bool               `json:"prehashed"`
	Hash      string             `json:"hash_algorithm,omitempty"`
	RSA       string             `json:"signature_algorithm,omitempty"`
	Salt      string             `json:"salt_length,omitempty"`
	Marshal   string             `json:"marshaling_algorithm"`
}

type transitBatchItem struct {
	Input     string `json:"input"`
	Reference string `json:"reference"`
}

// transitSignature is what Vault answers for one input.
type transitSignature struct {
	Signature string  `json:"signature"`
	Version   *int    `json:"key_version"`
	Error     string  `json:"error"`
	Reference *string `json:"reference"`
}

func (s TransitScheme) request() transitSignRequest {
	r := transitSignRequest{Version: transitVersion, Prehashed: s.Hash != "", Hash: s.Hash, RSA: s.RSA, Marshal: "asn1"}
	if s.RSA == "pss" {
		r.Salt = "hash"
	}
	if s.JWS {
		r.Marshal = "jws"
	}
	return r
}

// Sign signs a digest, or for Ed25519 the input itself, with the first version
// of a key. The error wraps keystore.ErrNotFound if the key is gone.
//
// See https://developer.hashicorp.com/vault/api-docs/secret/transit#sign-data
func (t *Transit) Sign(ctx context.Context, name string, how TransitScheme, input []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, transitSignTimeout)
	defer cancel()
	req := how.request()
	req.Input = base64.StdEncoding.EncodeToString(input)
	var answer transitSignature
	if err := t.askToSign(ctx, name, req, &answer); err != nil {
		return nil, err
	}
	sig, err := how.signature(answer)
	if err != nil {
		return nil, fmt.Errorf("signing with transit key %s: %w", name, err)
	}
	return sig, nil
}

// askToSign makes one request to sign and decodes its answer.
func (t *Transit) askToSign(ctx context.Context, name string, req transitSignRequest, answer any) error {
	path, err := t.keyPath("sign", name, "")
	if err != nil {
		return fmt.Errorf("signing with transit key %s: %w", name, err)
	}
	client := t.client
	if req.Batch != nil {
		client = t.slow
	}
	if err = client.Write(ctx, path, req, answer); err == nil {
		return nil
	}
	if badRequest(err) {
		// Among all else this is how Vault says that there is no such key.
		if _, readErr := t.read(ctx, name); errors.Is(readErr, keystore.ErrNotFound) {
			err = readErr
		}
	}
	return fmt.Errorf("signing with transit key %s: %w", name, err)
}

// signature checks one answer and decodes it.
func (s TransitScheme) signature(a transitSignature) ([]byte, error) {
	if a.Error != "" {
		return nil, fmt.Errorf("refused: %s", excerptOf(a.Error))
	}
	encoded, ok := strings.CutPrefix(a.Signature, "vault:v"+strconv.Itoa(transitVersion)+":")
	if !ok || (a.Version != nil && *a.Version != transitVersion) {
		return nil, fmt.Errorf("the answer is not signed with version %d of the key, as it was asked for", transitVersion)
	}
	enc := base64.StdEncoding
	if s.JWS {
		enc = base64.RawURLEncoding
	}
	sig, err := decodeStrict(enc, encoded)
	if err != nil {
		return nil, errors.New("the signature is not in the encoding that was asked for")
	}
	if len(sig) != s.Size {
		return nil, fmt.Errorf("the signature has %d bytes, not %d", len(sig), s.Size)
	}
	return sig, nil
}

// Bounds of one batch, far below what Vault takes (32 MiB by default), so that
// no other request waits behind one for long.
const (
	transitBatchItems = 250
	transitBatchBytes = 2 << 20
)

// SignBatch signs many digests, or for Ed25519 inputs, with as few requests as
// the bounds of a batch allow. Both results have as many elements as inputs, in
// the same order: a signature where the error is nil. What fails takes only its
// own input along, or those that share its request if the request fails.
//
// See https://developer.hashicorp.com/vault/api-docs/secret/transit#sign-data
func (t *Transit) SignBatch(ctx context.Context, name string, how TransitScheme, inputs [][]byte) ([][]byte, []error) {
	sigs, errs := make([][]byte, len(inputs)), make([]error, len(inputs))
	for from := 0; from < len(inputs); {
		to, size := from, 0
		for to < len(inputs) && to-from < transitBatchItems && (to == from || size+len(inputs[to]) <= transitBatchBytes) {
			size += len(inputs[to])
			to++
		}
		t.signSome(ctx, name, how, inputs[from:to], sigs[from:to], errs[from:to])
		from = to
	}
	return sigs, errs
}

// signSome signs what one request holds.
func (t *Transit) signSome(ctx context.Context, name string, how TransitScheme, inputs, sigs [][]byte, errs []error) {
	ctx, cancel := context.WithTimeout(ctx, transitBatchTimeout)
	defer cancel()
	req := how.request()
	req.Batch = make([]transitBatchItem, len(inputs))
	for i, input := range inputs {
		req.Batch[i] = transitBatchItem{base64.StdEncoding.EncodeToString(input), strconv.Itoa(i)}
	}
	var answer struct {
		Results []transitSignature `json:"batch_results"`
	}
	err := t.askToSign(ctx, name, req, &answer)
	if err == nil {
		if err = inOrder(answer.Results, len(inputs)); err != nil {
			err = fmt.Errorf("signing with transit key %s: %w", name, err)
		}
	}
	for i := range inputs {
		itemErr := err
		if err == nil {
			if sigs[i], itemErr = how.signature(answer.Results[i]); itemErr != nil {
				itemErr = fmt.Errorf("signing with transit key %s: %w", name, itemErr)
			}
		}
		errs[i] = itemErr
	}
}

// inOrder checks that each result stands where its input does. Versions of
// Vault that do not know references give none back, or an empty one.
func inOrder(results []transitSignature, want int) error {
	if len(results) != want {
		return fmt.Errorf("a batch of %d was answered with %d results", want, len(results))
	}
	for i, r := range results {
		if r.Reference != nil && *r.Reference != "" && *r.Reference != strconv.Itoa(i) {
			return errors.New("a batch was answered out of order")
		}
	}
	return nil
}
