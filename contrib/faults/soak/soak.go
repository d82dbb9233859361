package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

type options struct {
	length      time.Duration // of the load
	rate        int           // requests a second
	every       time.Duration // time between two faults of a server
	bound       time.Duration // see promises
	ttl         time.Duration // of the caches
	judgeMemory bool
}

const rejectedTTL = 5 * time.Second // of the caches

// A soaker runs the soak. It sends the load, changes keys, breaks servers, and checks
// the answers.
type soaker struct {
	options  options
	servers  servers
	store    *sqlkeys.Store
	fleet    []*process
	client   *http.Client
	keys     *keyring
	promises promises
	redis    outages
	counts   counts
	tasks    sync.WaitGroup // everything that sends requests
	start    time.Time
	faults   []fault
	samples  [instances][]sample
	idle     int // goroutines of an instance that serves nobody

	mu     sync.Mutex
	ledger *ledger
	states [instances]state
	polled time.Time // when all states were known
}

// run runs the soak. An error means that it could not run, not that an answer was wrong.
func run(ctx context.Context, o options, servers servers) (_ *report, err error) {
	s := &soaker{options: o, servers: servers}
	s.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1000, IdleConnTimeout: 5 * time.Second}, Timeout: time.Minute}
	s.promises = promises{bound: o.bound, ttl: o.ttl, rejectedTTL: rejectedTTL, postgres: new(outages), stalls: new(outages)}
	closeStore, err := s.openStore(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, closeStore()) }()
	defer func() {
		if err != nil {
			for _, p := range s.fleet {
				p.kill()
			}
		}
	}()
	for range instances {
		p, err := startProcess(settings{Postgres: servers.postgresURL, Redis: servers.redis.Addr(), Instances: instances, TTL: o.ttl, RejectedTTL: rejectedTTL})
		if err != nil {
			return nil, err
		}
		s.fleet = append(s.fleet, p)
	}
	s.warm(ctx)
	s.start = time.Now()
	s.ledger = newLedger(s.start, s.keys.senders)
	if err := s.work(ctx); err != nil {
		return nil, err
	}
	return s.finish(ctx)
}

// warm sends some requests with a bad key, so that the instances open their connections.
func (s *soaker) warm(ctx context.Context) {
	var all sync.WaitGroup
	for n := range 30 {
		all.Go(func() {
			q := s.keys.next()
			q.credentials.APIKey = uuid.NewString()
			q.instance = n % instances
			q.send(ctx, s.client, s.fleet[q.instance])
		})
	}
	all.Wait()
	s.client.CloseIdleConnections()
	for range 20 { // the ends of connections take their time
		s.idle = s.goroutines(ctx)
		sleep(ctx, 20*time.Millisecond)
	}
}

// goroutines returns the most that an instance has.
func (s *soaker) goroutines(ctx context.Context) (n int) {
	for _, state := range s.poll(ctx) {
		n = max(n, state.Goroutines)
	}
	return n
}

// openStore makes the senders, with two keys each.
func (s *soaker) openStore(ctx context.Context) (closeStore func() error, err error) {
	db, err := sqlkeys.OpenDB(s.servers.postgresURL)
	if err != nil {
		return nil, err
	}
	s.store, err = sqlkeys.Open(ctx, db, sqlkeys.Config{Migrate: true})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	closeStore = func() error { return errors.Join(s.store.Close(), db.Close()) }
	s.keys = &keyring{living: map[string][]*key{}}
	for range senders {
		sender, err := s.store.CreateSender(ctx, sqlkeys.NewSender{})
		if err != nil {
			return nil, errors.Join(err, closeStore())
		}
		s.keys.senders = append(s.keys.senders, sender.ID)
		for range 2 {
			if err := s.issue(ctx, sender.ID, 0); err != nil {
				return nil, errors.Join(err, closeStore())
			}
		}
	}
	return closeStore, nil
}

// work sends the load, changes keys, injects faults and measures, all at once, until the
// load has ended.
func (s *soaker) work(parent context.Context) error {
	ctx, cancel := context.WithTimeout(parent, s.options.length)
	defer cancel()
	var mu sync.Mutex
	var errs []error
	var parts sync.WaitGroup
	part := func(what string, f func(ctx context.Context) error) {
		parts.Go(func() {
			err := f(ctx)
			if err == nil || errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
				return
			}
			cancel()
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, fmt.Errorf("%s: %w", what, err))
		})
	}
	part("load", s.load)
	part("faults", s.schedule)
	part("measure", s.measure)
	part("check", s.check)
	part("stalls", s.noteStalls)
	for range changers {
		part("change keys", s.changeKeys)
	}
	parts.Wait()
	s.tasks.Wait()
	return errors.Join(append(errs, parent.Err())...)
}

