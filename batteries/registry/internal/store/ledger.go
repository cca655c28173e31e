package store

import (
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
)

// ledger knows, in memory, which repository links which content. It answers
// what a namespace holds, and whether any link is left to some content.
type ledger struct {
	mu     sync.Mutex
	spaces map[string]*space     // by namespace
	links  map[digest.Digest]int // how many there are, by the sha256 digest of their content
}

// space is what one namespace holds.
type space struct {
	bytes int64
	links map[digest.Digest]int // as in ledger
	held  map[digest.Digest]*holding
}

// holding is one digest that repositories of a namespace link.
type holding struct {
	target  digest.Digest // sha256 digest of the same content
	size    int64
	holders []holder
}

// holder is one link.
type holder struct {
	repo string
	kind kind
}

func newLedger() *ledger {
	return &ledger{spaces: map[string]*space{}, links: map[digest.Digest]int{}}
}

// add notes a link. It may be noted before.
func (l *ledger) add(repo string, k kind, d, target digest.Digest, size int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ns := Namespace(repo)
	s := l.spaces[ns]
	if s == nil {
		s = &space{held: map[digest.Digest]*holding{}, links: map[digest.Digest]int{}}
		l.spaces[ns] = s
	}
	h := s.held[d]
	if h == nil {
		h = &holding{target: target, size: size}
		s.held[d] = h
	}
	if slices.Contains(h.holders, holder{repo, k}) {
		return
	}
	h.holders = append(h.holders, holder{repo, k})
	if s.links[target] == 0 {
		s.bytes += size
	}
	s.links[target]++
	l.links[target]++
}

// drop forgets a link.
func (l *ledger) drop(repo string, k kind, d digest.Digest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ns := Namespace(repo)
	s := l.spaces[ns]
	if s == nil || s.held[d] == nil {
		return
	}
	h := s.held[d]
	i := slices.Index(h.holders, holder{repo, k})
	if i < 0 {
		return
	}
	h.holders = slices.Delete(h.holders, i, i+1)
	if decrement(s.links, h.target) {
		s.bytes -= h.size
	}
	decrement(l.links, h.target)
	if len(h.holders) == 0 {
		delete(s.held, d)
	}
	if len(s.held) == 0 {
		delete(l.spaces, ns)
	}
}

// decrement takes one from a count, and tells whether that was the last.
func decrement(counts map[digest.Digest]int, d digest.Digest) bool {
	counts[d]--
	if counts[d] > 0 {
		return false
	}
	delete(counts, d)
	return true
}

// used returns the bytes that a namespace holds.
func (l *ledger) used(ns string) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.spaces[ns]; s != nil {
		return s.bytes
	}
	return 0
}

// source returns a repository of a namespace that links d as a blob, or "".
func (l *ledger) source(ns string, d digest.Digest) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.spaces[ns]
	if s == nil || s.held[d] == nil {
		return ""
	}
	for _, h := range s.held[d].holders {
		if h.kind == layer {
			return h.repo
		}
	}
	return ""
}

// linked tells whether any link is left to content stored by its sha256 digest.
func (l *ledger) linked(target digest.Digest) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.links[target] > 0
}

// total returns the bytes that each namespace holds.
func (l *ledger) total() map[string]int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make(map[string]int64, len(l.spaces))
	for ns, s := range l.spaces {
		out[ns] = s.bytes
	}
	return out
}
