// Package senderauth is net/http middleware that puts API keys and quotas in front
// of a multi-tenant API. It answers three questions about each request: who is
// calling (the headers x-sender-id and x-api-key), may they call this often (a
// token bucket per sender), and, if either answer is no, what is the client told
// (an RFC 9457 problem).
//
//	keys, err := senderauth.NewCache(store, senderauth.CacheConfig{})
//	guard, err := senderauth.New(keys, senderauth.Config{
//		Limits: map[string]senderauth.Limit{
//			"default":  {Requests: 200, Per: time.Minute, Burst: 50},
//			"messages": senderauth.PerMinute(60),
//		},
//	})
//	mux.Handle("GET /v1/contacts", guard.Wrap(contacts))
//	mux.Handle("POST /v1/messages", guard.Charging("messages").Wrap(send))
//
// # The order of decisions
//
//  1. [Config.RequireTLS], if set: 403 "HTTPS is required".
//  2. x-api-key, then x-sender-id, absent or empty: 401 "Header x-api-key not
//     found" or "Header x-sender-id not found".
//  3. x-sender-id in two lines, or not a UUID of 36 characters: 401 "Invalid
//     x-sender-id". Letter case does not matter; the lower-case form is used from
//     here on.
//  4. x-api-key in two lines, or refused by [Config.CheckKey]: 401 "Invalid API
//     credentials!". No step up to here asks the Validator.
//  5. [Config.FailedAttempts], if set and exceeded by the client's address: 429,
//     unless the [Cache] has accepted these credentials before.
//  6. The [Validator], usually through a [Cache]. Its refusals are 401, its own
//     [*Problem] is sent as it is, its outage is 503, and its panic is 500.
//  7. The [Sender] that it returned: 500 if it is not the one in the request,
//     because that is a fault of the Validator.
//  8. [Sender.Networks], if the client's address is in none of them: 401 "Invalid
//     API credentials!".
//  9. [Guard.Requiring], if the key lacks a scope: 403 "API key lacks a required
//     scope".
//  10. The [Limiter], once, with all limits of the request: 429 "Rate limit exceeded.
//     Please retry after N seconds.", or "Allowance exceeded." and the same.
//  11. The next handler, with the sender in the context.
//
// # The promises
//
//   - A request that fails authentication never touches a quota.
//   - Over any T seconds a bucket admits at most burst + rate x T requests, however
//     many come at once. An allowance admits at most its number of requests in each day
//     or month. A refused request takes nothing.
//   - An instance that calls [Cache.Forget] refuses a revoked key immediately. Others
//     refuse it after [CacheConfig.TTL] at the latest, or [CacheConfig.StaleTTL] later
//     if that is set and the Validator fails.
//   - A flood of bad keys never evicts a good one.
//   - No error, event or panic of this package contains a key or a part of one. The
//     package keeps no key in memory after its request and its lookup.
//   - The next handler gets the ResponseWriter that the guard got.
//
// There is no list of paths to skip: do not wrap what needs no key.
package senderauth
