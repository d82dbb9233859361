package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// A process is an instance in a process of its own, which can be frozen and killed.
type process struct {
	*instance // only its url is set
	admin     string
	cmd       *exec.Cmd
	stdin     io.Closer
	client    *http.Client
}

// instanceVariable holds the config of a process that runs as an instance, as JSON.
const instanceVariable = "SENDERAUTH_FAULTS_INSTANCE"

// startProcess starts an instance in a process of its own: this program again.
func (e *env) startProcess(cfg config) *process {
	text, err := json.Marshal(cfg)
	e.check(err)
	p := &process{instance: &instance{}, cmd: exec.Command(os.Args[0]), client: newClient()}
	p.cmd.Env = append(os.Environ(), instanceVariable+"="+string(text))
	p.cmd.Stderr = os.Stderr
	p.stdin, err = p.cmd.StdinPipe()
	e.check(err)
	stdout, err := p.cmd.StdoutPipe()
	e.check(err)
	e.check(p.cmd.Start())
	e.cleanup(func() error {
		p.client.CloseIdleConnections()
		p.signal(syscall.SIGCONT)
		p.stdin.Close()
		return p.cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	e.check(err)
	_, err = fmt.Sscan(strings.TrimSpace(line), &p.url, &p.admin)
	e.check(err)
	return p
}

func (p *process) signal(s syscall.Signal) error { return p.cmd.Process.Signal(s) }

// stats is what a process uses after a garbage collection.
type stats struct {
	Memory          int64 // bytes that the runtime has mapped and not given back
	Goroutines      int
	Descriptors     int
	Lookups         uint64
	Purges, Forgets int64
}

// runAsInstance serves as the instance that instanceVariable describes until standard
// input ends, and reports whether there was one.
func runAsInstance() bool {
	text, ok := os.LookupEnv(instanceVariable)
	if !ok {
		return false
	}
	var cfg config
	if err := json.Unmarshal([]byte(text), &cfg); err != nil {
		log.Fatal(err)
	}
	i, err := newInstance(context.Background(), cfg)
	if err != nil {
		log.Fatal(err)
	}
	for cfg.Watch && i.feed.purges.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	admin, err := serveStats(i)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(i.url, admin)
	io.Copy(io.Discard, os.Stdin)
	if err := i.close(); err != nil {
		log.Fatal(err)
	}
	return true
}

func descriptors() int {
	open, _ := os.ReadDir("/proc/self/fd")
	return len(open)
}

func (i *instance) stats() stats {
	runtime.GC()
	return stats{
		Memory: memoryInUse(), Goroutines: runtime.NumGoroutine(), Descriptors: descriptors(), Lookups: i.cache.Stats().Lookups,
		Purges: i.feed.purges.Load(), Forgets: i.feed.forgets.Load(),
	}
}

// serveStats serves the stats of the instance on a port of its own.
func serveStats(i *instance) (url string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { json.NewEncoder(w).Encode(i.stats()) }))
	return "http://" + l.Addr().String(), nil
}
