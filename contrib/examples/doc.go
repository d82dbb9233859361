// Package examples holds programs that serve the same API with the guard of
// senderauth in front of it: quickstart on net/http alone, and chi, gin and
// echo. Their answers are the same, but for the body of a 404 and a 405, which
// each router writes in its own way; the test in this directory says so in
// full. The package cors shows CORS around a guard.
package examples
