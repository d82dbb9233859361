package heap

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
	"github.com/stretchr/testify/require"
)

// A child is a service in a process of its own. What the test itself remembers of the
// keys is not in the child's heap.
type child struct {
	url   string
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   *bufio.Reader
}

// settings tell the child what to do.
type settings struct {
	Validator string // a key of validators
	Source    string // a database, or a file of credentials
	Dump      string // the file that the heap is written to
	Cache     bool
}

// childVariable holds the settings of a process that runs as a child, as JSON.
const childVariable = "SENDERAUTH_FAULTS_HEAP"

func TestMain(m *testing.M) {
	text, ok := os.LookupEnv(childVariable)
	if !ok {
		os.Exit(m.Run())
	}
	if err := serve([]byte(text)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func startChild(t *testing.T, s settings) *child {
	text, err := json.Marshal(s)
	require.NoError(t, err)
	c := &child{cmd: exec.Command(os.Args[0])}
	// The padding of a live object shows what was in its place before, unless the collector
	// overwrites what it frees.
	c.cmd.Env = append(os.Environ(), childVariable+"="+string(text), "GODEBUG=clobberfree=1")
	c.cmd.Stderr = os.Stderr
	c.stdin, err = c.cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := c.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, c.cmd.Start())
	t.Cleanup(func() {
		c.cmd.Process.Kill() // of one that has not ended
		c.cmd.Wait()
	})
	c.out = bufio.NewReader(stdout)
	c.url = c.line(t)
	return c
}

func (c *child) line(t *testing.T) string {
	line, err := c.out.ReadString('\n')
	require.NoError(t, err)
	return line[:len(line)-1]
}

// end lets the child dump its heap and end. It returns how many keys the child's cache
// held.
func (c *child) end(t *testing.T) (cached int) {
	require.NoError(t, c.stdin.Close())
	_, err := fmt.Sscan(c.line(t), &cached)
	require.NoError(t, err)
	require.NoError(t, c.cmd.Wait())
	return cached
}

// validators make the validator of a child.
var validators = map[string]func(source string) (senderauth.Validator, error){
	"sqlkeys": func(source string) (senderauth.Validator, error) {
		db, err := sqlkeys.OpenDB(source)
		if err != nil {
			return nil, err
		}
		return sqlkeys.Open(context.Background(), db, sqlkeys.Config{})
	},
	"Static": static,
	"ValidatorFunc": func(source string) (senderauth.Validator, error) {
		v, err := static(source)
		if err != nil {
			return nil, err
		}
		return senderauth.ValidatorFunc(func(ctx context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
			_, err := v.Validate(ctx, c)
			return senderauth.Sender{ID: c.SenderID}, err // the text of the request's header
		}), nil
	},
	"keeps map keys": func(source string) (senderauth.Validator, error) {
		return keep(source, func(s string) any { return s })
	},
	"keeps bytes": func(source string) (senderauth.Validator, error) { return keep(source, binary) },
	"keeps half of one": func(source string) (senderauth.Validator, error) {
		return keep(source, func(s string) any { return s[:18] })
	},
}

// static reads a pair from each line of a file.
func static(source string) (senderauth.Validator, error) {
	f, err := os.Open(source)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	buffer := make([]byte, 4096)
	defer clear(buffer)
	lines := bufio.NewScanner(f)
	lines.Buffer(buffer, len(buffer))
	var all []senderauth.Credentials
	for lines.Scan() {
		sender, key, _ := strings.Cut(lines.Text(), " ")
		all = append(all, senderauth.Credentials{SenderID: strings.Clone(sender), APIKey: strings.Clone(key)})
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	return senderauth.Static(all...)
}

// A keeper remembers something of each key, as no validator should.
type keeper struct {
	senderauth.Validator
	what func(key string) any
	kept chan any
}

func keep(source string, what func(string) any) (senderauth.Validator, error) {
	v, err := static(source)
	return &keeper{v, what, make(chan any, 2*keys)}, err
}

func (k *keeper) Validate(ctx context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
	k.kept <- k.what(string([]byte(c.APIKey)))
	return k.Validator.Validate(ctx, c)
}

// serve serves behind a guard until standard input ends. Then it closes all connections,
// collects garbage and dumps its heap.
func serve(text []byte) error {
	var s settings
	if err := json.Unmarshal(text, &s); err != nil {
		return err
	}
	v, err := validators[s.Validator](s.Source)
	if err != nil {
		return err
	}
	guarded, held := v, func() int { return 0 }
	if s.Cache {
		cache, err := senderauth.NewCache(v, senderauth.CacheConfig{TTL: time.Hour})
		if err != nil {
			return err
		}
		guarded, held = cache, func() int { return cache.Stats().Entries }
	}
	guard, err := senderauth.New(guarded, senderauth.Config{
		Limiter: senderauth.NewMemoryLimiter(senderauth.MemoryLimiterConfig{}),
		Limits:  map[string]senderauth.Limit{"default": senderauth.PerMinute(1000)},
		Observe: func(context.Context, senderauth.Event) {},
	})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Protocols: new(http.Protocols), Handler: guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	go server.Serve(l)
	fmt.Println("http://" + l.Addr().String())
	io.Copy(io.Discard, os.Stdin)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		return err
	}
	if err := dump(s.Dump); err != nil {
		return err
	}
	fmt.Println(held())
	runtime.KeepAlive(v)
	return nil
}

// dump writes the live objects of the heap to a file.
func dump(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	// net/http keeps the buffers of closed connections in pools. A sync.Pool drops what
	// two collections found unused.
	for range 3 {
		runtime.GC()
	}
	debug.WriteHeapDump(f.Fd())
	return errors.Join(f.Sync(), f.Close())
}
