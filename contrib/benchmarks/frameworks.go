package main

import (
	"net/http"
	"time"

	"github.com/gin-gonic/gin"
	echov4 "github.com/labstack/echo/v4"
	middlewarev4 "github.com/labstack/echo/v4/middleware"
	"github.com/labstack/echo/v5"
	"github.com/labstack/echo/v5/middleware"
	"github.com/ulule/limiter/v3"
	ululegin "github.com/ulule/limiter/v3/drivers/middleware/gin"
	"github.com/ulule/limiter/v3/drivers/store/memory"
	"golang.org/x/time/rate"
)

var echo4 = &contender{
	id: "echo4", name: "echo 4: KeyAuth + RateLimiter", kind: peer, limit: "token bucket",
	lacks:   "revocation, limits per sender, several limits, the sender outside of echo's context; one lock for all senders; 400 for a missing key",
	modules: []string{"github.com/labstack/echo/v4"},
	build: func(s site) (handlers, error) {
		e := echov4.New()
		e.Use(middlewarev4.KeyAuthWithConfig(middlewarev4.KeyAuthConfig{
			KeyLookup: "header:x-api-key",
			Validator: func(key string, c echov4.Context) (bool, error) {
				sender, ok := s.store.check(c.Request().Header.Get("X-Sender-Id"), key)
				c.Set("sender", sender)
				return ok, nil
			},
		}), middlewarev4.RateLimiterWithConfig(middlewarev4.RateLimiterConfig{
			IdentifierExtractor: func(c echov4.Context) (string, error) { return c.Get("sender").(string), nil },
			Store: middlewarev4.NewRateLimiterMemoryStoreWithConfig(middlewarev4.RateLimiterMemoryStoreConfig{
				Rate: rate.Limit(s.quota.perSecond()), Burst: s.quota.requests, ExpiresIn: remembered,
			}),
		}))
		e.GET("/", func(c echov4.Context) error {
			sender, _ := c.Get("sender").(string)
			s.visit(sender)
			return nil
		})
		return handlers{full: e}, nil
	},
}

var echo5 = &contender{
	id: "echo5", name: "echo 5: KeyAuth + RateLimiter", kind: peer, limit: "token bucket",
	lacks:   "revocation, limits per sender, several limits, the sender outside of echo's context; one lock for all senders",
	modules: []string{"github.com/labstack/echo/v5"},
	build: func(s site) (handlers, error) {
		e := echo.New()
		e.Use(middleware.KeyAuthWithConfig(middleware.KeyAuthConfig{
			KeyLookup: "header:x-api-key",
			Validator: func(c *echo.Context, key string, _ middleware.ExtractorSource) (bool, error) {
				sender, ok := s.store.check(c.Request().Header.Get("X-Sender-Id"), key)
				c.Set("sender", sender)
				return ok, nil
			},
		}), middleware.RateLimiterWithConfig(middleware.RateLimiterConfig{
			IdentifierExtractor: func(c *echo.Context) (string, error) { return c.Get("sender").(string), nil },
			Store: middleware.NewRateLimiterMemoryStoreWithConfig(middleware.RateLimiterMemoryStoreConfig{
				Rate: s.quota.perSecond(), Burst: s.quota.requests, ExpiresIn: remembered,
			}),
		}))
		e.GET("/", func(c *echo.Context) error {
			sender, _ := c.Get("sender").(string)
			s.visit(sender)
			return nil
		})
		return handlers{full: e}, nil
	},
}

func newGin() *gin.Engine {
	gin.SetMode(gin.ReleaseMode)
	return gin.New()
}

// ginUlule brings its own key check, because gin has none.
var ginUlule = &contender{
	id: "gin-ulule", name: "gin: key check + ulule/limiter", kind: peer, limit: "fixed window",
	lacks:   "revocation, limits per sender, several limits, the sender outside of gin's context",
	modules: []string{"github.com/gin-gonic/gin", "github.com/ulule/limiter/v3"},
	build: func(s site) (handlers, error) {
		// The memory store drops expired windows once a minute.
		store := memory.NewStoreWithOptions(limiter.StoreOptions{Prefix: limiter.DefaultPrefix, CleanUpInterval: time.Minute})
		rate := limiter.Rate{Period: s.quota.per, Limit: int64(s.quota.requests)}
		e := newGin()
		e.Use(func(c *gin.Context) {
			sender, ok := s.store.check(c.GetHeader("x-sender-id"), c.GetHeader("x-api-key"))
			if !ok {
				c.AbortWithStatusJSON(http.StatusUnauthorized, gin.H{"message": "invalid credentials"})
				return
			}
			c.Set("sender", sender)
		}, ululegin.NewMiddleware(limiter.New(store, rate), ululegin.WithKeyGetter(func(c *gin.Context) string {
			return c.GetString("sender")
		})))
		e.GET("/", func(c *gin.Context) { s.visit(c.GetString("sender")) })
		return handlers{full: e}, nil
	},
}
