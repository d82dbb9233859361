module github.com/senderauth/senderauth/contrib/conformance

go 1.25.0

require (
	github.com/dunglas/httpsfv v1.1.2
	github.com/senderauth/senderauth v0.0.0
	github.com/stretchr/testify v1.12.1
	golang.org/x/net v0.57.0
)

require (
	github.com/BurntSushi/toml v1.4.1-0.20240526193622-a339e1f7089c // indirect
	github.com/hashicorp/golang-lru/v2 v2.0.7 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/exp/typeparams v0.0.0-20231108232855-2478ac86f678 // indirect
	golang.org/x/mod v0.37.0 // indirect
	golang.org/x/sync v0.22.0 // indirect
	golang.org/x/text v0.40.0 // indirect
	golang.org/x/time v0.15.0 // indirect
	golang.org/x/tools v0.47.0 // indirect
	honnef.co/go/tools v0.7.0 // indirect
)

replace github.com/senderauth/senderauth => ../..

tool honnef.co/go/tools/cmd/staticcheck
