package api

import (
	"fmt"
	"net/http"
	"runtime"
	"strconv"
	"strings"
)

var errInternal = &failure{status: http.StatusInternalServerError, code: "internal", detail: "something went wrong here; the log has more"}

// catch turns a panic into an answer. The log gets neither the value of the
// panic nor the arguments of the calls that led to it, both of which can hold
// secrets: what it is and where it was say enough.
func (s *Server) catch(c *call) {
	p := recover()
	if p == nil {
		return
	}
	if p == http.ErrAbortHandler {
		panic(p)
	}
	s.log.Error("request panicked", "method", c.r.Method, "path", clip(c.r.URL.Path), "panic", panicText(p), "at", callers())
	if c.started {
		panic(http.ErrAbortHandler) // half an answer must not look like a whole one
	}
	errInternal.write(c.w)
}

// panicText says what happened. The runtime's own errors name types and indices
// only.
func panicText(p any) string {
	if err, ok := p.(runtime.Error); ok {
		return err.Error()
	}
	return fmt.Sprintf("a value of type %T", p)
}

// callers lists the functions that led to a panic, the innermost first.
func callers() string {
	pc := make([]uintptr, 32)
	frames := runtime.CallersFrames(pc[:runtime.Callers(3, pc)]) // without Callers, callers and catch
	var at []string
	for {
		f, more := frames.Next()
		at = append(at, f.Function+":"+strconv.Itoa(f.Line))
		if !more {
			return strings.Join(at, " < ")
		}
	}
}
