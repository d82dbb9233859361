module github.com/senderauth/senderauth/contrib/redislimit/benchmarks

go 1.25.0

require (
	github.com/go-redis/redis_rate/v10 v10.0.1
	github.com/redis/go-redis/v9 v9.22.0
	github.com/senderauth/senderauth v0.0.0
	github.com/senderauth/senderauth/contrib/redislimit v0.0.0
	github.com/throttled/throttled/v2 v2.15.0
	github.com/ulule/limiter/v3 v3.11.2
)

require (
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/hashicorp/golang-lru/v2 v2.0.7 // indirect
	github.com/pkg/errors v0.9.1 // indirect
	go.uber.org/atomic v1.11.0 // indirect
	golang.org/x/sync v0.22.0 // indirect
	golang.org/x/sys v0.30.0 // indirect
	golang.org/x/time v0.15.0 // indirect
)

replace (
	github.com/senderauth/senderauth => ../../..
	github.com/senderauth/senderauth/contrib/redislimit => ..
)

replace github.com/senderauth/senderauth/contrib/internal/testservers => ../../internal/testservers
