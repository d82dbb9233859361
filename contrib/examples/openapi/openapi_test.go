package openapi_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/require"
)

const (
	sender = "7a1de7b4-3a0e-4d6e-9c2b-0f7f5a1c0a11"
	key    = "0b9d3c1e-6f52-4c8a-b1d7-2e4f6a8c0d01"
)

func newGuard(t *testing.T) *senderauth.Guard {
	t.Helper()
	keys, err := senderauth.Static(senderauth.Credentials{SenderID: sender, APIKey: key})
	require.NoError(t, err)
	guard, err := senderauth.New(keys, senderauth.Config{
		Limits:   map[string]senderauth.Limit{"default": senderauth.PerMinute(60)},
		StripKey: true,
	})
	require.NoError(t, err)
	return guard
}

func kin(t *testing.T) http.Handler {
	t.Helper()
	h, err := withKin(newGuard(t), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s, _ := senderauth.SenderFrom(r.Context())
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(map[string]string{"sender": s.ID})
	}))
	require.NoError(t, err)
	return h
}

// get returns the status, the media type and the body of an answer.
func get(h http.Handler, path, key string) (status int, media, body string) {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	if key != "" {
		r.Header.Set("x-sender-id", sender)
		r.Header.Set("x-api-key", key)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code, w.Header().Get("Content-Type"), w.Body.String()
}

// mismatch is what a request gets that does not match the description.
var mismatch = map[string]int{"huma": http.StatusUnprocessableEntity, "kin-openapi": http.StatusBadRequest}

func TestGuardDecidesBeforeTheDescription(t *testing.T) {
	for name, h := range map[string]http.Handler{"huma": withHuma(newGuard(t)), "kin-openapi": kin(t)} {
		t.Run(name, func(t *testing.T) {
			const refused = `{"status":401,"title":"Unauthorized","detail":"Header x-api-key not found","type":"about:blank"}`
			for _, path := range []string{"/v1/contacts", "/v1/contacts?limit=0", "/v1/unknown"} {
				status, media, body := get(h, path, "")
				require.Equal(t, []any{401, "application/problem+json", refused}, []any{status, media, body})
			}
			status, media, body := get(h, "/v1/contacts?limit=5", key)
			require.Equal(t, 200, status)
			require.Equal(t, "application/json", media)
			var got map[string]any
			require.NoError(t, json.Unmarshal([]byte(body), &got))
			require.Equal(t, sender, got["sender"])

			status, media, _ = get(h, "/v1/contacts?limit=0", key)
			require.Equal(t, mismatch[name], status)
			require.Equal(t, "application/problem+json", media)
			status, _, _ = get(h, "/v1/unknown", key)
			require.Equal(t, 404, status)
		})
	}
}

func TestBothDescriptionsAskForBothHeaders(t *testing.T) {
	file, err := openapi3.NewLoader().LoadFromData(description)
	require.NoError(t, err)
	require.NoError(t, file.Validate(t.Context()))

	_, _, body := get(withHuma(newGuard(t)), "/openapi.json", "")
	var made openapi3.T
	require.NoError(t, json.Unmarshal([]byte(body), &made))
	require.Equal(t, file.Security, made.Security)
	require.Equal(t, file.Components.SecuritySchemes, made.Components.SecuritySchemes)
}
