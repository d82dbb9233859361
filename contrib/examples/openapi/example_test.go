// Package openapi shows a guard with an API that is described by OpenAPI: made by huma from
// code, or checked by kin-openapi from a file.
//
// The two headers are security schemes, and not parameters: a description with x-api-key as
// a required parameter makes the validator look for a header that Config.StripKey has taken
// away.
package openapi_test

import (
	"context"
	_ "embed"
	"errors"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers/gorillamux"
	"github.com/senderauth/senderauth"
)

// withHuma returns the API, whose description anybody may read at /openapi.json.
func withHuma(guard *senderauth.Guard) http.Handler {
	cfg := huma.DefaultConfig("Contacts", "1.0.0")
	cfg.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"senderID": {Type: "apiKey", In: "header", Name: "x-sender-id"},
		"apiKey":   {Type: "apiKey", In: "header", Name: "x-api-key"},
	}
	// One requirement with two schemes: a client sends both headers.
	cfg.Security = []map[string][]string{{"senderID": {}, "apiKey": {}}}

	mux := http.NewServeMux()
	api := humago.New(mux, cfg)
	type contacts struct {
		Body struct {
			Sender string `json:"sender" format:"uuid"`
		}
	}
	huma.Register(api, huma.Operation{
		OperationID: "list-contacts", Method: http.MethodGet, Path: "/v1/contacts",
		Errors: []int{http.StatusUnauthorized, http.StatusTooManyRequests, http.StatusServiceUnavailable},
	}, func(ctx context.Context, in *struct {
		Limit int `query:"limit" minimum:"1" maximum:"100"`
	}) (*contacts, error) {
		sender, _ := senderauth.SenderFrom(ctx)
		var out contacts
		out.Body.Sender = sender.ID
		return &out, nil
	})

	open := http.NewServeMux()
	open.Handle("GET /openapi.json", mux)
	open.Handle("/", guard.Wrap(mux))
	return open
}

//go:embed openapi.yaml
var description []byte

// withKin returns next behind the guard and behind a check of each request against the
// description. The guard has authenticated the request already, so the check only asks
// whether it has.
func withKin(guard *senderauth.Guard, next http.Handler) (http.Handler, error) {
	doc, err := openapi3.NewLoader().LoadFromData(description)
	if err != nil {
		return nil, err
	}
	router, err := gorillamux.NewRouter(doc)
	if err != nil {
		return nil, err
	}
	options := &openapi3filter.Options{
		AuthenticationFunc: func(ctx context.Context, _ *openapi3filter.AuthenticationInput) error {
			if _, ok := senderauth.SenderFrom(ctx); !ok {
				return errors.New("no guard has authenticated the request")
			}
			return nil
		},
	}
	check := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		route, params, err := router.FindRoute(r)
		if err != nil {
			(&senderauth.Problem{Status: http.StatusNotFound, Err: err}).ServeHTTP(w, r)
			return
		}
		in := &openapi3filter.RequestValidationInput{Request: r, PathParams: params, Route: route, Options: options}
		if err := openapi3filter.ValidateRequest(r.Context(), in); err != nil {
			(&senderauth.Problem{Status: http.StatusBadRequest, Detail: "The request does not match the description of the API", Err: err}).ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
	return guard.Wrap(check), nil
}
