package migrate

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// markerName is the file that tells that a store was left.
const markerName = "MIGRATED"

// Mark writes into the directory of a file store that its keysets are elsewhere
// now. From then on two stores hold the same keys, and a daemon that went on
// with the old one would make keys that no verifier of the other knows.
func Mark(dir, to string, now time.Time) error {
	path := filepath.Join(dir, markerName)
	f, err := os.OpenFile(path+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("marking the old store: %w", err)
	}
	_, err = fmt.Fprintf(f, "migrated to %s on %s\n", to, now.UTC().Format(time.RFC3339))
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(path+".tmp", path)
	}
	if err != nil {
		return fmt.Errorf("marking the old store: %w", errors.Join(err, os.Remove(path+".tmp")))
	}
	return nil
}

// CheckMark refuses a directory that Mark was called for.
func CheckMark(dir string) error {
	path := filepath.Join(dir, markerName)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("looking whether the store was migrated: %w", err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	if line == "" {
		line = "migrated"
	}
	return fmt.Errorf("the keys in %s were %s; use the configuration of the new place, and delete %[1]s once all is well there (to go back instead, delete %[3]s, but what changed in the new place since then is lost)", dir, line, path)
}
