package bases

import (
	"archive/tar"
	"archive/zip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/emerald-platform/emerald/batteries/build/daemon"
)

func TestFind(t *testing.T) {
	known := map[string]string{ // by name: the tag that the recipe gets
		"docker.io/library/debian:bookworm-slim":    "bookworm-slim",
		"debian":                                    "latest",
		"docker.io/library/golang:1.26":             "1.26",
		"gcr.io/distroless/static-debian12:nonroot": "debian12:nonroot",
		"gcr.io/distroless/static-debian13":         "debian13:latest",
	}
	for ref, tag := range known {
		r, err := find(ref)
		if err != nil || r.tag != tag {
			t.Errorf("find(%q) = tag %q, %v; want %q", ref, r.tag, err, tag)
		}
	}
	unknown := map[string]string{ // by name: what the error says
		"alpine:3.20":                      "debian:bookworm-slim",
		"docker.io/library/node:20-alpine": "node:20-bookworm",
		"docker.io/library/golang:alpine":  "golang:bookworm",
		"ubuntu:24.04":                     "known here are busybox, debian",
		"ghcr.io/someone/something":        "known here are",
		"docker.io/library/debian@sha256:" + strings.Repeat("a", 64):    "pinned to a digest",
		"docker.io/library/debian:12@sha256:" + strings.Repeat("a", 64): "pinned to a digest",
	}
	for ref, says := range unknown {
		if _, err := find(ref); !errors.Is(err, daemon.ErrUnknownBase) || !strings.Contains(err.Error(), says) {
			t.Errorf("find(%q): got error %v; want one that says %q", ref, err, says)
		}
	}
}

func TestSplitSuite(t *testing.T) {
	type split struct {
		Version, Suite string
		Slim           bool
	}
	tests := map[string]split{
		"1.26":               {"1.26", "", false},
		"1.26-bookworm":      {"1.26", "bookworm", false},
		"20-trixie-slim":     {"20", "trixie", true},
		"20-slim":            {"20", "", true},
		"bookworm":           {"", "bookworm", false},
		"bookworm-slim":      {"", "bookworm", true},
		"slim":               {"", "", true},
		"3.11-slim-bookworm": {"3.11", "bookworm", true}, // as Python writes it
	}
	for tag, want := range tests {
		version, suite, slim := splitSuite(tag)
		if diff := cmp.Diff(want, split{version, suite, slim}); diff != "" {
			t.Errorf("%q: -want +got:\n%s", tag, diff)
		}
	}
}

func TestNewestGo(t *testing.T) {
	var list []string
	for _, v := range []string{"go1.25.9", "go1.26rc1", "go1.26.0", "go1.26.8", "go1.26.11", "go1.27rc2"} {
		list = append(list, "v0.0.1-"+v+"."+runtime.GOOS+"-"+runtime.GOARCH)
	}
	list = append(list, "v0.0.1-go1.99.0.plan9-mips", "nonsense")
	tests := map[string]string{
		"1.26": "go1.26.11", "1": "go1.26.11", "latest": "go1.26.11", "": "go1.26.11", "1.25": "go1.25.9",
		"1.26.8": "go1.26.8", "1.27rc2": "go1.27rc2", "1.27": "", "1.2": "", "1.99": "",
	}
	for asked, want := range tests {
		if got, newest := newestGo(list, asked); got != want || newest == "" {
			t.Errorf("newestGo(%q) = %q, %q; want %q", asked, got, newest, want)
		}
	}
}

func TestNPM(t *testing.T) {
	var index npmIndex
	if err := json.Unmarshal([]byte(`{
		"versions": {"20.9.0": {}, "20.19.0": {}, "22.1.0": {}, "24.2.0": {}, "26.1.0": {}, "25.0.0": {}, "27.0.0-rc.1": {}},
		"time": {"20.0.0": "2023-04-18T00:00:00Z", "22.0.0": "2024-04-24T00:00:00Z", "24.0.0": "2025-05-06T00:00:00Z", "26.0.0": "2026-10-20T00:00:00Z"}
	}`), &index); err != nil {
		t.Fatal(err)
	}
	for asked, want := range map[string]string{"20": "20.19.0", "20.9": "20.9.0", "latest": "26.1.0", "22.1.0": "22.1.0", "2": "", "21": ""} {
		if got, newest := index.newest(asked); got != want || newest != "26.1.0" {
			t.Errorf("newest(%q) = %q, %q; want %q", asked, got, newest, want)
		}
	}
	if got := longTerm(index, time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)); got != "24" {
		t.Errorf("longTerm = %q; 26 is not half a year old", got)
	}
}

