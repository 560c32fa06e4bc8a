package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"time"
)

// minimal is the smallest file there is.
const minimal = `keysets:
  default:
    issuer: https://auth.example.com
`

// Load reads the file at path. On top of Parse it fills in the default of
// keystore.file.dir and looks whether the TLS files can be read. An error is an
// *Error.
func Load(path string, now time.Time) (Config, error) {
	r := newReport(path)
	data, err := read(path)
	if err != nil {
		r.addAt(position{}, "", "%s", err)
		return Config{}, r.err()
	}
	c := parse(r, data, now)
	if len(r.problems) == 0 {
		r.files(&c)
	}
	return result(r, c)
}

// Parse reads the text of a configuration file. Errors name the file as name,
// and relative paths in the text are joined to its directory. Nothing is read
// from the disk or the environment: keystore.file.dir stays empty if the text
// does not say it. An error is an *Error.
func Parse(name string, data []byte, now time.Time) (Config, error) {
	r := newReport(name)
	return result(r, parse(r, data, now))
}

func result(r *report, c Config) (Config, error) {
	if err := r.err(); err != nil {
		return Config{}, err
	}
	return c, nil
}

func parse(r *report, data []byte, now time.Time) Config {
	root := parseText(r, data)
	switch {
	case len(r.problems) > 0:
		return Config{}
	case root == nil || root.kind == isNull:
		r.addAt(position{}, "", "the file is empty: a minimal one is\n%s", minimal)
		return Config{}
	}
	c := base()
	r.where[""] = root.pos
	decoder{r}.value(root, reflect.ValueOf(&c).Elem(), nil)
	r.check(&c, now)
	r.resolve(&c, filepath.Dir(r.file))
	return c
}

// read returns the file's bytes, one more than allowed at most.
func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, advise(err)
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return nil, errors.New("this is a directory: name the file in it")
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, advise(err)
	}
	return data, nil
}

// advise leaves out the path, which the message begins with.
func advise(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("there is no such file: check the path, or run without a configuration file to get the default")
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("may not be read by uid %d: change its owner or mode", os.Geteuid())
	}
	if pathErr := (*fs.PathError)(nil); errors.As(err, &pathErr) {
		err = pathErr.Err
	}
	return fmt.Errorf("reading it: %w", err)
}

// files checks what the configuration leads to on this machine.
func (r *report) files(c *Config) {
	if c.Keystore.File.Dir == "" {
		dir, err := DefaultStateDir()
		if err != nil {
			r.add(fieldPath{"keystore", "file", "dir"}, "%s", err)
		}
		c.Keystore.File.Dir = dir
	}
	if c.DataDir == "" {
		c.DataDir = c.Keystore.File.Dir
	}
	if c.Keystore.Vault != nil {
		r.vaultFiles(c.Keystore.Vault)
	}
	r.lastGoodFile(c.LastGood)
	tls := c.Listeners.API.TLS
	if tls == nil {
		return
	}
	at := fieldPath{"listeners", "api", "tls"}
	for _, one := range []struct{ name, path string }{{"cert", tls.Cert}, {"key", tls.Key}} {
		name, path := one.name, one.path
		f, err := os.Open(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			r.add(at.key(name), "there is no file %s: paths are relative to the configuration file", path)
		case err != nil:
			r.add(at.key(name), "%s: %s", path, advise(err))
		default:
			f.Close()
		}
	}
}

// lastGoodFile looks whether the file can be written one day: the store may be
// lost before the daemon first tries.
func (r *report) lastGoodFile(path string) {
	if path == "" {
		return
	}
	at, dir := fieldPath{"last_good"}, filepath.Dir(path)
	switch info, err := os.Stat(dir); {
	case errors.Is(err, fs.ErrNotExist):
		r.add(at, "there is no directory %s: make it, owned by the user that runs jwksd", dir)
	case err != nil:
		r.add(at, "%s: %s", dir, advise(err))
	case !info.IsDir():
		r.add(at, "%s is not a directory", dir)
	}
}

// resolve joins relative paths to the directory of the file.
func (r *report) resolve(c *Config, dir string) {
	join := func(path *string) {
		if *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(dir, *path)
		}
	}
	join(&c.Keystore.File.Dir)
	join(&c.Keystore.File.Identity)
	join(&c.DataDir)
	join(&c.LastGood)
	if v := c.Keystore.Vault; v != nil {
		for _, path := range v.paths() {
			join(path)
		}
	}
	if tls := c.Listeners.API.TLS; tls != nil {
		join(&tls.Cert)
		join(&tls.Key)
	}
}
