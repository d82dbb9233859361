package sqlkeys

import (
	"errors"
	"fmt"
	"sync"
)

// feeds has the condition of each Watch that runs.
type feeds struct {
	mu  sync.Mutex
	all map[*feedState]struct{}
}

// A feedState is what is wrong with the feed of one Watch.
type feedState struct{ err error }

var errNotConnected = errors.New("it has yet to connect")

func (f *feeds) begin() *feedState {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.all == nil {
		f.all = make(map[*feedState]struct{})
	}
	s := &feedState{errNotConnected}
	f.all[s] = struct{}{}
	return s
}

func (f *feeds) end(s *feedState) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.all, s)
}

func (f *feeds) set(s *feedState, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s.err = err
}

// CheckFeed returns nil while every [Store.Watch] of this store follows the changes. It
// returns an error if none runs, and while one is not connected yet, has lost its connection
// or gets no notifications: a revoked key may then be accepted until the TTL of the cache
// ends. Use it in a readiness probe, with a threshold of several seconds, because Watch
// reconnects within a second after a short loss. CheckFeed asks no database and takes
// less than a microsecond. Do not show its error to clients: it may name the server.
func (s *Store) CheckFeed() error {
	s.feeds.mu.Lock()
	defer s.feeds.mu.Unlock()
	if len(s.feeds.all) == 0 {
		return errors.New("sqlkeys: the feed of changes: no Watch runs")
	}
	var errs []error
	for f := range s.feeds.all {
		if f.err != nil {
			errs = append(errs, fmt.Errorf("sqlkeys: the feed of changes is lost: %w", f.err))
		}
	}
	return errors.Join(errs...)
}
