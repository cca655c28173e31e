package proxy

import (
	"math"
	"sync/atomic"

	"github.com/emerald-platform/emerald/batteries/gateway/internal/model"
	"github.com/emerald-platform/emerald/batteries/gateway/internal/routing"
	"github.com/emerald-platform/emerald/batteries/gateway/internal/upstream"
)

// portRoutes is what one port serves. It is immutable but for counters.
type portRoutes struct {
	gateway      string
	number       uint16
	secure       bool
	table        *routing.Table[*action]
	certificates *certificates
	latency      *latency
	// unrouted counts requests that no rule answered.
	unrouted *routeStats
}

// action is what a match leads to.
type action struct {
	rule   *rule
	prefix string
}

// rule is a rule with its live backends.
type rule struct {
	*model.Rule
	cors    *cors
	targets []target
	total   uint64
	turn    atomic.Uint32
	mirrors []mirror
	stats   *routeStats // of answers without a backend
}

// target is a backend of a rule.
type target struct {
	*model.Backend
	live    *upstream.Backend
	upTo    uint64 // the sum of the weights up to this one
	mirrors []mirror
	stats   *routeStats
}

// mirror is a backend that gets copies.
type mirror struct {
	model.Mirror
	live *upstream.Backend
	turn *atomic.Uint32
}

// choose returns the backend for the next request, or nil when there is none.
// Backends take turns so that even a few requests are split by weight.
func (r *rule) choose() *target {
	switch len(r.targets) {
	case 0:
		return nil
	case 1:
		return &r.targets[0]
	}
	share := spread(r.turn.Add(1), r.total)
	for i := range r.targets {
		if share < r.targets[i].upTo {
			return &r.targets[i]
		}
	}
	return &r.targets[len(r.targets)-1]
}

// spread maps successive numbers to values below total such that any run of
// them is spread evenly (a Weyl sequence with the golden ratio).
func spread(n uint32, total uint64) uint64 {
	return uint64(n*2654435769) * total >> 32
}

// compiler makes a configuration live.
type compiler struct {
	live    map[model.BackendID]*upstream.Backend
	metrics *Metrics
	rules   map[ruleKey]*rule
}

// ruleKey tells the uses of one rule by several gateways apart.
type ruleKey struct {
	gateway string
	rule    *model.Rule
}

func newCompiler(live map[model.BackendID]*upstream.Backend, m *Metrics) *compiler {
	return &compiler{live: live, metrics: m, rules: map[ruleKey]*rule{}}
}

func (c *compiler) port(p *model.Port) (*portRoutes, error) {
	listeners := make([]routing.Listener[*action], 0, len(p.Listeners))
	for _, l := range p.Listeners {
		rules := make([]routing.Rule[*action], 0, len(l.Rules))
		for _, r := range l.Rules {
			rules = append(rules, routing.Rule[*action]{
				Hostname: r.Hostname, Match: r.Match, Age: r.Age,
				Action: &action{rule: c.rule(p.Gateway, r.Action.Rule), prefix: r.Action.Prefix},
			})
		}
		listeners = append(listeners, routing.Listener[*action]{Hostname: l.Hostname, Rules: rules})
	}
	table, err := routing.Compile(listeners)
	if err != nil {
		return nil, err
	}
	out := &portRoutes{
		gateway: p.Gateway, number: p.Number, secure: p.TLS, table: table,
		latency:  c.metrics.latencyOf(p.Gateway),
		unrouted: c.metrics.statsOf(p.Gateway, "", ""),
	}
	if p.TLS {
		out.certificates = newCertificates(p.Listeners)
	}
	return out, nil
}

func (c *compiler) rule(gateway string, m *model.Rule) *rule {
	if r := c.rules[ruleKey{gateway, m}]; r != nil {
		return r
	}
	r := &rule{
		Rule: m, cors: compileCORS(m.Filters.CORS), mirrors: c.mirrors(m.Filters.Mirrors),
		stats: c.metrics.statsOf(gateway, m.Route, ""),
	}
	for i := range m.Backends {
		b := &m.Backends[i]
		r.total += uint64(b.Weight)
		r.targets = append(r.targets, target{
			Backend: b, live: c.live[b.ID], upTo: r.total, mirrors: c.mirrors(b.Mirrors),
			stats: c.metrics.statsOf(gateway, m.Route, b.ID.Namespace+"/"+b.ID.Service),
		})
	}
	if r.total > math.MaxUint32 {
		// Weights sum to at most 16 × 1,000,000; see HTTPBackendRef.
		r.total = math.MaxUint32
	}
	c.rules[ruleKey{gateway, m}] = r
	return r
}

func (c *compiler) mirrors(list []model.Mirror) []mirror {
	var out []mirror
	for _, m := range list {
		if live := c.live[m.ID]; live != nil {
			out = append(out, mirror{Mirror: m, live: live, turn: new(atomic.Uint32)})
		}
	}
	return out
}
