package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A planted link must not make us write to the file it leads to, and what is
// written is ours alone.
func TestWriteFileFollowsNoLink(t *testing.T) {
	for name, plant := range map[string]func(tmp, victim string) error{
		"nothing": func(string, string) error { return nil },
		"link":    func(tmp, victim string) error { return os.Symlink(victim, tmp) },
		"dangling": func(tmp, victim string) error {
			return os.Symlink(filepath.Join(filepath.Dir(victim), "made"), tmp)
		},
		"hard link": func(tmp, victim string) error { return os.Link(victim, tmp) },
		"left over": func(tmp, _ string) error {
			return errors.Join(os.WriteFile(tmp, []byte(strings.Repeat("x", 100)), 0o666), os.Chmod(tmp, 0o666))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path, victim := filepath.Join(dir, OperatorTokenFile), filepath.Join(dir, "victim")
			if err := errors.Join(os.WriteFile(victim, []byte("mine"), 0o644), plant(path+".tmp", victim), os.Symlink(victim, path)); err != nil {
				t.Fatal(err)
			}
			if err := writeFile(path, "new"); err != nil {
				t.Fatal(err)
			}
			if text, err := os.ReadFile(victim); err != nil || string(text) != "mine" {
				t.Errorf("the victim says %q, %v", text, err)
			}
			info, err := os.Lstat(path)
			if err != nil || info.Mode() != 0o600 {
				t.Fatalf("%v, %v", info, err)
			}
			if text, err := os.ReadFile(path); err != nil || string(text) != "new" {
				t.Errorf("the file says %q, %v", text, err)
			}
			if entries, _ := os.ReadDir(dir); len(entries) != 2 {
				t.Errorf("files are left: %v", entries)
			}
		})
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	if err := os.MkdirAll(filepath.Join(path+".tmp", "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := writeFile(path, "new"); err == nil {
		t.Error("a directory in place of the temporary file was no obstacle")
	}
}

func TestReadOperatorToken(t *testing.T) {
	const token = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"
	for _, tt := range []struct {
		name   string
		spoil  func(path string) error
		saying string // empty if nothing is wrong
	}{
		{"good", func(string) error { return nil }, ""},
		{"read-only", func(p string) error { return os.Chmod(p, 0o400) }, ""},
		{"group reads", func(p string) error { return os.Chmod(p, 0o640) }, "others may read"},
		{"others read", func(p string) error { return os.Chmod(p, 0o604) }, "others may read"},
		{"link", func(p string) error { return errors.Join(os.Rename(p, p+"2"), os.Symlink(p+"2", p)) }, "not a regular file"},
		{"directory", func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o700)) }, "not a regular file"},
		{"short", func(p string) error { return os.Truncate(p, 10) }, "is damaged"},
		{"missing", os.Remove, "no such file"},
		{"another's", func(p string) error { return os.Chown(p, 65534, 65534) }, "belongs to user 65534"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.name == "another's" && os.Geteuid() != 0 {
				t.Skip("only root can give files away")
			}
			path := filepath.Join(t.TempDir(), OperatorTokenFile)
			if err := errors.Join(os.WriteFile(path, []byte(token+"\n"), 0o600), tt.spoil(path)); err != nil {
				t.Fatal(err)
			}
			got, err := ReadOperatorToken(path)
			switch {
			case tt.saying == "" && (err != nil || got != token):
				t.Errorf("%q, %v", got, err)
			case tt.saying != "" && (err == nil || got != "" || !strings.Contains(err.Error(), tt.saying) || !strings.Contains(err.Error(), path)):
				t.Errorf("%q, %v", got, err)
			}
			if err != nil && strings.Contains(err.Error(), token[:8]) {
				t.Errorf("the error holds the token: %v", err)
			}
			if tt.name == "missing" && !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a missing file cannot be told: %v", err)
			}
		})
	}
}
