package api

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// maxBody bounds a body in bytes (rule C13).
const maxBody = 64 << 10

// firstRead is how much room a body of unknown length gets at first.
const firstRead = 512

// body reads a JSON body of at most maxBody bytes, and no more than one byte
// past the bound.
func (c *call) body() ([]byte, error) {
	if c.r.ContentLength > maxBody {
		return nil, c.tooLarge()
	}
	if err := c.mediaType(); err != nil {
		return nil, err
	}
	// One byte more than announced, so that the read that meets the end needs
	// no larger buffer.
	size := int(c.r.ContentLength) + 1
	if size < 1 {
		size = firstRead
	}
	buf := make([]byte, 0, size)
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := c.r.Body.Read(buf[len(buf):min(cap(buf), maxBody+1)])
		buf = buf[:len(buf)+n]
		switch {
		case len(buf) > maxBody:
			return nil, c.tooLarge()
		case err == io.EOF:
			return buf, nil
		case err != nil:
			return nil, badRequest("body_unreadable", "the body could not be read to its end")
		}
	}
}

// tooLarge ends the connection with the answer, so that the rest of the body
// need not be read to find the next request.
func (c *call) tooLarge() error {
	c.w.Header().Set("Connection", "close")
	return &failure{status: http.StatusRequestEntityTooLarge, code: "body_too_large", detail: "the body is over 64 KiB", hint: "put less into the claims"}
}

// mediaType refuses a body that does not say it is JSON.
func (c *call) mediaType() error {
	value := c.r.Header.Get("Content-Type")
	if value == "application/json" {
		return nil
	}
	if t, params, err := mime.ParseMediaType(value); err == nil && t == "application/json" {
		if charset, ok := params["charset"]; !ok || strings.EqualFold(charset, "utf-8") {
			return nil
		}
	}
	return &failure{status: http.StatusUnsupportedMediaType, code: "unsupported_media_type", detail: "the body must be application/json in UTF-8", hint: "send Content-Type: application/json"}
}

// decode reads a change request strictly: a name that is misspelt, in another
// case or there twice could mean another key, or no dry run.
func decode(body []byte, req any) error {
	if jsontext.Value(body).Kind() != '{' {
		return badRequest("invalid_body", "the body must be a JSON object")
	}
	err := jsonv2.Unmarshal(body, req, jsonv2.RejectUnknownMembers(true))
	if err == nil {
		return nil
	}
	var wrong *jsonv2.SemanticError
	switch {
	case errors.Is(err, jsonv2.ErrUnknownName):
		return badRequest("invalid_body", "the body has a member that this request does not know")
	case errors.Is(err, jsontext.ErrDuplicateName):
		return badRequest("invalid_body", "the body has a member twice")
	case errors.As(err, &wrong):
		return &failure{status: http.StatusBadRequest, code: "invalid_body", detail: "a member has a value of the wrong type", field: clip(strings.TrimPrefix(string(wrong.JSONPointer), "/"))}
	}
	return badRequest("invalid_body", "the body is no JSON object in UTF-8 with nothing after it")
}

// The values of header fields, in the form that http.Header holds. They go into
// answers without being copied; nobody writes to them.
var (
	valueJSON    = []string{"application/json"}
	valueNoStore = []string{"no-store"}
	valueNoSniff = []string{"nosniff"}
)

// answer writes a JSON answer.
func (c *call) answer(status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	c.write(status, append(body, '\n'))
	return nil
}

// selfMeasured is the length up to which net/http works out Content-Length by
// itself, without an allocation.
const selfMeasured = 2048

// write sends a finished JSON answer.
func (c *call) write(status int, body []byte) {
	c.started = true
	h := c.w.Header()
	h["Content-Type"] = valueJSON
	h["Cache-Control"] = valueNoStore
	h["X-Content-Type-Options"] = valueNoSniff
	if len(body) > selfMeasured {
		h.Set("Content-Length", strconv.Itoa(len(body)))
	}
	c.w.WriteHeader(status)
	c.w.Write(body)
}
