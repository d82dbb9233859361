package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
)

// A process is this program, started again in a role. It reads questions as lines of
// JSON and ends when its input ends.
type process struct {
	command *exec.Cmd
	in      io.WriteCloser
	encoder *json.Encoder
	decoder *json.Decoder
}

// anywhere lets the system choose the core of a process.
const anywhere = -1

// start starts the program with the flags of a role, pinned to a core unless core is
// anywhere.
func start(core int, flags ...string) (*process, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{command: exec.Command(program, flags...)}
	if core != anywhere {
		p.command = exec.Command("taskset", append([]string{"-c", strconv.Itoa(core), program}, flags...)...)
		p.command.Env = append(os.Environ(), "GOMAXPROCS=1")
	}
	p.command.Stderr = os.Stderr
	if p.in, err = p.command.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.encoder, p.decoder = json.NewEncoder(p.in), json.NewDecoder(out)
	return p, p.command.Start()
}

// ask sends a question and reads the answer.
func (p *process) ask(question, answer any) error {
	if err := p.encoder.Encode(question); err != nil {
		return err
	}
	return p.decoder.Decode(answer)
}

func (p *process) stop() {
	p.in.Close()
	p.command.Wait()
}

// answer reads questions from the standard input until it ends, and answers
// them on the standard output.
func answer[Q, A any](reply func(Q) (A, error)) error {
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var question Q
		if err := in.Decode(&question); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		a, err := reply(question)
		if err != nil {
			return err
		}
		if err := out.Encode(a); err != nil {
			return fmt.Errorf("answer: %w", err)
		}
	}
}

// tell writes the first line of a role, before any question.
func tell(v any) error { return json.NewEncoder(os.Stdout).Encode(v) }
