package ginsender_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/gin-gonic/gin"
	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/ginsender"
)

func ExampleMiddleware() {
	keys, err := senderauth.Static(senderauth.Credentials{
		SenderID: "7a1de7b4-3a0e-4d6e-9c2b-0f7f5a1c0a11",
		APIKey:   "0b9d3c1e-6f52-4c8a-b1d7-2e4f6a8c0d01",
	})
	if err != nil {
		panic(err)
	}
	guard, err := senderauth.New(keys, senderauth.Config{Limits: map[string]senderauth.Limit{
		"default":  senderauth.PerMinute(200),
		"messages": senderauth.PerMinute(60),
	}})
	if err != nil {
		panic(err)
	}

	limits := func(r *http.Request) []string {
		switch r.Method + " " + r.Pattern { // the Pattern is c.FullPath()
		case "POST /v1/messages/:channel":
			return []string{"messages"}
		}
		return []string{"default"}
	}
	engine := gin.New()
	engine.Use(ginsender.Middleware(guard.ChargingBy(limits).Wrap))
	engine.POST("/v1/messages/:channel", func(c *gin.Context) {
		sender, _ := ginsender.Sender(c)
		c.String(http.StatusAccepted, "%s for %s", c.Param("channel"), sender.ID)
	})

	r := httptest.NewRequest("POST", "/v1/messages/sms", nil)
	w := httptest.NewRecorder()
	engine.ServeHTTP(w, r)
	fmt.Println(w.Code, w.Body)

	r.Header.Set("x-sender-id", "7a1de7b4-3a0e-4d6e-9c2b-0f7f5a1c0a11")
	r.Header.Set("x-api-key", "0b9d3c1e-6f52-4c8a-b1d7-2e4f6a8c0d01")
	w = httptest.NewRecorder()
	engine.ServeHTTP(w, r)
	fmt.Println(w.Code, w.Body, w.Header().Get("RateLimit-Policy"))

	// Output:
	// 401 {"status":401,"title":"Unauthorized","detail":"Header x-api-key not found","type":"about:blank"}
	// 202 sms for 7a1de7b4-3a0e-4d6e-9c2b-0f7f5a1c0a11 "messages";q=60;w=60
}

// A limit for each route: the guard of the engine only authenticates, so that a
// stranger gets 401 before 404, and the guard of a route charges.
func ExampleMiddleware_routes() {
	keys, err := senderauth.Static(senderauth.Credentials{
		SenderID: "7a1de7b4-3a0e-4d6e-9c2b-0f7f5a1c0a11",
		APIKey:   "0b9d3c1e-6f52-4c8a-b1d7-2e4f6a8c0d01",
	})
	if err != nil {
		panic(err)
	}
	guard, err := senderauth.New(keys, senderauth.Config{Limits: map[string]senderauth.Limit{
		"default":  senderauth.PerMinute(200),
		"messages": senderauth.PerMinute(60),
	}})
	if err != nil {
		panic(err)
	}

	engine := gin.New()
	engine.Use(ginsender.Middleware(guard.Charging().Wrap))
	done := func(c *gin.Context) { c.String(http.StatusOK, "%s", c.FullPath()) }
	engine.GET("/v1/contacts", ginsender.Middleware(guard.Wrap), done)
	engine.POST("/v1/messages", ginsender.Middleware(guard.Charging("messages").Wrap), done)

	for _, target := range []string{"GET /v1/contacts", "POST /v1/messages", "GET /v1/other"} {
		method, path, _ := strings.Cut(target, " ")
		r := httptest.NewRequest(method, path, nil)
		r.Header.Set("x-sender-id", "7a1de7b4-3a0e-4d6e-9c2b-0f7f5a1c0a11")
		r.Header.Set("x-api-key", "0b9d3c1e-6f52-4c8a-b1d7-2e4f6a8c0d01")
		w := httptest.NewRecorder()
		engine.ServeHTTP(w, r)
		fmt.Printf("%d %s [%s]\n", w.Code, w.Body, w.Header().Get("RateLimit-Policy"))
	}

	w := httptest.NewRecorder()
	engine.ServeHTTP(w, httptest.NewRequest("GET", "/v1/other", nil))
	fmt.Println(w.Code)

	// Output:
	// 200 /v1/contacts ["default";q=200;w=60]
	// 200 /v1/messages ["messages";q=60;w=60]
	// 404 404 page not found []
	// 401
}
