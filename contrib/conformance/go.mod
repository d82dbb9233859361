module github.com/senderauth/senderauth/contrib/conformance

go 1.25.0

require (
	github.com/dunglas/httpsfv v1.1.2
	github.com/senderauth/senderauth v0.0.0
	github.com/stretchr/testify v1.12.1
	golang.org/x/net v0.57.0
)

require (
	github.com/hashicorp/golang-lru/v2 v2.0.7 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/sync v0.22.0 // indirect
	golang.org/x/text v0.40.0 // indirect
	golang.org/x/time v0.15.0 // indirect
)

replace github.com/senderauth/senderauth => ../..
