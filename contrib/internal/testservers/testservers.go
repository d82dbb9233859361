// Package testservers runs servers for the tests of this repository. The tests can
// kill, pause and restart them. A server ends with the tests, however those end.
//
// The package pgtest runs PostgreSQL, redistest Redis.
package testservers

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// A Command is what [Start] runs.
type Command struct {
	Args []string
	Dir  string
	Log  string              // file for standard output and standard error
	User *syscall.Credential // nil means the user of the tests
	End  string              // name of the signal that ends it when the tests end, such as INT
}

// A Process is a running server.
type Process struct {
	cmd   *exec.Cmd
	pid   int
	stdin io.WriteCloser
}

// The shell reads the name of a signal and sends it to the server. If the tests end in
// any way, it reads an empty line and sends Command.End. CONT wakes a paused server, so
// that it handles the signal.
const script = `end=$1 log=$2; shift 2
"$@" >"$log" 2>&1 & pid=$!
echo $pid
read -r signal
kill -s "${signal:-$end}" $pid
kill -s CONT $pid
wait $pid`

// Start starts the server. It does not wait until the server is ready.
func Start(c Command) (*Process, error) {
	if testing.Testing() && !running.Load() {
		return nil, errNotRunning
	}
	p := &Process{cmd: exec.Command("sh", append([]string{"-c", script, "sh", c.End, c.Log}, c.Args...)...)}
	p.cmd.Dir = c.Dir
	// In a process group of its own, a server does not get the Ctrl-C that ends a program.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: c.User}
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err == nil {
		p.pid, err = strconv.Atoi(strings.TrimSpace(line))
	}
	if err != nil {
		p.stdin.Close()
		return nil, errors.Join(fmt.Errorf("start %s: %w", c.Args[0], err), p.cmd.Wait())
	}
	return p, nil
}

// Signal sends a signal to the server.
func (p *Process) Signal(s syscall.Signal) error { return syscall.Kill(p.pid, s) }

// End sends the signal with this name, or [Command.End] if signal is empty, and waits
// until the server has ended. The server's exit status is no error.
func (p *Process) End(signal string) error {
	_, err := io.WriteString(p.stdin, signal+"\n")
	err = errors.Join(err, p.stdin.Close())
	var status *exec.ExitError
	if wait := p.cmd.Wait(); !errors.As(wait, &status) {
		err = errors.Join(err, wait)
	}
	return err
}

// FreePort returns a TCP port on which nobody listens. It is below the ports that the
// system gives to outgoing connections, so none of those takes it.
func FreePort() (int, error) {
	var err error
	for range 100 {
		port := 20_000 + rand.N(12_000)
		var l net.Listener
		if l, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			return port, l.Close()
		}
	}
	return 0, err
}
