// Package conformance holds no code, only tests: the request/response vectors
// of testdata/vectors.json, sent byte for byte over TCP to a real server that
// is built on senderauth's public face, and the rate fields read back by a
// parser of RFC 9651.
//
//	go test ./...
//	go test -run 'TestVectors/rl-fraction-1-5' -v
//	go test -fuzz FuzzRateFields -fuzztime 15s
//
// The head of vectors.json says what each member means. testdata/more.json has
// vectors of the same form for what that file names and does not use.
package conformance
