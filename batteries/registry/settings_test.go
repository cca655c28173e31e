package registry

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/emerald-platform/emerald/batteries/registry/internal/upstream"
)

func TestSettings(t *testing.T) {
	c := Battery.Config.(Config)
	c.Quotas = map[string]string{"large": "1Ti", "docker.io": "5Gi", "free": "0"}
	c.Upstreams = []Upstream{{Host: "docker.io", Endpoint: "http://10.0.0.1:5000/mirror"}}
	got, err := c.read()
	if err != nil {
		t.Fatal(err)
	}
	want := settings{
		quota: 20 << 30, quotas: map[string]int64{"large": 1 << 40, "docker.io": 5 << 30, "free": 0}, maxBlob: 20 << 30, reserve: 1 << 30,
		hosts: []upstream.Host{{Name: "docker.io", Endpoint: "http://10.0.0.1:5000/mirror"}}, tagTTL: 10 * time.Minute, every: 12 * time.Hour, grace: 24 * time.Hour,
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(settings{})); diff != "" {
		t.Errorf("settings (-want +got):\n%s", diff)
	}
	for ns, want := range map[string]int64{"demo": 20 << 30, "large": 1 << 40, "free": 0, "docker.io": 5 << 30, "ghcr.io": 0} {
		if got := got.quotaOf(ns); got != want {
			t.Errorf("quota of %s is %d, want %d", ns, got, want)
		}
	}
}

func TestBadSettings(t *testing.T) {
	c := Config{
		Quota: "lots", Quotas: map[string]string{"demo": "-1"}, MaxBlob: "0", Reserve: "", TagTTL: "soon", CollectEvery: "1s", Grace: "0s", Untagged: "-1h",
		Upstreams: []Upstream{{Host: "localhost"}, {Host: "Docker.io"}, {Host: "a.b/c"}, {Host: "a.b", Endpoint: "ftp://x"}, {Host: "a.b", Endpoint: "https://user:pass@x"}},
	}
	_, err := c.read()
	if err == nil {
		t.Fatal("all of it is accepted")
	}
	for _, field := range []string{
		"quota:", `quotas["demo"]:`, "maxBlob:", "reserve:", "tagTTL:", "collectEvery:", "grace:", "untagged:",
		"upstreams[0].host", "upstreams[1].host", "upstreams[2].host", "upstreams[3].endpoint", "upstreams[4].host", "upstreams[4].endpoint",
	} {
		if !strings.Contains(err.Error(), field) {
			t.Errorf("the error does not name %s:\n%v", field, err)
		}
	}
}
