package apps

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/emerald-platform/emerald/api/v1alpha1"
)

// HostOf returns the host name an App has by itself: NAME.<domain> in the
// namespace "default", NAME.NAMESPACE.<domain> in every other. No two Apps ever
// share one, and no namespace can take another's.
func HostOf(name, namespace, domain string) string {
	if namespace == "default" {
		return name + "." + domain
	}
	return name + "." + namespace + "." + domain
}

// hostsOf returns every host name the App asks for, its own first, each once.
func hostsOf(app *v1alpha1.App, domain string) []string {
	hosts := []string{HostOf(app.Name, app.Namespace, domain)}
	for _, d := range app.Spec.Domains {
		if !slices.Contains(hosts, string(d)) {
			hosts = append(hosts, string(d))
		}
	}
	return hosts
}

// covered tells whether the Gateway's own listeners and certificate, which are
// for the platform's domain and one label below it (RFC 6125 section 6.4.3),
// serve the host.
func covered(host, domain string) bool {
	if host == domain {
		return true
	}
	label, ok := strings.CutSuffix(host, "."+domain)
	return ok && !strings.Contains(label, ".")
}

// forbidden returns why an App of the namespace may never have the host, or "".
// Below the platform's domain, two and more labels belong to the namespace named
// by the last of them, and reserved words to the platform.
func forbidden(host, namespace, domain string, reserved []string) string {
	below, ok := strings.CutSuffix(host, "."+domain)
	if !ok {
		return ""
	}
	labels := strings.Split(below, ".")
	last := labels[len(labels)-1]
	switch {
	case len(labels) == 1 && slices.Contains(reserved, last):
		return fmt.Sprintf("%s belongs to the platform: choose another name", host)
	case len(labels) > 1 && last != namespace:
		return fmt.Sprintf("%s belongs to the namespace %q: use a name below %s.%s, or deploy to that namespace",
			host, last, namespace, domain)
	}
	return ""
}

// holder is who has a host name: an App or an HTTPRoute made by hand. It is
// comparable.
type holder struct {
	kind      string // as it is written in a sentence: "app" or "route"
	namespace string
	name      string
}

// String names the holder in a message.
func (h holder) String() string { return fmt.Sprintf("%s %s/%s", h.kind, h.namespace, h.name) }

// conflict is a host name that an App asked for and cannot get.
type conflict struct {
	host string
	by   holder // the zero value when forbidden says why
	why  string
}

// message says what is wrong and what to do, in one line.
func (c conflict) message() string {
	if c.why != "" {
		return c.why
	}
	return fmt.Sprintf("%s is taken by %s: choose another name or domain, or remove it there first", c.host, c.by)
}

// claims knows which App holds which host name. A host belongs to the App that
// got it first and keeps asking for it; among Apps that wait for the same one,
// to the oldest. It is safe for concurrent use.
type claims struct {
	mu      sync.Mutex
	holders map[string]holder
}

// restore enters what the Apps' status says they hold, from before this process
// started. Where two claim the same, the older App has it.
func (c *claims) restore(apps []v1alpha1.App) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.holders = map[string]holder{}
	sorted := make([]*v1alpha1.App, 0, len(apps))
	for i := range apps {
		sorted = append(sorted, &apps[i])
	}
	slices.SortFunc(sorted, func(a, b *v1alpha1.App) int {
		if older(a, b) {
			return -1
		}
		return 1
	})
	for _, app := range sorted {
		for _, host := range app.Status.Hosts {
			if _, taken := c.holders[host]; !taken {
				c.holders[host] = holderOf(app)
			}
		}
	}
}

// take gives the App all of hosts and nothing else, or, when it cannot have
// them all, changes nothing and returns why. rival names who else may have a
// host that no App holds yet: an older App that waits for it, or a route.
func (c *claims) take(app *v1alpha1.App, hosts []string, rival func(host string) (holder, bool)) []conflict {
	c.mu.Lock()
	defer c.mu.Unlock()
	me := holderOf(app)
	var conflicts []conflict
	for _, host := range hosts {
		by, held := c.holders[host]
		if !held {
			by, held = rival(host)
		}
		if held && by != me {
			conflicts = append(conflicts, conflict{host: host, by: by})
		}
	}
	if len(conflicts) > 0 {
		return conflicts
	}
	maps.DeleteFunc(c.holders, func(host string, h holder) bool { return h == me && !slices.Contains(hosts, host) })
	for _, host := range hosts {
		c.holders[host] = me
	}
	return nil
}

// drop takes every host from an App that is gone.
func (c *claims) drop(namespace, name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	gone := holder{kind: "app", namespace: namespace, name: name}
	maps.DeleteFunc(c.holders, func(_ string, h holder) bool { return h == gone })
}

func holderOf(app *v1alpha1.App) holder {
	return holder{kind: "app", namespace: app.Namespace, name: app.Name}
}
