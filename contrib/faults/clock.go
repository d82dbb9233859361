package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/senderauth/senderauth"
)

var clockScenarios = []scenario{
	{id: "F-32", name: "frozen processes", server: true, run: processesFreeze},
}

// Processes are frozen for longer than TTL, and a key is revoked meanwhile. They refuse it
// from the first request after they go on. The senders of other keys get their burst once,
// whether the limits are in memory, in Redis or leased from it.
func processesFreeze(e *env) {
	limit := senderauth.Limit{Requests: 30, Per: time.Second, Burst: 50}
	ttl, frozen := pick(e, time.Second, 30*time.Second), pick(e, 3*time.Second, 60*time.Second)
	p, r := e.postgres(), e.redis()
	keys := p.issue(e, 6, 1)
	cfg := config{Postgres: p.url(), Watch: true, TTL: ttl, Limit: limit}
	local := e.startProcess(cfg)
	// A busy machine must not send them to their fallback, which has a burst of its own.
	cfg.Redis, cfg.RedisTimeout, cfg.FailClosed = r.link.addr(), patience, true
	exact := e.startProcess(cfg)
	cfg.Lease = 100 * time.Millisecond
	leased := e.startProcess(cfg)
	fleet := []*process{local, exact, leased}
	ask := func(kind string) func(n int) request {
		return func(n int) request {
			k := 2 * (n % len(fleet))
			if kind == "revoked" {
				k++
			}
			return request{to: fleet[n%len(fleet)].instance, credentials: keys[k].Credentials, kind: kind}
		}
	}
	e.held("3 processes, bursts of 150 requests per sender before and after")
	e.judge(e.burst(3, ask("revoked")), wants(200))
	// Empty the buckets of the others.
	e.burst(450, ask("kept"))

	freeze(e, fleet, frozen, ask("kept"), func() {
		for n := range fleet {
			e.check(p.admin.Revoke(e, keys[2*n+1].Key.ID))
		}
	})
	resumed := time.Now()
	for _, i := range fleet {
		e.check(i.signal(syscall.SIGCONT))
	}
	e.judge(e.burst(30, ask("revoked")), wants(401))
	answers := e.burst(450, ask("kept"))
	allowed := limit.Burst + 1 + int(time.Since(resumed).Seconds()*float64(limit.Requests))
	e.judge(answers, func(a answer) string {
		if a.status != 200 && a.status != 429 {
			return "neither 200 nor 429"
		}
		return ""
	})
	for n, i := range fleet {
		admitted := len(only(answers, func(a answer) bool { return a.to == i.instance && a.status == 200 }))
		e.want(admitted <= allowed, "process %d admitted %d requests, more than %d", n, admitted, allowed)
		e.want(admitted > 0, "process %d admitted nothing", n)
		e.logf("process %d admitted %d of %d", n, admitted, allowed)
	}
}

// freeze stops processes for so long, makes a change meanwhile, and checks that none of
// them answered.
func freeze(e *env, fleet []*process, frozen time.Duration, ask func(n int) request, change func()) {
	for _, i := range fleet {
		e.check(i.signal(syscall.SIGSTOP))
	}
	begun := time.Now()
	change()
	silent := 0
	for n := range fleet {
		ctx, cancel := context.WithTimeout(e, 300*time.Millisecond)
		client := newClient()
		if a := send(ctx, client, ask(n)); a.err != nil && state(fleet[n].cmd.Process.Pid) == "T" {
			silent++
		}
		client.CloseIdleConnections()
		cancel()
	}
	e.sleep(frozen - time.Since(begun))
	e.want(silent == len(fleet), "only %d of %d processes were frozen", silent, len(fleet))
	e.injected(silent, "%d processes stopped for %v by SIGSTOP, a key of each revoked meanwhile", silent, frozen)
}

// state returns the state of a process as ps shows it: T is stopped.
func state(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return err.Error()
	}
	_, after, _ := strings.Cut(string(text), ") ")
	state, _, _ := strings.Cut(after, " ")
	return state
}
