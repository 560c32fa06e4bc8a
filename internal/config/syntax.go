package config

import (
	"bytes"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// maxSize is the largest file that is read, in bytes.
const maxSize = 1 << 20

// maxDepth is how deep lists and blocks may nest; a configuration needs eight.
// The parser's work grows with the square of the depth.
const maxDepth = 32

// kind is the type of a value as it was written.
type kind int

const (
	isNull kind = iota
	isText
	isNumber
	isBool
	isList
	isBlock
)

// node is a value of the file, reduced to what a configuration may contain.
type node struct {
	kind   kind
	text   string // of a scalar, as it was written
	pos    position
	items  []*node
	fields []field
}

// field is a key of a block and its value.
type field struct {
	name  string
	pos   position
	value *node
}

// parseText reads the file's text. It reports at most one fault, since one
// shifts all that follows; nil with nothing reported means an empty file.
func parseText(r *report, data []byte) *node {
	if len(data) > maxSize {
		r.addAt(position{}, "", "the file has more than %d bytes: is it the right one?", maxSize)
		return nil
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if !utf8.Valid(data) {
		r.addAt(invalidUTF8(data), "", "the text is not UTF-8: save the file as UTF-8")
		return nil
	}
	body, err := parseYAML(r, string(data))
	if err != nil {
		pos, msg := position{1, 1}, err.Error()
		var syntax *yaml.SyntaxError
		if errors.As(err, &syntax) {
			msg = syntax.Message
			pos = tokenPosition(syntax.Token)
		}
		r.addAt(pos, "", "this is no YAML: %s; check the indentation, and put text with special characters in quotes", msg)
		return nil
	}
	if body == nil {
		return nil
	}
	c := converter{report: r}
	n := c.convert(body, nil)
	if c.stopped {
		return nil
	}
	return n
}

// parseYAML returns the body of the only document, nil if it is empty or
// something was reported. The parser is young: if it panics, that is an error
// of the text like any other.
func parseYAML(r *report, text string) (body ast.Node, err error) {
	defer func() {
		if p := recover(); p != nil {
			body, err = nil, fmt.Errorf("the parser gave up (%v)", p)
		}
	}()
	tokens := lexer.Tokenize(text)
	if !plain(r, tokens) {
		return nil, nil
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey()) // repeated keys are ours to report
	if err != nil {
		return nil, err
	}
	for _, doc := range file.Docs {
		if doc.Body != nil {
			return doc.Body, nil
		}
	}
	return nil, nil
}

// plain refuses what YAML offers and a configuration does without, before the
// parser spends time on it.
func plain(r *report, tokens token.Tokens) bool {
	refuse := func(t *token.Token, msg string) bool {
		r.addAt(tokenPosition(t), "", "%s", msg)
		return false
	}
	depth, dashes, line, started, ended := 0, 0, 0, false, false
	for _, t := range tokens {
		if t.Position != nil && t.Position.Line != line {
			line, dashes = t.Position.Line, 0
		}
		switch t.Type {
		case token.CommentType:
			continue
		case token.AnchorType, token.AliasType, token.MergeKeyType:
			return refuse(t, `anchors, aliases and merges are not accepted: write the value out, and put text that begins with & or * in quotes, as in "*"`)
		case token.TagType:
			return refuse(t, "tags are not accepted: remove it, and put text that begins with ! in quotes")
		case token.MappingKeyType:
			return refuse(t, `keys with ? are not accepted: write "key: value"`)
		case token.DirectiveType:
			return refuse(t, "directives are not accepted: remove the line")
		case token.DocumentHeaderType:
			if started {
				return refuse(t, "a second document begins here: a configuration is one document, remove the line ---")
			}
		case token.DocumentEndType:
			ended = true
			continue
		case token.MappingStartType, token.SequenceStartType:
			depth++
		case token.MappingEndType, token.SequenceEndType:
			depth--
		case token.SequenceEntryType:
			dashes++
		}
		if ended {
			return refuse(t, "text after the end of the document: remove the line ... or what follows it")
		}
		if depth > maxDepth || dashes > maxDepth {
			return refuse(t, fmt.Sprintf("nested more than %d deep", maxDepth))
		}
		started = true
	}
	return true
}

func tokenPosition(t *token.Token) position {
	if t == nil || t.Position == nil {
		return position{1, 1}
	}
	return position{max(t.Position.Line, 1), max(t.Position.Column, 1)}
}

func invalidUTF8(data []byte) position {
	pos := position{1, 1}
	for len(data) > 0 {
		c, size := utf8.DecodeRune(data)
		switch {
		case c == utf8.RuneError && size == 1:
			return pos
		case c == '\n':
			pos = position{pos.line + 1, 1}
		default:
			pos.column++
		}
		data = data[size:]
	}
	return pos
}

// converter turns the parser's tree into ours.
type converter struct {
	report  *report
	stopped bool
	depth   int
}

func (c *converter) convert(n ast.Node, path fieldPath) *node {
	c.depth++
	defer func() { c.depth-- }()
	out := &node{pos: tokenPosition(n.GetToken())}
	if c.depth > maxDepth {
		c.stop(out.pos, path, fmt.Sprintf("nested more than %d deep", maxDepth))
		return out
	}
	switch n := n.(type) {
	case *ast.NullNode:
		out.kind = isNull
	case *ast.StringNode:
		out.kind, out.text = isText, n.Value
	case *ast.LiteralNode:
		out.kind, out.text = isText, n.Value.Value
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		out.kind, out.text = isNumber, n.GetToken().Value
	case *ast.BoolNode:
		out.kind, out.text = isBool, n.GetToken().Value
	case *ast.SequenceNode:
		out.kind = isList
		for i, item := range n.Values {
			out.items = append(out.items, c.convert(item, path.index(i)))
		}
	case *ast.MappingNode:
		out.kind = isBlock
		c.block(out, n.Values, path)
	case *ast.MappingValueNode:
		out.kind = isBlock
		c.block(out, []*ast.MappingValueNode{n}, path)
	default:
		c.stop(out.pos, path, "a value of this form is not accepted")
	}
	return out
}

// block converts the pairs of a block. In block style its place is that of its
// first key.
func (c *converter) block(out *node, pairs []*ast.MappingValueNode, path fieldPath) {
	for _, pair := range pairs {
		name, pos := pair.Key.GetToken().Value, tokenPosition(pair.Key.GetToken())
		if text, ok := pair.Key.(*ast.StringNode); ok {
			name = text.Value
		}
		out.fields = append(out.fields, field{name: name, pos: pos, value: c.convert(pair.Value, path.key(name))})
	}
	if len(out.fields) > 0 && out.fields[0].pos.line <= out.pos.line {
		out.pos = out.fields[0].pos
	}
}

func (c *converter) stop(pos position, path fieldPath, msg string) {
	if !c.stopped {
		c.report.addAt(pos, path.String(), "%s", msg)
	}
	c.stopped = true
}
