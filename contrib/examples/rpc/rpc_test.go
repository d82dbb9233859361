package rpc_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const (
	sender = "7a1de7b4-3a0e-4d6e-9c2b-0f7f5a1c0a11"
	key    = "0b9d3c1e-6f52-4c8a-b1d7-2e4f6a8c0d01"

	check = "/grpc.health.v1.Health/Check"
)

// connectService answers for the services that are named like their sender.
type connectService struct{}

func (connectService) Check(ctx context.Context, r *grpchealth.CheckRequest) (*grpchealth.CheckResponse, error) {
	if s, _ := senderauth.SenderFrom(ctx); s.ID != r.Service {
		return nil, connect.NewError(connect.CodeNotFound, nil)
	}
	return &grpchealth.CheckResponse{Status: grpchealth.StatusServing}, nil
}

// grpcService is the same for grpc-go.
type grpcService struct {
	healthpb.UnimplementedHealthServer
}

func (grpcService) Check(ctx context.Context, r *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	if s, _ := senderauth.SenderFrom(ctx); s.ID != r.Service {
		return nil, status.Error(codes.NotFound, "")
	}
	return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}, nil
}

// services are both servers of the same service.
func services() map[string]http.Handler {
	_, ofConnect := grpchealth.NewHandler(connectService{})
	ofGRPC := grpc.NewServer()
	healthpb.RegisterHealthServer(ofGRPC, grpcService{})
	return map[string]http.Handler{"connect": ofConnect, "grpc-go": ofGRPC}
}

// serve serves a service behind a guard, two requests an hour, and returns its address.
func serve(t *testing.T, service http.Handler) string {
	t.Helper()
	keys, err := senderauth.Static(senderauth.Credentials{SenderID: sender, APIKey: key})
	require.NoError(t, err)
	guard, err := senderauth.New(keys, senderauth.Config{
		Limits:       map[string]senderauth.Limit{"default": {Requests: 2, Per: time.Hour}},
		StripKey:     true,
		ServeProblem: serveProblem,
	})
	require.NoError(t, err)
	server := httptest.NewUnstartedServer(guard.Wrap(service))
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetHTTP1(true)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// A result is what a client learns from a call.
type result struct {
	code  codes.Code
	text  string
	retry time.Duration
}

func TestClientOfGRPC(t *testing.T) {
	for name, service := range services() {
		t.Run(name, func(t *testing.T) {
			conn, err := grpc.NewClient(serve(t, service), grpc.WithTransportCredentials(insecure.NewCredentials()))
			require.NoError(t, err)
			defer conn.Close()
			call := func(key string) result {
				ctx := metadata.AppendToOutgoingContext(t.Context(), "x-sender-id", sender, "x-api-key", key)
				_, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: sender})
				s := status.Convert(err)
				r := result{code: s.Code(), text: s.Message()}
				for _, d := range s.Details() {
					r.retry = d.(*errdetails.RetryInfo).RetryDelay.AsDuration()
				}
				return r
			}
			testCalls(t, call)
		})
	}
}

func TestClientOfConnect(t *testing.T) {
	plain := new(http.Protocols)
	plain.SetUnencryptedHTTP2(true)
	for name, options := range map[string][]connect.ClientOption{"connect": nil, "grpc": {connect.WithGRPC()}, "grpc-web": {connect.WithGRPCWeb()}} {
		t.Run(name, func(t *testing.T) {
			transport := &http.Transport{Protocols: plain}
			defer transport.CloseIdleConnections()
			client := connect.NewClient[healthpb.HealthCheckRequest, healthpb.HealthCheckResponse](
				&http.Client{Transport: transport}, "http://"+serve(t, services()["connect"])+check, options...)
			call := func(key string) result {
				r := connect.NewRequest(&healthpb.HealthCheckRequest{Service: sender})
				r.Header().Set("X-Sender-Id", sender)
				r.Header().Set("X-Api-Key", key)
				_, err := client.CallUnary(t.Context(), r)
				if err == nil {
					return result{}
				}
				var e *connect.Error
				require.ErrorAs(t, err, &e)
				got := result{code: codes.Code(e.Code()), text: e.Message()}
				for _, d := range e.Details() {
					v, err := d.Value()
					require.NoError(t, err)
					got.retry = v.(*errdetails.RetryInfo).RetryDelay.AsDuration()
				}
				return got
			}
			testCalls(t, call)
		})
	}
}

// testCalls makes calls until the limit is reached.
func testCalls(t *testing.T, call func(key string) result) {
	t.Helper()
	require.Equal(t, result{}, call(key))
	require.Equal(t, result{code: codes.Unauthenticated, text: "Invalid API credentials!"}, call("0b9d3c1e-6f52-4c8a-b1d7-000000000000"))
	require.Equal(t, result{}, call(key))
	limited := call(key)
	require.Equal(t, codes.ResourceExhausted, limited.code)
	require.Regexp(t, `^Rate limit exceeded\. Please retry after (1800|1799) seconds\.$`, limited.text)
	require.InDelta(t, 1800, limited.retry.Seconds(), 2)
}

func TestOtherClientsGetTheProblem(t *testing.T) {
	addr := serve(t, services()["connect"])
	res, err := http.Post("http://"+addr+"/", "text/plain", strings.NewReader(""))
	require.NoError(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.Equal(t, 401, res.StatusCode)
	require.Equal(t, "application/problem+json", res.Header.Get("Content-Type"))
	require.Equal(t, `{"status":401,"title":"Unauthorized","detail":"Header x-api-key not found","type":"about:blank"}`, string(body))
}
