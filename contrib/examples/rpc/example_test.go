// Package rpc shows a guard in front of services of Connect and gRPC on net/http.
//
// Their clients do not read problems. A refusal becomes an error of their protocol, written
// by Connect's ErrorWriter, and other clients of the same server still get the problem. gRPC
// has its status in a trailer, so the HTTP status of its refusals is 200: count refusals in
// Config.Observe, and not by the status in an access log.
package rpc_test

import (
	"errors"
	"net/http"

	"connectrpc.com/connect"
	"github.com/senderauth/senderauth"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/types/known/durationpb"
)

var errorWriter = connect.NewErrorWriter()

// serveProblem is the guard's Config.ServeProblem.
func serveProblem(w http.ResponseWriter, r *http.Request, p *senderauth.Problem, _ senderauth.Outcome) {
	if !errorWriter.IsSupported(r) {
		p.ServeHTTP(w, r)
		return
	}
	e := connect.NewError(code(p.Status), errors.New(p.Detail))
	if p.RetryAfter > 0 {
		if detail, err := connect.NewErrorDetail(&errdetails.RetryInfo{RetryDelay: durationpb.New(p.RetryAfter)}); err == nil {
			e.AddDetail(detail)
		}
	}
	errorWriter.Write(w, r, e)
}

// code returns the code that means the same as a status of the guard.
func code(status int) connect.Code {
	switch status {
	case http.StatusUnauthorized:
		return connect.CodeUnauthenticated
	case http.StatusForbidden:
		return connect.CodePermissionDenied
	case http.StatusTooManyRequests:
		return connect.CodeResourceExhausted
	case http.StatusServiceUnavailable:
		return connect.CodeUnavailable
	}
	return connect.CodeInternal
}
