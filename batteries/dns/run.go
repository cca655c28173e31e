package dns

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/hosts"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/loadbalance"
	_ "github.com/coredns/coredns/plugin/loop"
	_ "github.com/coredns/coredns/plugin/metrics"
	"github.com/coredns/coredns/plugin/metrics/vars"
	_ "github.com/coredns/coredns/plugin/rewrite"
	_ "github.com/coredns/coredns/plugin/template"
	mdns "github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/emerald-platform/emerald/battery"
	"github.com/emerald-platform/emerald/kit/kubeconfig"
)

// How long a server that must go still answers: until nobody has asked for a
// second, since the rest of the cluster needs a moment to learn of it, and
// another needs one to take its place; at least and at most this long.
const (
	quiet    = time.Second
	drainMin = 3 * time.Second
	drainMax = 10 * time.Second
)

// beginTimeout bounds the wait for a server that was started to serve.
const beginTimeout = 5 * time.Second

// run serves names until ctx ends; see [battery.Battery].
func run(ctx context.Context, s battery.Site) error {
	cfg := s.Config.(Config)
	if err := check(s, cfg); err != nil {
		return fmt.Errorf("settings of battery \"dns\": %w", err)
	}
	found, err := newResolvers(s.Kube, ResolvConf, others(s.DNSAddress, os.Getenv("POD_IP")))
	if err != nil {
		return err
	}
	// By itself CoreDNS would find the pod's token, but not what waits for the
	// API server while it restarts: its names would stay old for up to a minute.
	file := filepath.Join(os.TempDir(), "kubeconfig")
	if err := kubeconfig.Write(file, s.Kube); err != nil {
		return err
	}
	log.SetFlags(0)
	log.SetOutput(logLines{s.Log})
	srv := server{
		site: s, config: cfg, drain: true,
		place: place{port: serverPort, metrics: metricsAddress, kubeconfig: file},
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { found.run(ctx); return nil })
	g.Go(func() error { return srv.serve(ctx, found) })
	g.Go(func() error {
		if answering(ctx, serverPort, s.ClusterDomain) {
			s.Ready()
		}
		return nil
	})
	return g.Wait()
}

// server is one CoreDNS and what it is configured from.
type server struct {
	site   battery.Site
	config Config
	place  place
	drain  bool
}

// serve answers until ctx ends, changing over to other resolvers, without
// refusing a query, whenever the machine's change.
func (s *server) serve(ctx context.Context, found *resolvers) error {
	if !found.synced(ctx) {
		return nil
	}
	if err := dnsserver.SetDirectives(directives); err != nil {
		return fmt.Errorf("select the parts of CoreDNS: %w", err)
	}
	dnsserver.Quiet = true
	s.place.upstreams = s.upstreams(found)
	s.site.Log.Info("starting", "upstreams", s.place.upstreams)
	if len(s.place.upstreams) == 0 {
		s.site.Log.Warn("the machine names no resolver that pods can reach: names outside fail until it does, or dns.upstreams is set")
	}
	instance, err := caddy.Start(s.input())
	if err != nil {
		return fmt.Errorf("start CoreDNS: %w", err)
	}
	s.awaitBegun()
	for {
		select {
		case <-ctx.Done():
			return s.stop(instance)
		case <-found.changed:
		}
		now := s.upstreams(found)
		if slices.Equal(now, s.place.upstreams) {
			continue
		}
		s.site.Log.Info("changing resolvers", "from", s.place.upstreams, "to", now)
		before := s.place.upstreams
		s.place.upstreams = now
		next, err := instance.Restart(s.input())
		if err != nil {
			// The old one goes on serving.
			s.site.Log.Error("change resolvers", "error", err)
			s.place.upstreams = before
			continue
		}
		instance = next
		s.awaitBegun()
	}
}

