// Package testservers runs the servers that tests of this repository need, as
// processes of the tests' own. They can be killed, paused and started again,
// and end with the tests, however those end.
//
// The package pgtest is PostgreSQL, redistest is Redis.
package testservers

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
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
	Log  string              // the file that gets what it writes
	User *syscall.Credential // nil: that of the tests
	End  string              // the name of the signal that ends it at once, as INT
}

// A Process is a server that runs.
type Process struct {
	cmd   *exec.Cmd
	pid   int
	stdin io.WriteCloser
}

// The shell waits for the name of a signal, and sends it to the server. It
// gets an empty one where the tests have ended in whatever way. A server that
// is paused gets the signal when it goes on.
const script = `end=$1 log=$2; shift 2
"$@" >"$log" 2>&1 & pid=$!
echo $pid
read -r signal
kill -s "${signal:-$end}" $pid
kill -s CONT $pid
wait $pid`

// Start does not wait until the server is ready.
func Start(c Command) (*Process, error) {
	p := &Process{cmd: exec.Command("sh", append([]string{"-c", script, "sh", c.End, c.Log}, c.Args...)...)}
	p.cmd.Dir = c.Dir
	if c.User != nil {
		p.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.User}
	}
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

// End sends the signal with this name, "" for that of [Command.End], and
// returns when the server has ended. How it ended does not matter.
func (p *Process) End(signal string) error {
	_, err := io.WriteString(p.stdin, signal+"\n")
	err = errors.Join(err, p.stdin.Close())
	var status *exec.ExitError
	if wait := p.cmd.Wait(); !errors.As(wait, &status) {
		err = errors.Join(err, wait)
	}
	return err
}

// FreePort returns a port that nobody listens on. It is below those that
// systems give to connections, so that it stays free.
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

// Missing ends a test whose server is not installed: it is not run, and in CI
// it fails.
func Missing(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(why)
	}
	t.Skip(why)
}
