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
	"strings"
	"time"
)

// instances is how many processes serve.
const instances = 3

// A process is an instance as its parent sees it.
type process struct {
	cmd   *exec.Cmd
	stdin io.Closer
	out   *bufio.Reader
	addr  string
}

// startProcess starts another process of this program as an instance. It ends when its
// standard input does, so it does not outlive this one.
func startProcess(s settings) (*process, error) {
	given, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.Command(program)}
	p.cmd.Env = append(os.Environ(), instanceEnv+"="+string(given))
	p.cmd.Stderr = os.Stderr
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	p.out = bufio.NewReader(out)
	line, err := p.out.ReadString('\n')
	if err != nil {
		return nil, errors.Join(fmt.Errorf("an instance does not start: %w", err), p.kill())
	}
	p.addr = strings.TrimSpace(line)
	return p, nil
}

// end ends the process in good order and returns its last state.
func (p *process) end() (state, error) {
	timer := time.AfterFunc(time.Minute, func() { p.kill() })
	defer timer.Stop()
	var s state
	err := errors.Join(p.stdin.Close(), json.NewDecoder(p.out).Decode(&s))
	return s, errors.Join(err, p.cmd.Wait())
}

func (p *process) kill() error { return p.cmd.Process.Kill() }

// state asks the process for its state. After gc, Heap has no garbage.
func (p *process) state(ctx context.Context, c *http.Client, gc bool) (state, error) {
	url := "http://" + p.addr + "/state"
	if gc {
		url += "?gc"
	}
	var s state
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return s, err
	}
	res, err := c.Do(req)
	if err != nil {
		return s, err
	}
	defer res.Body.Close()
	return s, json.NewDecoder(res.Body).Decode(&s)
}

// rss returns the resident memory of the process in bytes.
func (p *process) rss() (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(b))
	if len(fields) < 2 {
		return 0, fmt.Errorf("statm: %q", b)
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize()), err
}
