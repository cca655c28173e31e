package node

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/emerald-platform/emerald/kit/durable"
)

// hostResolvers are where a host says whom it asks for names, best first: the
// second is systemd-resolved's own, for hosts whose first names only its stub.
var hostResolvers = []string{"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"}

// resolver keeps a resolv.conf(5) for pods: the host's, without the servers on
// the host's loopback, which a pod can't reach.
type resolver struct {
	sources []string
	path    string
}

// run follows changes of the host's file until ctx ends.
func (r *resolver) run(ctx context.Context, log *slog.Logger) error {
	tick := time.NewTicker(30 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := r.write(); err != nil {
				log.Error("resolvers of pods not updated", "error", err)
			}
		}
	}
}

// Resolvers returns what pods are told about the resolvers of the host now, in
// the format of resolv.conf(5); "" when the host has none that they can reach.
func Resolvers() string { return string((&resolver{sources: hostResolvers}).read()) }

func (r *resolver) read() []byte {
	var content []byte
	for _, source := range r.sources {
		data, err := os.ReadFile(source)
		if err != nil {
			continue
		}
		reachable, servers := podResolvers(string(data))
		if content == nil || servers > 0 {
			content = []byte(reachable)
		}
		if servers > 0 {
			break
		}
	}
	return content
}

func (r *resolver) write() error {
	content := r.read()
	if have, err := os.ReadFile(r.path); err == nil && bytes.Equal(have, content) {
		return nil
	}
	if err := durable.WriteFile(r.path, content, 0o644); err != nil {
		return fmt.Errorf("write the resolvers of pods: %w", err)
	}
	return nil
}

// podResolvers drops the loopback name servers of a resolv.conf and counts the
// others. Comments go too.
func podResolvers(content string) (string, int) {
	var out strings.Builder
	servers := 0
	for line := range strings.Lines(content) {
		fields := strings.Fields(line)
		if len(fields) < 2 || strings.HasPrefix(fields[0], "#") || strings.HasPrefix(fields[0], ";") {
			continue
		}
		if fields[0] == "nameserver" {
			addr, err := netip.ParseAddr(fields[1])
			if err != nil || addr.Unmap().IsLoopback() || addr.IsUnspecified() {
				continue
			}
			servers++
		}
		out.WriteString(strings.Join(fields, " ") + "\n")
	}
	return out.String(), servers
}
