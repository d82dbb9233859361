// Package examples holds four programs that serve the same API behind a guard:
// quickstart on net/http alone, and chi, gin and echo. Their responses are the same,
// apart from the redirects, the 404 and the 405 that each router writes in its own way.
// The tests in this directory compare them. The program observed adds telemetry to
// the quickstart. The program service is a whole server in one file, and the program
// fleet shows three instances together. The packages cors, streams, rpc and openapi show
// a guard with CORS, WebSocket, gRPC and OpenAPI.
package examples