// changers change keys at once.
const changers = 16

// changeKeys changes one key after the other. All changers together make one change for
// each hundred requests.
func (s *soaker) changeKeys(ctx context.Context) error {
	every := time.Duration(changers) * 100 * time.Second / time.Duration(s.options.rate)
	for ctx.Err() == nil {
		begun := time.Now()
		if err := s.change(ctx); err != nil {
			return err
		}
		sleep(ctx, every-time.Since(begun))
	}
	return nil
}

// load sends requests at an even rate, whether or not earlier ones have been answered.
func (s *soaker) load(ctx context.Context) error {
	for n := 0; ; n++ {
		sleep(ctx, time.Until(s.start.Add(time.Duration(n)*time.Second/time.Duration(s.options.rate))))
		if ctx.Err() != nil {
			return nil
		}
		q := s.keys.next()
		s.tasks.Go(func() { s.ask(context.WithoutCancel(ctx), q) })
	}
}

// ask sends a request and judges the answer.
func (s *soaker) ask(ctx context.Context, q request) answer {
	a := q.send(context.WithoutCancel(ctx), s.client, s.fleet[q.instance])
	s.counts.add(a)
	if a.judge(s.promises) != "" {
		time.Sleep(time.Second) // a stall is known when it is over
		if why := a.judge(s.promises); why != "" {
			s.counts.wrongly(a, why)
		}
	}
	if a.status == http.StatusOK || a.status == http.StatusTooManyRequests {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.ledger.charges = append(s.ledger.charges, charge{answer: a, sender: a.credentials.SenderID, limits: paths[a.path].charges})
	}
	return a
}

// noteStalls notes when other programs keep this one from running, and so the instances.
func (s *soaker) noteStalls(ctx context.Context) error {
	for ctx.Err() == nil {
		before := time.Now()
		sleep(ctx, 20*time.Millisecond)
		if now := time.Now(); now.Sub(before) > 500*time.Millisecond {
			s.promises.stalls.add(span{before, now})
		}
	}
	return nil
}

// lose notes that Redis has lost its data.
func (s *soaker) lose() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ledger.losses = append(s.ledger.losses, time.Now())
}

// poll asks all instances for their state.
func (s *soaker) poll(ctx context.Context) [instances]state {
	at := time.Now()
	var states [instances]state
	for i, p := range s.fleet {
		var err error
		if states[i], err = p.state(ctx, s.client, false); err != nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.states
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if at.After(s.polled) {
		s.states, s.polled = states, at
	}
	return states
}

// check checks the quotas of the answers that came some seconds ago: what happened to the
// instances until then is known.
func (s *soaker) check(ctx context.Context) error {
	for ctx.Err() == nil {
		sleep(ctx, time.Second)
		s.poll(ctx)
		s.settle(5 * time.Second)
	}
	return nil
}

// settle checks the quotas of all answers that came before the last poll, by some time.
func (s *soaker) settle(before time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.redis.mu.Lock()
	spans := slices.Clone(s.redis.spans)
	s.redis.mu.Unlock()
	for _, state := range s.states {
		spans = append(spans, state.Trouble...)
	}
	s.ledger.trouble = union(spans)
	if until := s.polled.Add(-before); until.After(s.ledger.checked) {
		s.ledger.check(until, s.counts.wrongly)
	}
}

// finish ends the instances and checks what is left to check.
func (s *soaker) finish(ctx context.Context) (*report, error) {
	s.client.CloseIdleConnections()
	r := &report{options: s.options, faults: s.faults, stalls: s.promises.stalls.spans, samples: s.samples, took: time.Since(s.start)}
	s.await(ctx, func() bool { r.goroutines = s.goroutines(ctx) - s.idle; return r.goroutines <= 0 })
	s.settle(0)
	s.client.CloseIdleConnections()
	for i, p := range s.fleet {
		last, err := p.end()
		if err != nil {
			return nil, fmt.Errorf("the end of instance %d: %w", i, err)
		}
		r.recorded.Written += last.Recorder.Written
		r.recorded.Dropped += last.Recorder.Dropped
		r.recorded.Failures += last.Recorder.Failures
	}
	for u, err := range s.store.Usage(ctx, sqlkeys.UsageFilter{}) {
		if err != nil {
			return nil, err
		}
		if u.Outcome == "admitted" || u.Outcome == "limited" {
			r.usage += int(u.Requests)
		}
	}
	r.counts = &s.counts
	return r, nil
}