// awaitBegun returns when CoreDNS, which was started a moment ago, reads what is
// sent to it. One that is told to stop before is never stopped, and waited for
// without end.
func (s *server) awaitBegun() {
	// Not until the end of the caller's context: that is when it is stopped.
	ctx, cancel := context.WithTimeout(context.Background(), beginTimeout)
	defer cancel()
	query := new(mdns.Msg).SetQuestion("kubernetes.default.svc."+s.site.ClusterDomain+".", mdns.TypeA)
	for _, network := range []string{"udp", "tcp"} {
		client := mdns.Client{Net: network, Timeout: beginTimeout}
		if _, _, err := client.ExchangeContext(ctx, query, net.JoinHostPort("127.0.0.1", strconv.Itoa(s.place.port))); err != nil {
			s.site.Log.Warn("the server does not answer yet", "network", network, "error", err)
		}
	}
}

// upstreams returns the resolvers for names outside: the user's choice, else the
// machine's.
func (s *server) upstreams(found *resolvers) []string {
	if len(s.config.Upstreams) > 0 {
		return s.config.Upstreams
	}
	return found.list()
}

func (s *server) input() caddy.Input {
	return caddy.CaddyfileInput{
		Filepath:       "Corefile",
		Contents:       corefile(s.site, s.config, s.place),
		ServerTypeName: "dns",
	}
}

// stop answers until nobody asks any more and nobody can, then ends the server
// and all it started.
func (s *server) stop(instance *caddy.Instance) error {
	if s.drain {
		awaitQuiet()
		// A question can still come, though none has for a while: what is sent
		// from one port goes to one server for as long as that one serves, and
		// ports are used again.
		s.site.Leave()
		<-time.After(battery.LeaveTime)
	}
	err := instance.Stop()
	err = errors.Join(append(instance.ShutdownCallbacks(), err)...)
	instance.Wait()
	if err != nil {
		return fmt.Errorf("stop CoreDNS: %w", err)
	}
	return nil
}

// awaitQuiet returns when nobody asks this server any more.
func awaitQuiet() {
	began, before := time.Now(), questions()
	tick := time.NewTicker(quiet)
	defer tick.Stop()
	for range tick.C {
		now := questions()
		if took := time.Since(began); took >= drainMax || took >= drainMin && now == before {
			return
		}
		before = now
	}
}

// questions returns how many questions CoreDNS has been asked in this process.
func questions() float64 {
	var sum float64
	reg := prometheus.NewPedanticRegistry()
	if err := reg.Register(vars.RequestCount); err != nil {
		return 0
	}
	families, err := reg.Gather()
	if err != nil {
		return 0
	}
	for _, f := range families {
		for _, m := range f.Metric {
			sum += m.GetCounter().GetValue()
		}
	}
	return sum
}

// answering blocks until the server on this machine's port knows the cluster:
// until it answers for the one service that every cluster has. It returns false
// when ctx ended before.
func answering(ctx context.Context, port int, clusterDomain string) bool {
	query := new(mdns.Msg).SetQuestion("kubernetes.default.svc."+clusterDomain+".", mdns.TypeA)
	client := mdns.Client{Timeout: time.Second}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		in, _, err := client.ExchangeContext(ctx, query, net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil && in.Rcode == mdns.RcodeSuccess && len(in.Answer) > 0 {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
}

// logLines passes on the lines that CoreDNS writes to the standard logger, each
// beginning with its level in brackets.
type logLines struct{ log *slog.Logger }

func (l logLines) Write(p []byte) (int, error) {
	level, message := slog.LevelInfo, strings.TrimSpace(string(p))
	for prefix, lv := range map[string]slog.Level{
		"[DEBUG] ": slog.LevelDebug, "[INFO] ": slog.LevelInfo, "[WARNING] ": slog.LevelWarn,
		"[ERROR] ": slog.LevelError, "[FATAL] ": slog.LevelError,
	} {
		if rest, ok := strings.CutPrefix(message, prefix); ok {
			level, message = lv, rest
			break
		}
	}
	l.log.Log(context.Background(), level, "coredns", "line", message)
	return len(p), nil
}
