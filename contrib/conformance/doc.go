// Package conformance holds tests only. They send the requests of
// testdata/vectors.json byte for byte over TCP to a real server, built with
// senderauth's exported API, and compare the responses. They also read the rate
// fields back with a parser of RFC 9651, and search everything that the server, Redis and
// the database show for keys.
//
//	go test ./...
//	go test -run 'TestVectors/rl-fraction-1-5' -v
//	go test -fuzz FuzzRateFields -fuzztime 15s
//
// The start of vectors.json explains its members. testdata/more.json has more vectors
// of the same form, for states and configurations that vectors.json defines but does
// not use.
package conformance
