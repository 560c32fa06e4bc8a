package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Problem is one fault of a configuration file.
type Problem struct {
	File   string
	Line   int    // from 1; 0 if the fault has no place in the text
	Column int    // from 1
	Field  string // as in keysets.default.rotate; empty for faults of the text
	Msg    string // what is wrong and what to do
}

// Error reads "file:line:column: field: what is wrong and what to do".
func (p Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
	}
	b.WriteString(": ")
	if p.Field != "" {
		b.WriteString(p.Field + ": ")
	}
	b.WriteString(p.Msg)
	return b.String()
}

// Error is every fault that was found in a file, in the order of its lines.
type Error struct{ Problems []Problem }

// shownProblems is how many faults a message lists.
const shownProblems = 25

// Error has a line for each problem.
func (e *Error) Error() string {
	var lines []string
	for i, p := range e.Problems {
		if i == shownProblems {
			lines = append(lines, fmt.Sprintf("and %d more", len(e.Problems)-i))
			break
		}
		lines = append(lines, p.Error())
	}
	return strings.Join(lines, "\n")
}

// fieldPath names a place in the file: keys, and indices as "[0]".
type fieldPath []string

func (p fieldPath) key(name string) fieldPath { return append(slices.Clip(p), name) }
func (p fieldPath) index(i int) fieldPath     { return p.key("[" + strconv.Itoa(i) + "]") }

// String writes keysets.default.rotate and callers[0].grants[1]. A name that
// could be misread is quoted.
func (p fieldPath) String() string {
	var b strings.Builder
	for i, part := range p {
		if strings.HasPrefix(part, "[") {
			b.WriteString(part)
			continue
		}
		if i > 0 {
			b.WriteByte('.')
		}
		b.WriteString(plainName(part))
	}
	return b.String()
}

func plainName(name string) string {
	odd := func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`."[]\`, r) }
	if name == "" || len(name) > 64 || strings.ContainsFunc(name, odd) {
		return excerpt(name)
	}
	return name
}

// excerpt quotes text from the file, shortened.
func excerpt(s string) string {
	if r := []rune(s); len(r) > 64 {
		s = string(r[:61]) + "..."
	}
	return strconv.Quote(s)
}

// position is a place in the text.
type position struct{ line, column int }

// report collects the problems of one file.
type report struct {
	file     string
	problems []Problem
	where    map[string]position // of each field that is present
	failed   map[string]bool     // fields with a problem
}

func newReport(file string) *report {
	return &report{file: file, where: map[string]position{}, failed: map[string]bool{}}
}

// add reports a problem of a field: at the field's place, or if it is absent,
// at that of the nearest block around it. One problem is enough for a field and
// everything in it, so consequences of a problem are not reported.
func (r *report) add(at fieldPath, format string, args ...any) {
	for i := len(at); i >= 0; i-- {
		if r.failed[at[:i].String()] {
			return
		}
	}
	r.failed[at.String()] = true
	pos := position{1, 1}
	for i := len(at); i > 0; i-- {
		if p, ok := r.where[at[:i].String()]; ok {
			pos = p
			break
		}
	}
	r.addAt(pos, at.String(), format, args...)
}

// addAt reports a problem at a place of the text.
func (r *report) addAt(pos position, field, format string, args ...any) {
	r.problems = append(r.problems, Problem{
		File: r.file, Line: pos.line, Column: pos.column, Field: field, Msg: fmt.Sprintf(format, args...),
	})
}

// err is an *Error with all that was reported, or nil.
func (r *report) err() error {
	if len(r.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(r.problems, func(a, b Problem) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	return &Error{Problems: r.problems}
}
