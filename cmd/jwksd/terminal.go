package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/jwksd/jwksd/client"
)

// The rules of this user interface. What was asked for goes to standard output
// and nothing else does, so that it can be piped. Everything said to a person
// goes to standard error, in lines that begin with "jwksd: ". An error says
// what happened and, where something can be done, a second line says what. The
// exit status is 0, 1 for "no" or "it failed", 2 for a command line that makes
// no sense. Secrets are read from files or standard input, never from the
// command line, where every user of the machine can see them.

// terminal is where a command reads and writes.
type terminal struct {
	in       io.Reader
	out, err io.Writer
}

// note says something to the person, on one line.
func (t terminal) note(format string, args ...any) {
	fmt.Fprintf(t.err, "jwksd: %s\n", clean(fmt.Sprintf(format, args...)))
}

// notes says something that may have several lines.
func (t terminal) notes(text string) {
	for line := range strings.Lines(text) {
		t.note("%s", strings.TrimRight(line, "\n"))
	}
}

// fail reports an error and returns the exit status.
func (t terminal) fail(err error) int {
	var usage *usageError
	var answered *client.Error
	var lost *lostError
	errors.As(err, &lost)
	switch {
	case errors.As(err, &usage):
		t.note("%v", err)
		t.note("see: %s", strings.Join(strings.Fields("jwksd "+usage.command+" --help"), " "))
		return 2
	case errors.As(err, &answered):
		t.notes(firstUp(answered.Detail, answered.Title))
		switch {
		case answered.Status == http.StatusUnauthorized:
			t.note("hint: check --token-file: the daemon does not know the token in it")
		case answered.Hint != "" && lost == nil:
			t.note("hint: %s", answered.Hint)
		}
	default:
		t.notes(err.Error())
		if more := unanswered(err); more != "" && errors.Is(err, client.ErrUnreachable) {
			t.note("%s", more)
		}
	}
	if lost != nil {
		t.note("the change may have been made; this finds out, and changes nothing twice:")
		t.note("%s", lost.repeat)
	}
	return 1
}

func firstUp(texts ...string) string {
	for _, s := range texts {
		if s != "" {
			return s
		}
	}
	return "unknown error"
}

// usageError is a command line that makes no sense.
type usageError struct {
	command string
	msg     string
}

func (e *usageError) Error() string { return e.msg }

// json writes a value for machines.
func (t terminal) json(v any) error {
	enc := json.NewEncoder(t.out)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// interactive tells whether a person sits at both ends.
func (t terminal) interactive() bool {
	in, ok := t.in.(*os.File)
	return ok && term.IsTerminal(int(in.Fd())) && t.tty()
}

// tty tells whether standard output is a terminal.
func (t terminal) tty() bool {
	out, ok := t.out.(*os.File)
	return ok && term.IsTerminal(int(out.Fd()))
}

// colour tells whether to use colours (https://no-color.org).
func (t terminal) colour() bool {
	return t.tty() && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// width is the width of the terminal in columns, 80 if it is none.
func (t terminal) width() int {
	if out, ok := t.out.(*os.File); ok {
		if w, _, err := term.GetSize(int(out.Fd())); err == nil && w > 0 {
			return w
		}
	}
	return 80
}

// confirm asks the person to type a word.
func (t terminal) confirm(question, want string) (bool, error) {
	fmt.Fprintf(t.err, "jwksd: %s: ", question)
	line, err := bufio.NewReader(t.in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	return strings.TrimSpace(line) == want, nil
}
