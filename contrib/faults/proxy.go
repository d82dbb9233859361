package main

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// A proxy stands between instances and a server. It delays each direction, and can stall
// or cut the connections.
type proxy struct {
	to       string
	listener net.Listener
	delay    atomic.Int64 // nanoseconds, each way
	accepted atomic.Int64 // connections so far
	stalled  atomic.Int64 // bytes that a stall has held up so far
	pumps    sync.WaitGroup

	mu    sync.Mutex
	flow  *sync.Cond
	stall bool // bytes wait, and nobody is told
	conns map[*net.TCPConn]end
}

type end bool

const (
	clientEnd end = true
	serverEnd end = false
)

// proxy starts a proxy in front of addr that delays by the -delay of the program.
func (e *env) proxy(addr string) *proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	e.check(err)
	p := &proxy{to: addr, listener: l, conns: map[*net.TCPConn]end{}}
	p.flow = sync.NewCond(&p.mu)
	p.delay.Store(int64(e.delay))
	p.pumps.Go(p.accept)
	e.cleanup(func() error {
		err := l.Close()
		p.resume()
		p.cut()
		p.pumps.Wait()
		return err
	})
	return p
}

func (p *proxy) addr() string { return p.listener.Addr().String() }

func (p *proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.accepted.Add(1)
		p.pumps.Go(func() { p.serve(c.(*net.TCPConn)) })
	}
}

func (p *proxy) serve(client *net.TCPConn) {
	p.add(client, clientEnd)
	defer p.drop(client)
	c, err := net.Dial("tcp", p.to)
	if err != nil {
		return // the client sees a reset, as if the server did not listen
	}
	server := c.(*net.TCPConn)
	p.add(server, serverEnd)
	defer p.drop(server)
	var both sync.WaitGroup
	both.Go(func() { p.pump(server, client) })
	both.Go(func() { p.pump(client, server) })
	both.Wait()
}

// add registers a connection for cut.
func (p *proxy) add(c *net.TCPConn, which end) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns[c] = which
}

func (p *proxy) drop(c *net.TCPConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
	reset(c)
}

// A piece is what was read at once, and when it is due at the other side.
type piece struct {
	bytes []byte
	err   error // the end of the connection
	due   time.Time
}

// pump copies from one connection to the other until one of them ends. An orderly end is
// passed on, after the delay as well, and so is a reset.
func (p *proxy) pump(to, from *net.TCPConn) {
	pieces := make(chan piece, 1000)
	p.pumps.Go(func() { p.read(from, pieces) })
	for piece := range pieces {
		time.Sleep(time.Until(piece.due))
		p.wait(len(piece.bytes))
		if piece.err == nil {
			if _, err := to.Write(piece.bytes); err != nil {
				from.CloseRead()
			}
			continue
		}
		if errors.Is(piece.err, io.EOF) {
			to.CloseWrite()
		} else {
			reset(to)
		}
	}
}

func (p *proxy) read(from *net.TCPConn, pieces chan<- piece) {
	defer close(pieces)
	for {
		b := make([]byte, 16<<10)
		n, err := from.Read(b)
		due := time.Now().Add(time.Duration(p.delay.Load()))
		if n > 0 {
			pieces <- piece{bytes: b[:n], due: due}
		}
		if err != nil {
			pieces <- piece{err: err, due: due}
			return
		}
	}
}

func reset(c *net.TCPConn) {
	c.SetLinger(0)
	c.Close()
}

// wait returns when the connections are not stalled.
func (p *proxy) wait(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stall {
		p.stalled.Add(int64(n))
	}
	for p.stall {
		p.flow.Wait()
	}
}

// hold stalls all connections, and new ones: as if the network lost every packet.
func (p *proxy) hold() { p.set(func() { p.stall = true }) }

// resume ends a stall. What was held up arrives.
func (p *proxy) resume() { p.set(func() { p.stall = false }) }

func (p *proxy) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
	p.flow.Broadcast()
}

// cut resets all connections, and returns how many clients had.
func (p *proxy) cut() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	clients := 0
	for c, which := range p.conns {
		reset(c)
		if which == clientEnd {
			clients++
		}
	}
	return clients
}
