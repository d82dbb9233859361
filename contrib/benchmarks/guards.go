package main

import (
	"context"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/labstack/echo/v5"
	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/echosender"
	"github.com/senderauth/senderauth/contrib/ginsender"
)

var (
	guardAll = &contender{
		id: "senderauth", name: "senderauth", kind: guard, limit: "token bucket",
		build: guardOf(senderauth.RateFieldsBoth),
	}
	guardX = &contender{
		id: "senderauth-x", name: "senderauth, `RateFieldsX`", kind: guard, limit: "token bucket",
		build: guardOf(senderauth.RateFieldsX),
	}
	guardNone = &contender{
		id: "senderauth-none", name: "senderauth, `RateFieldsNone`", kind: guard, limit: "token bucket",
		build: guardOf(senderauth.RateFieldsNone),
	}
	guardGin = &contender{
		id: "senderauth-gin", name: "senderauth in gin", kind: guard, limit: "token bucket",
		modules: []string{"github.com/gin-gonic/gin"},
		build: func(s site) (handlers, error) {
			g, err := newGuard(s, senderauth.RateFieldsBoth)
			if err != nil {
				return handlers{}, err
			}
			e := newGin()
			e.Use(ginsender.Middleware(g.Wrap))
			e.GET("/", func(c *gin.Context) {
				sender, _ := ginsender.Sender(c)
				s.visit(sender.ID)
			})
			return handlers{full: e}, nil
		},
	}
	guardEcho = &contender{
		id: "senderauth-echo", name: "senderauth in echo 5", kind: guard, limit: "token bucket",
		modules: []string{"github.com/labstack/echo/v5"},
		build: func(s site) (handlers, error) {
			g, err := newGuard(s, senderauth.RateFieldsBoth)
			if err != nil {
				return handlers{}, err
			}
			e := echo.New()
			e.Use(echosender.Middleware[echo.HandlerFunc](g.Wrap))
			e.GET("/", func(c *echo.Context) error {
				sender, _ := echosender.Sender(c)
				s.visit(sender.ID)
				return nil
			})
			return handlers{full: e}, nil
		},
	}
)

func guardOf(fields senderauth.RateFields) func(site) (handlers, error) {
	return func(s site) (handlers, error) {
		g, err := newGuard(s, fields)
		if err != nil {
			return handlers{}, err
		}
		next := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			sender, _ := senderauth.SenderFrom(r.Context())
			s.visit(sender.ID)
		})
		return handlers{full: g.Wrap(next), authenticate: g.Charging().Wrap(next)}, nil
	}
}

func newGuard(s site, fields senderauth.RateFields) (*senderauth.Guard, error) {
	cache, err := senderauth.NewCache(s.store, senderauth.CacheConfig{
		TTL: remembered, RejectedTTL: remembered, LookupTimeout: time.Minute, // long enough for a busy machine
	})
	if err != nil {
		return nil, err
	}
	return senderauth.New(cache, senderauth.Config{
		Limits:     map[string]senderauth.Limit{"default": {Requests: s.quota.requests, Per: s.quota.per, Burst: s.quota.requests}},
		RateFields: fields,
	})
}

// remembered is a TTL longer than a run. A contender gets no requests between its turns,
// so with a shorter TTL each turn would start with a lookup for every sender.
const remembered = 24 * time.Hour

// Validate makes the store a Validator.
func (s *keyStore) Validate(_ context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
	owner, ok := s.owner(c.APIKey)
	switch {
	case !ok:
		return senderauth.Sender{}, senderauth.ErrInvalidKey
	case owner != c.SenderID:
		return senderauth.Sender{}, senderauth.ErrKeyMismatch
	}
	return senderauth.Sender{ID: owner}, nil
}
