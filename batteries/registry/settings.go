package registry

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/emerald-platform/emerald/batteries/registry/internal/upstream"
)

// settings is a Config understood.
type settings struct {
	quota    int64 // bytes, 0 for no limit
	quotas   map[string]int64
	maxBlob  int64
	reserve  int64
	hosts    []upstream.Host
	tagTTL   time.Duration
	every    time.Duration
	grace    time.Duration
	untagged time.Duration
}

// hostRule is what may begin the name of a repository and tells another registry
// from a namespace: names with a dot in them.
var hostRule = regexp.MustCompile(`^[a-z0-9]+([.-][a-z0-9]+)*$`)

// read understands a Config. The error names every field that is wrong and how
// it is written.
func (c Config) read() (settings, error) {
	var errs []error
	amount := func(field, value string, least int64) int64 {
		q, err := resource.ParseQuantity(value)
		if err != nil || q.Value() < least {
			errs = append(errs, fmt.Errorf("%s: %q is no amount of storage: write it like 500Mi or 20Gi", field, value))
		}
		return q.Value()
	}
	span := func(field, value string, least time.Duration) time.Duration {
		d, err := time.ParseDuration(value)
		if err != nil || d < least {
			errs = append(errs, fmt.Errorf("%s: %q is no time of at least %s: write it like 90s, 10m or 24h", field, value, least))
		}
		return d
	}
	s := settings{
		quota:    amount("quota", c.Quota, 0),
		quotas:   map[string]int64{},
		maxBlob:  amount("maxBlob", c.MaxBlob, 1),
		reserve:  amount("reserve", c.Reserve, 0),
		tagTTL:   span("tagTTL", c.TagTTL, 0),
		every:    span("collectEvery", c.CollectEvery, time.Minute),
		grace:    span("grace", c.Grace, time.Minute),
		untagged: span("untagged", c.Untagged, 0),
	}
	for _, ns := range slices.Sorted(maps.Keys(c.Quotas)) {
		s.quotas[ns] = amount(fmt.Sprintf("quotas[%q]", ns), c.Quotas[ns], 0)
	}
	for i, u := range c.Upstreams {
		if !hostRule.MatchString(u.Host) || !upstream.Foreign(u.Host) {
			errs = append(errs, fmt.Errorf("upstreams[%d].host: %q is no host name with a dot in it, such as docker.io", i, u.Host))
		}
		if slices.ContainsFunc(c.Upstreams[:i], func(o Upstream) bool { return o.Host == u.Host }) {
			errs = append(errs, fmt.Errorf("upstreams[%d].host: %q is named twice", i, u.Host))
		}
		if u.Endpoint != "" {
			e, err := url.Parse(u.Endpoint)
			if err != nil || e.Scheme != "https" && e.Scheme != "http" || e.Host == "" || e.User != nil || e.RawQuery != "" {
				errs = append(errs, fmt.Errorf("upstreams[%d].endpoint: %q is no address: write it like https://mirror.example.org", i, u.Endpoint))
			}
		}
		s.hosts = append(s.hosts, upstream.Host{Name: u.Host, Endpoint: u.Endpoint})
	}
	if len(errs) > 0 {
		return settings{}, fmt.Errorf("settings of battery \"registry\": %w", errors.Join(errs...))
	}
	return s, nil
}

// quotaOf returns how many bytes a namespace may hold, 0 for no limit.
func (s settings) quotaOf(namespace string) int64 {
	if n, ok := s.quotas[namespace]; ok {
		return n
	}
	if upstream.Foreign(namespace) {
		return 0
	}
	return s.quota
}
