package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/examples/internal/demo"
)

// instanceVariable makes this program run as an instance.
const instanceVariable = "SENDERAUTH_FLEET_INSTANCE"

// serveInstance serves as the other examples do, until standard input ends.
func serveInstance() {
	go func() {
		io.Copy(io.Discard, os.Stdin)
		syscall.Kill(os.Getpid(), syscall.SIGTERM)
	}()
	demo.Main("instance", func(guard *senderauth.Guard) http.Handler {
		return guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			sender, _ := senderauth.SenderFrom(r.Context())
			demo.Contacts(sender).ServeHTTP(w, r)
		}))
	})
}

// An instance is a process of the service, and what its clients saw.
type instance struct {
	name, addr string
	cmd        *exec.Cmd
	stdin      io.Closer
	log        *logbook
	seen       tally
}

// startInstance starts an instance and waits until it serves.
func startInstance(ctx context.Context, name, database, redis string) (*instance, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	i := &instance{name: name, log: newLogbook(), cmd: exec.Command(program, "-addr", "127.0.0.1:0", "-redis", redis, "-instances", strconv.Itoa(instances))}
	i.cmd.Env = append(os.Environ(), instanceVariable+"=1", "SENDERAUTH_DB="+database, "SENDERAUTH_PEPPERS=", "SENT_SENDER_ID=", "SENT_API_KEY=")
	// Ctrl-C is for the fleet, which stops the instances last.
	i.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if i.stdin, err = i.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stderr, err := i.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := i.cmd.Start(); err != nil {
		return nil, err
	}
	go i.log.read(stderr)
	if _, err := i.logged(ctx, "listening"); err != nil {
		return nil, errors.Join(err, i.stop())
	}
	i.addr = i.log.addr
	return i, nil
}

// stop lets the instance finish its requests.
func (i *instance) stop() error {
	i.stdin.Close()
	<-i.log.ended
	if err := i.cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w", i.name, err)
	}
	return nil
}

// logged waits until the instance has logged the message once more, and returns when.
func (i *instance) logged(ctx context.Context, message string) (time.Time, error) {
	at, err := i.log.next(ctx, message)
	if err != nil {
		err = fmt.Errorf("%s did not log %q: %w", i.name, message, err)
	}
	return at, err
}

// A logbook holds when an instance logged each message.
type logbook struct {
	ended chan struct{} // closed when the instance has closed its log

	mu    sync.Mutex
	more  chan struct{} // closed and replaced at each line
	lines map[string][]time.Time
	addr  string // where the instance listens
	last  string // the last line
}

func newLogbook() *logbook {
	return &logbook{ended: make(chan struct{}), more: make(chan struct{}), lines: map[string][]time.Time{}}
}

func (l *logbook) read(log io.Reader) {
	defer close(l.ended)
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		l.note(lines.Bytes())
	}
}

func (l *logbook) note(text []byte) {
	var line struct {
		Time      time.Time
		Msg, Addr string
	}
	json.Unmarshal(text, &line)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = string(text)
	l.lines[line.Msg] = append(l.lines[line.Msg], line.Time)
	if line.Msg == "listening" {
		l.addr = line.Addr
	}
	close(l.more)
	l.more = make(chan struct{})
}

// patience bounds how long something that happens in milliseconds is waited for.
const patience = 30 * time.Second

// next returns when the message was logged first, and forgets that line.
func (l *logbook) next(ctx context.Context, message string) (time.Time, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("waited %v", patience))
	defer cancel()
	for {
		at, more := l.take(message)
		if !at.IsZero() {
			return at, nil
		}
		select {
		case <-ctx.Done():
			return time.Time{}, context.Cause(ctx)
		case <-l.ended:
			l.mu.Lock()
			defer l.mu.Unlock()
			return time.Time{}, fmt.Errorf("it ended: %s", l.last)
		case <-more:
		}
	}
}

// take returns when the message was logged first, and forgets that line. If there is none,
// the channel tells when there are more lines.
func (l *logbook) take(message string) (time.Time, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := l.lines[message]
	if len(at) == 0 {
		return time.Time{}, l.more
	}
	l.lines[message] = at[1:]
	return at[0], nil
}
