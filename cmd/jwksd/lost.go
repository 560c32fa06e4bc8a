package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http/httptrace"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/jwksd/jwksd/client"
)

// lostError is a change of which nobody knows whether it was made: the request
// may have reached the daemon, and no answer tells.
type lostError struct {
	error
	repeat string // the command line that finds out
}

func (e *lostError) Unwrap() error { return e.error }

// changing sends a request that changes something. An interruption ends the
// waiting, not the process, so that the person still learns how to repeat it;
// a second one ends the process.
func changing(ctx context.Context, repeat string, request func(context.Context) error) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	defer context.AfterFunc(ctx, stop)()
	var sent atomic.Bool // nothing leaves before there is a connection
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { sent.Store(true) },
	})
	err := request(ctx)
	if err == nil || !sent.Load() || certain(err) {
		return err
	}
	return &lostError{err, repeat}
}

// certain tells whether an error means that nothing was changed.
func certain(err error) bool {
	var answered *client.Error
	if !errors.As(err, &answered) {
		return false
	}
	return answered.Status != 500 && answered.Code != "unconfirmed" && answered.Code != "timeout"
}

// repeating is the command line that asks for the same again, with the given
// arguments and further flags in place of those that were typed.
func repeating(c *cobra.Command, args []string, further ...string) string {
	words := []string{c.CommandPath()}
	replaced := func(name string) bool {
		for _, f := range further {
			if before, _, _ := strings.Cut(f, "="); before == "--"+name {
				return true
			}
		}
		return false
	}
	late := len(args) > 0 && strings.HasPrefix(args[0], "-")
	if !late {
		words = append(words, shellWords(args)...)
	}
	c.Flags().Visit(func(f *pflag.Flag) {
		value := f.Value.String()
		switch {
		case replaced(f.Name):
		case f.Value.Type() == "bool" && value == "true":
			words = append(words, "--"+f.Name)
		case f.NoOptDefVal != "" || value == "" || strings.HasPrefix(value, "-"):
			words = append(words, "--"+f.Name+"="+shellWord(value))
		default:
			words = append(words, "--"+f.Name, shellWord(value))
		}
	})
	words = append(words, shellWords(further)...)
	if late {
		words = append(append(words, "--"), shellWords(args)...)
	}
	return strings.Join(words, " ")
}

func shellWords(list []string) []string {
	var out []string
	for _, s := range list {
		out = append(out, shellWord(s))
	}
	return out
}

// unanswered says more about a request without an answer.
func unanswered(err error) string {
	var dns *net.DNSError
	var network net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "hint: is it running? start it with: jwksd serve"
	case errors.As(err, &dns):
		return "hint: check the host name in --server"
	case errors.Is(err, context.Canceled):
		return "it was interrupted while it waited"
	case errors.As(err, &network) && network.Timeout():
		return "it did not answer in time"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "the connection broke before the answer was there"
	}
	return ""
}
