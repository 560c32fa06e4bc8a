package config

import (
	"reflect"
	"strconv"
	"strings"

	"github.com/jwksd/jwksd/rotation"
)

// decoder fills the types of this package from nodes. It reports every fault
// and leaves the default where there is one. What a file may contain is what
// the types say: a struct is a block of the keys in its yaml tags, a slice is a
// list, and a slice of Keyset is a block of named blocks.
type decoder struct{ *report }

// value decodes n into v. The place of path is known already.
func (d decoder) value(n *node, v reflect.Value, path fieldPath) {
	switch to := v.Addr().Interface().(type) {
	case *rotation.Duration:
		d.duration(n, to, path)
		return
	case *[]Keyset:
		*to = d.keysets(n, path)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.value(n, v.Elem(), path)
	case reflect.Struct:
		d.structure(n, v, path)
	case reflect.Slice:
		d.list(n, v, path)
	case reflect.String:
		if d.want(n, isText, "text", path) {
			v.SetString(n.text)
		}
	case reflect.Bool:
		if d.want(n, isBool, "true or false", path) {
			v.SetBool(n.text == "true")
		}
	case reflect.Int:
		d.integer(n, v, path)
	default:
		panic("config: no decoding into " + v.Type().String())
	}
}

// structure decodes a block of known keys. A key that is missing because it is
// misspelt is not reported a second time.
func (d decoder) structure(n *node, v reflect.Value, path fieldPath) {
	if !d.want(n, isBlock, "a block of keys", path) {
		return
	}
	var meant []string
	for f := range d.fields(n, path) {
		at, i := path.key(f.name), fieldIndex(v.Type(), f.name)
		if i >= 0 {
			d.value(f.value, v.Field(i), at)
			continue
		}
		best := nearest(f.name, keysOf(v.Type()))
		d.where[at.String()] = f.pos
		d.add(at, "%s", unknownKey(f.name, best, v.Type()))
		meant = append(meant, best)
	}
	for _, name := range meant {
		at := path.key(name).String()
		if _, present := d.where[at]; name != "" && !present {
			d.failed[at] = true
		}
	}
}

// fields yields the keys of a block, notes their places, and reports those that
// are repeated.
func (d decoder) fields(n *node, path fieldPath) func(func(field) bool) {
	return func(yield func(field) bool) {
		first := map[string]int{}
		for _, f := range n.fields {
			at := path.key(f.name)
			if line, again := first[f.name]; again {
				d.addAt(f.pos, at.String(), "the key is repeated: it stands in line %d already, remove one of them", line)
				continue
			}
			first[f.name] = f.pos.line
			pos := f.value.pos
			if f.value.kind == isBlock || f.value.kind == isNull {
				pos = f.pos
			}
			d.where[at.String()] = pos
			if !yield(f) {
				return
			}
		}
	}
}

func (d decoder) list(n *node, v reflect.Value, path fieldPath) {
	if !d.want(n, isList, "a list, as in [a, b]", path) {
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.items), len(n.items)))
	for i, item := range n.items {
		at := path.index(i)
		d.where[at.String()] = item.pos
		d.value(item, v.Index(i), at)
	}
}

// keysets decodes named blocks, in their order.
func (d decoder) keysets(n *node, path fieldPath) []Keyset {
	if !d.want(n, isBlock, "a block of named keysets", path) {
		return nil
	}
	var list []Keyset
	for f := range d.fields(n, path) {
		block, at := baseBlock(), path.key(f.name)
		d.value(f.value, reflect.ValueOf(&block).Elem(), at)
		list = append(list, Keyset{Name: f.name, Policy: block.policy()})
	}
	return list
}

func (d decoder) integer(n *node, v reflect.Value, path fieldPath) {
	if !d.want(n, isNumber, "a whole number", path) {
		return
	}
	i, err := strconv.ParseInt(n.text, 10, 32)
	if err != nil {
		d.add(path, "%s: want a whole number in plain digits, as in 2048", excerpt(n.text))
		return
	}
	v.SetInt(i)
}

func (d decoder) duration(n *node, to *rotation.Duration, path fieldPath) {
	const example = "as in 90s, 15m, 1h30m or 30d"
	_, err := strconv.ParseFloat(n.text, 64)
	if n.kind == isNumber || (n.kind == isText && err == nil) {
		d.add(path, "%s has no unit: write one behind the number, %s", excerpt(n.text), example)
		return
	}
	if !d.want(n, isText, "a duration, "+example, path) {
		return
	}
	parsed, err := rotation.ParseDuration(n.text)
	if err != nil {
		d.add(path, "%s is no duration: want a number with a unit, %s", excerpt(n.text), example)
		return
	}
	*to = parsed
}

// want reports a value of another kind. Words say what was expected.
func (d decoder) want(n *node, k kind, words string, path fieldPath) bool {
	switch {
	case n.kind == k:
		return true
	case n.kind == isNull:
		d.add(path, "no value: want %s; remove the key if the default will do", words)
	case k == isText && (n.kind == isNumber || n.kind == isBool):
		d.add(path, "want %s, got %s: put it in quotes", words, n)
	default:
		d.add(path, "want %s, got %s", words, n)
	}
	return false
}

// String describes the value for messages.
func (n *node) String() string {
	switch n.kind {
	case isNull:
		return "nothing"
	case isText:
		return "the text " + excerpt(n.text)
	case isNumber:
		return "the number " + strings.Trim(excerpt(n.text), `"`)
	case isBool:
		return strings.Trim(excerpt(n.text), `"`)
	case isList:
		return "a list"
	}
	return "a block of keys"
}

// fieldIndex finds the field of a key, or -1.
func fieldIndex(t reflect.Type, name string) int {
	for i := range t.NumField() {
		if tag := t.Field(i).Tag.Get("yaml"); tag != "" && tag == name {
			return i
		}
	}
	return -1
}

// keysOf lists the keys that a block may have.
func keysOf(t reflect.Type) []string {
	var keys []string
	for i := range t.NumField() {
		keys = append(keys, t.Field(i).Tag.Get("yaml"))
	}
	return keys
}

// unknownKey says what to do about a key of a block, perhaps a misspelt best.
func unknownKey(name, best string, t reflect.Type) string {
	top := reflect.TypeFor[Config]()
	switch {
	case best != "":
		return "unknown key: did you mean " + best + "?"
	case t != top && fieldIndex(top, name) >= 0:
		return "unknown key here: " + name + " belongs to the top level of the file"
	}
	return "unknown key: here may stand " + strings.Join(keysOf(t), ", ")
}
