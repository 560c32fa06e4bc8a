package daemon

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jwksd/jwksd/rotation"
	"github.com/jwksd/jwksd/rotation/rotator"
)

// A copy is a line that says what it is, a line of JSON a keyset, and a line
// with the HMAC-SHA-256 of all before it. It holds public data only.
//
// Each copy is made with a fresh key, which lies in FILE.key, readable by its
// owner only. A copy that was changed, cut off, or made by someone else does
// not fit the key; nor does an older copy that was put back, which could bring
// back a revoked key.
//
// The order of a write: the key file gets the new key beside the old one, then
// the copy is replaced, then the old key goes. Whenever this is cut short, the
// key file has the key of the copy that is there.

const (
	copyHeader  = "jwksd last good copy 1\n"
	copyTrailer = "hmac-sha256 "
	sizeCopyKey = 32
)

// keptLine is a keyset in a copy.
type keptLine struct {
	FreshAt  time.Time       `json:"fresh_at"`
	Document json.RawMessage `json:"document"`
}

// writeCopy replaces the copy at path. The file is there whole or not at all.
func writeCopy(path string, list []rotator.Kept) error {
	keys := copyKeys(path)
	if len(keys) != 2 { // else a write was cut short: its key was never in use, or is
		keys = append(keys[:min(1, len(keys))], make([]byte, sizeCopyKey))
		rand.Read(keys[len(keys)-1])
		if err := writeCopyKeys(path, keys); err != nil {
			return err
		}
	}
	key := keys[len(keys)-1]
	if err := replaceFile(path, func(w io.Writer) error { return encodeCopy(w, key, list) }); err != nil {
		return fmt.Errorf("writing the last good copy: %w", err)
	}
	return writeCopyKeys(path, [][]byte{key})
}

func encodeCopy(out io.Writer, key []byte, list []rotator.Kept) error {
	mac := hmac.New(sha256.New, key)
	w := bufio.NewWriter(io.MultiWriter(out, mac))
	w.WriteString(copyHeader)
	for _, kept := range list {
		doc, err := kept.State.Encode()
		if err != nil {
			return err
		}
		line, err := json.Marshal(keptLine{kept.FreshAt, doc})
		if err != nil {
			return err
		}
		w.Write(append(line, '\n'))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "%s%x\n", copyTrailer, mac.Sum(nil))
	return err
}

// readCopy returns what writeCopy wrote. The error wraps fs.ErrNotExist if there
// is no copy; any other refuses it, and says why.
func readCopy(path string) ([]rotator.Kept, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the last good copy: %w", err)
	}
	if err := ownerOnly(path + ".key"); err != nil {
		return nil, refusedCopy(path, "%v", err)
	}
	body, ok := authentic(data, copyKeys(path))
	if !ok {
		return nil, refusedCopy(path, "it does not fit %s.key: it was changed, cut off, or put back from an earlier time", path)
	}
	var list []rotator.Kept
	for line := range bytes.Lines(bytes.TrimPrefix(body, []byte(copyHeader))) {
		var kept keptLine
		if err := json.Unmarshal(line, &kept); err != nil {
			return nil, refusedCopy(path, "%v", err)
		}
		s, err := rotation.Decode(kept.Document)
		if err != nil {
			return nil, refusedCopy(path, "%v", err)
		}
		list = append(list, rotator.Kept{State: s, FreshAt: kept.FreshAt})
	}
	return list, nil
}

func refusedCopy(path, why string, args ...any) error {
	return fmt.Errorf("the last good copy %s is refused: %s; delete it, and start when the store is back", path, fmt.Sprintf(why, args...))
}

// authentic returns what one of the keys vouches for.
func authentic(data []byte, keys [][]byte) ([]byte, bool) {
	at := bytes.LastIndex(data, []byte("\n"+copyTrailer)) + 1
	if at == 0 || !bytes.HasPrefix(data, []byte(copyHeader)) || !bytes.HasSuffix(data, []byte("\n")) {
		return nil, false
	}
	sum, err := hex.DecodeString(string(data[at+len(copyTrailer) : len(data)-1]))
	if err != nil {
		return nil, false
	}
	return data[:at], slices.ContainsFunc(keys, func(key []byte) bool {
		mac := hmac.New(sha256.New, key)
		mac.Write(data[:at])
		return hmac.Equal(mac.Sum(nil), sum)
	})
}

// copyKeys returns the keys of the copy, the newest last: two if a write was cut
// short, none if the file is missing or damaged.
func copyKeys(path string) [][]byte {
	text, err := os.ReadFile(path + ".key")
	if err != nil {
		return nil
	}
	var keys [][]byte
	for _, line := range strings.Fields(string(text)) {
		key, err := hex.DecodeString(line)
		if err != nil || len(key) != sizeCopyKey {
			return nil
		}
		keys = append(keys, key)
	}
	return keys
}

func writeCopyKeys(path string, keys [][]byte) error {
	err := replaceFile(path+".key", func(w io.Writer) error {
		for _, key := range keys {
			if _, err := fmt.Fprintf(w, "%x\n", key); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("writing the key of the last good copy: %w", err)
	}
	return nil
}

// ownerOnly refuses a key that others may know.
func ownerOnly(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is missing", path)
	}
	if err == nil && info.Mode().Perm()&0o077 != 0 {
		err = fmt.Errorf("others may read %s (mode %04o)", path, info.Mode().Perm())
	}
	return err
}

// replaceFile puts a file in the place of another so that one of the two is
// there whole, whenever the machine stops.
func replaceFile(path string, fill func(io.Writer) error) error {
	tmp, err := os.OpenFile(path+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	err = errors.Join(fill(tmp), tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
