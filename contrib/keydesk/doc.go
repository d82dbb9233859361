// Package keydesk serves the page "Settings, API Keys" over the key store of
// package sqlkeys: people see their keys, generate, rotate, disable and revoke them.
//
//	desk, err := keydesk.New(store, keydesk.Config{
//		Prefix: "/settings/api-keys",
//		Authorize: func(r *http.Request) (keydesk.Actor, error) {
//			user, err := sessions.User(r)
//			switch {
//			case err != nil:
//				return keydesk.Actor{}, err // 503
//			case user == nil:
//				return keydesk.Actor{}, keydesk.SignIn("/login")
//			}
//			return keydesk.Actor{Name: user.Email, SenderID: user.TenantID}, nil
//		},
//	})
//	mux.Handle("/settings/api-keys/", desk)
//
// The handler is complete: it brings its templates, its style sheet and one small
// script for the copy buttons. Everything works without the script.
//
// # Who sees what
//
// [Config.Authorize] decides about each request, and [New] fails without it. An
// [Actor] with a SenderID sees and changes the keys of that sender only: the sender
// comes from the Actor, never from the URL or a form. The key of another sender is
// answered like a key that does not exist. An Actor that says Operator sees all
// senders.
//
// # One key for one form
//
// A key is shown once, in the answer to the form. The form has a random token, and
// the ID of the new key is derived from the token and the sender. So a form that is
// sent again, by a reload or a second click, on this instance or another one, meets
// the key that exists and makes no other. The secret is not shown again.
//
// # What a browser may do
//
// Answers have a Content-Security-Policy that allows no inline script or style and no
// frame, and Cache-Control: no-store. Requests from other origins that would change
// something are refused by [net/http.CrossOriginProtection]. No URL has a key in it.
//
// # JSON
//
// Below /api/v1 a JSON API does what the pages do, under the same authorization.
// GET /api/v1/openapi.json describes it.
package keydesk
