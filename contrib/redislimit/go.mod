module github.com/senderauth/senderauth/contrib/redislimit

go 1.25.0

require (
	github.com/hashicorp/golang-lru/v2 v2.0.7
	github.com/redis/go-redis/v9 v9.22.0
	github.com/senderauth/senderauth v0.0.0
	github.com/senderauth/senderauth/contrib/internal/testservers v0.0.0
	github.com/stretchr/testify v1.12.1
)

require (
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	go.uber.org/atomic v1.11.0 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/sync v0.22.0 // indirect
	golang.org/x/sys v0.30.0 // indirect
	golang.org/x/time v0.15.0 // indirect
)

replace github.com/senderauth/senderauth => ../..

replace github.com/senderauth/senderauth/contrib/internal/testservers => ../internal/testservers