// TestRefusals checks that what a name promises is kept to.
func TestRefusals(t *testing.T) {
	k := &kitchen{Sources: Sources{DebianSuite: "bookworm"}}
	tests := []struct {
		prepare func(context.Context, *kitchen, string) (dish, error)
		tag     string
	}{
		{preparePython, "3.12"}, {preparePython, "3.11.9"}, {preparePython, "3.11-trixie"}, {preparePython, "2.7"},
		{prepareNginx, "1.27"}, {prepareBusybox, "1.36"}, {prepareDistroless, "debian12:debug"}, {prepareDistroless, "debian11:latest"},
		{prepareGo, "1.26-slim"},
	}
	for _, tc := range tests {
		if _, err := tc.prepare(t.Context(), k, tc.tag); !errors.Is(err, daemon.ErrUnknownBase) {
			t.Errorf("tag %q: got error %v, want %v", tc.tag, err, daemon.ErrUnknownBase)
		}
	}
	d, err := preparePython(t.Context(), k, "3.11-slim")
	if err != nil || !strings.HasPrefix(d.dockerfile, "FROM debian:bookworm-slim\n") {
		t.Errorf("python:3.11-slim: %v\n%s", err, d.dockerfile)
	}
}

func TestStale(t *testing.T) {
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	m := New(Options{MaxAge: 30 * 24 * time.Hour, Now: func() time.Time { return now }})
	config := func(name string, made time.Time) []byte {
		return fmt.Appendf(nil, `{"config":{"Labels":{%q:%q,%q:%q}}}`, LabelName, name, LabelMade, made.Format(time.RFC3339))
	}
	const ref = "docker.io/library/debian:12"
	tests := map[string]struct {
		reason string
		config []byte
		want   bool
	}{
		"old":       {"made here, long ago", config(ref, now.AddDate(0, -2, 0)), true},
		"young":     {"made here, yesterday", config(ref, now.AddDate(0, 0, -1)), false},
		"inherited": {"an image built FROM one made here", config("docker.io/library/golang:1.26", now.AddDate(0, -2, 0)), false},
		"upstream":  {"pulled", []byte(`{"config":{}}`), false},
		"nonsense":  {"no configuration", []byte(`x`), false},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if got := m.Stale(ref, tc.config); got != tc.want {
				t.Errorf("%s: got %v", tc.reason, got)
			}
		})
	}
	m.failed[ref] = now.Add(-time.Minute)
	if m.Stale(ref, config(ref, now.AddDate(0, -2, 0))) {
		t.Error("a remake that just failed is tried again at once")
	}
}

func TestFile(t *testing.T) {
	const content = "a package"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/there" {
			http.NotFound(w, r)
			return
		}
		io.WriteString(w, content)
	}))
	defer server.Close()
	k := &kitchen{http: server.Client()}
	good := sha256.Sum256([]byte(content))
	path := filepath.Join(t.TempDir(), "file")
	get := func(url string, size int64, hexSum string) error {
		sum, err := sha256Sum(hexSum)
		if err != nil {
			t.Fatal(err)
		}
		return k.file(t.Context(), server.URL+url, path, size, sum)
	}
	if err := get("/there", int64(len(content)), hex.EncodeToString(good[:])); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"another checksum": get("/there", int64(len(content)), strings.Repeat("00", 32)),
		"too long":         get("/there", 3, hex.EncodeToString(good[:])),
		"too short":        get("/there", 100, hex.EncodeToString(good[:])),
	} {
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s: the file was kept", name)
		}
	}
	if err := get("/nowhere", 1, hex.EncodeToString(good[:])); !isMissing(err) {
		t.Errorf("a file that is not there: got error %v, want %v", err, errMissing)
	}
}

func TestToolchainTar(t *testing.T) {
	dir := t.TempDir()
	const prefix = "golang.org/toolchain@v0.0.1-go1.26.8.linux-amd64/"
	write := func(names ...string) string {
		file := filepath.Join(dir, "t.zip")
		f, err := os.Create(file)
		if err != nil {
			t.Fatal(err)
		}
		w := zip.NewWriter(f)
		for _, n := range names {
			if _, err := w.Create(n); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(w.Close(), f.Close()); err != nil {
			t.Fatal(err)
		}
		return file
	}
	out := filepath.Join(dir, "go.tar")
	if err := toolchainTar(write(prefix+"bin/go", prefix+"src/_go.mod", prefix+"VERSION"), prefix, out); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var got []string
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%s %o", h.Name, h.Mode))
	}
	if diff := cmp.Diff([]string{"go/bin/go 755", "go/src/go.mod 644", "go/VERSION 644"}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	for _, odd := range []string{prefix + "../x", "elsewhere/x", prefix + "a/../../x"} {
		if err := toolchainTar(write(odd), prefix, out); err == nil {
			t.Errorf("%q was unpacked", odd)
		}
	}
}

// TestFamilies keeps README.md's table honest.
func TestFamilies(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for name := range families {
		short := strings.TrimPrefix(name, "docker.io/library/")
		if !strings.Contains(string(readme), "`"+short) {
			t.Errorf("README.md does not name %s", short)
		}
	}
	if !slices.IsSortedFunc(suites, func(a, b struct{ number, name string }) int { return strings.Compare(a.number, b.number) }) {
		t.Error("the suites are not in order")
	}
}
