package jwks

import (
	"net/http"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
)

// problem is an error answer (RFC 9457), worked out once. It repeats nothing
// of the request.
type problem struct {
	status int
	body   []byte
	length []string
}

// newProblem builds an answer. The code is stable: programs may depend on it.
// The texts are for people and may change.
func newProblem(status int, code, detail, hint string) *problem {
	body := []byte(`{"type":"about:blank"`)
	text := func(name, value string) {
		body = append(body, `,"`+name+`":`...)
		// Fails for invalid UTF-8 only; every text is a constant of this package.
		body, _ = jsontext.AppendQuote(body, value)
	}
	text("title", http.StatusText(status))
	body = append(body, `,"status":`...)
	body = strconv.AppendInt(body, int64(status), 10)
	text("code", code)
	text("detail", detail)
	text("hint", hint)
	body = append(body, '}', '\n')
	return &problem{status: status, body: body, length: []string{strconv.Itoa(len(body))}}
}
