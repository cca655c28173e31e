package proxy

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"sync/atomic"
	"time"
)

// AccessLog writes a JSON line per request. Requests never wait for it: when
// the writer falls behind, records are dropped and counted.
type AccessLog struct {
	mode    AccessMode
	sample  uint32
	turn    atomic.Uint32
	dropped atomic.Uint64
	records chan accessRecord
	out     io.Writer
}

// AccessMode says which requests are logged.
type AccessMode uint8

// The modes of an access log.
const (
	// AccessErrors logs requests that the gateway itself failed, and those a
	// backend answered with 5xx.
	AccessErrors AccessMode = iota
	// AccessSampled logs errors and one in so many of the others.
	AccessSampled
	// AccessAll logs every request.
	AccessAll
)

// NewAccessLog returns an access log that writes to out once a Server runs it.
// Sample is used by AccessSampled.
func NewAccessLog(mode AccessMode, sample uint32, out io.Writer) *AccessLog {
	return &AccessLog{mode: mode, sample: max(sample, 1), records: make(chan accessRecord, 4096), out: out}
}

// accessRecord is what is known of an exchange at its end.
type accessRecord struct {
	at                             time.Time
	duration                       time.Duration
	gateway, route, endpoint       string
	proto, method, host, path      string
	remote, agent, problem, scheme string
	status, attempts               int
	sent, received                 int64
}

// wants tells whether a request is to be logged.
func (l *AccessLog) wants(status int, problem string) bool {
	if l.mode == AccessAll || status >= 500 || problem != "" && status != 404 {
		return true
	}
	return l.mode == AccessSampled && l.turn.Add(1)%l.sample == 0
}

func (l *AccessLog) add(r accessRecord) {
	select {
	case l.records <- r:
	default:
		l.dropped.Add(1)
	}
}

// run writes records until ctx ends, and then those that are left.
func (l *AccessLog) run(ctx context.Context) error {
	w := bufio.NewWriterSize(l.out, 64<<10)
	log := slog.New(slog.NewJSONHandler(w, nil))
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case r := <-l.records:
			write(ctx, log, r)
			continue
		default:
		}
		// What standard output does not take is lost; there is nobody to tell.
		_ = w.Flush()
		select {
		case r := <-l.records:
			write(ctx, log, r)
		case <-tick.C:
			if n := l.dropped.Swap(0); n > 0 {
				log.WarnContext(ctx, "access log fell behind", "dropped", n)
			}
		case <-ctx.Done():
			if len(l.records) == 0 {
				return nil
			}
		}
	}
}

func write(ctx context.Context, log *slog.Logger, r accessRecord) {
	attrs := []slog.Attr{
		slog.Time("start", r.at), slog.String("gateway", r.gateway), slog.String("route", r.route),
		slog.String("remote", r.remote), slog.String("proto", r.proto), slog.String("scheme", r.scheme), slog.String("method", r.method),
		slog.String("host", r.host), slog.String("path", r.path), slog.String("agent", r.agent),
		slog.Int("status", r.status), slog.Int64("sent", r.sent), slog.Int64("received", r.received),
		slog.Float64("seconds", r.duration.Seconds()), slog.String("endpoint", r.endpoint), slog.Int("attempts", r.attempts),
	}
	if r.problem != "" {
		attrs = append(attrs, slog.String("problem", r.problem))
	}
	log.LogAttrs(ctx, slog.LevelInfo, "request", attrs...)
}

// record counts the exchange and logs it.
func (x *exchange) record() {
	if x.status == 0 {
		x.status = 499 // the client left before there was a response
	}
	now := time.Now()
	stats := x.routes.unrouted
	switch {
	case x.target != nil:
		stats = x.target.stats
	case x.action != nil:
		stats = x.action.rule.stats
	}
	stats.count(x.status)
	x.routes.latency.observe(now.Sub(x.start))
	l := x.port.server.opts.AccessLog
	if l == nil || !l.wants(x.status, x.problem) {
		return
	}
	r := accessRecord{
		at: x.start, duration: now.Sub(x.start), gateway: x.routes.gateway, endpoint: x.endpoint,
		proto: x.proto, method: x.request.Method, host: x.authority, path: x.request.Path,
		remote: x.remote, agent: field(x.request.Fields, "user-agent"), problem: x.problem, scheme: "http",
		status: x.status, attempts: x.attempts, sent: x.sent, received: max(x.length, 0),
	}
	if x.secure {
		r.scheme = "https"
	}
	if x.action != nil {
		r.route = x.action.rule.Route
	}
	l.add(r)
}
