package redislimit_test

import (
	"log"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/redislimit"
)

func ExampleNew() {
	client := redis.NewUniversalClient(&redis.UniversalOptions{
		Addrs:                 []string{"localhost:6379"}, // several make a Cluster client, MasterName a Sentinel client
		ContextTimeoutEnabled: true,
	})
	defer client.Close()
	limiter, err := redislimit.New(client, redislimit.Config{
		Instances: 3, // while Redis is unreachable, each enforces a third of the limits
		Lease:     100 * time.Millisecond,
		OnMode:    func(m redislimit.Mode, err error) { log.Printf("limits are %s: %v", m, err) },
	})
	if err != nil {
		log.Fatal(err)
	}
	defer limiter.Close()

	keys, err := senderauth.Static(senderauth.Credentials{
		SenderID: "0190a6f2-7c1e-7d3a-9b1f-2f5c8e4d6a70",
		APIKey:   "6d5b2c1e-8f4a-4b7e-9c3d-1a2b3c4d5e6f",
	})
	if err != nil {
		log.Fatal(err)
	}
	_, err = senderauth.New(keys, senderauth.Config{
		Limits:  map[string]senderauth.Limit{"default": senderauth.PerMinute(200)},
		Limiter: limiter,
	})
	if err != nil {
		log.Fatal(err)
	}
}
