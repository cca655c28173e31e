package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	cerrdefs "github.com/containerd/errdefs"
	buildkit "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/tonistiigi/fsutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
)

// TestMain lets the test's own program be the one that build steps run: it is
// static, so an image FROM scratch can.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "step" {
		os.Exit(step(os.Args[2:]))
	}
	os.Exit(m.Run())
}

// step is what happens inside a build step.
func step(args []string) int {
	switch args[0] {
	case "show":
		for _, name := range args[1:] {
			fmt.Printf("%s=%s\n", name, os.Getenv(name))
		}
		ca, err := os.ReadFile(os.Getenv("SSL_CERT_FILE"))
		fmt.Printf("CA=%s %v\n", ca, err)
	case "fail":
		fmt.Println("about to fail")
		return 3
	case "hang":
		fmt.Println("hanging")
		select {}
	}
	return 0
}

// runcForTest returns a runc, or skips: running one takes root.
func runcForTest(t *testing.T) string {
	if os.Geteuid() != 0 {
		t.Skip("needs root: build steps are containers")
	}
	for _, candidate := range []string{"../../../platform/containers/embedded/bin/runc", "runc"} {
		if path, err := exec.LookPath(candidate); err == nil {
			if path, err = filepath.Abs(path); err == nil {
				return path
			}
		}
	}
	t.Skip("needs runc: make it with tools/build-runtime.sh")
	return ""
}

const token = "the token"

// start serves a daemon and returns a client of it, and its address.
func start(t *testing.T, opts Options) (*buildkit.Client, string) {
	opts.Root, opts.Runc, opts.Log = t.TempDir(), runcForTest(t), slog.New(slog.DiscardHandler)
	if opts.Hosts == nil {
		opts.Hosts = func(host string) ([]docker.RegistryHost, error) {
			return nil, fmt.Errorf("registry %q: %w", host, cerrdefs.ErrNotFound)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	d, err := New(ctx, opts)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- d.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		// Outside a user namespace steps have cgroups, whose common parent
		// nobody removes. One that is in use stays.
		for _, pattern := range []string{"/sys/fs/cgroup/buildkit", "/sys/fs/cgroup/*/buildkit"} {
			groups, _ := filepath.Glob(pattern)
			for _, g := range groups {
				os.Remove(g)
			}
		}
	})
	if err := d.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	c, err := d.Client(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, l.Addr().String()
}

// build builds a Dockerfile in a folder with the test's program in it, and
// returns what the steps said.
func build(ctx context.Context, t *testing.T, c *buildkit.Client, dockerfile string, seen func(string)) (string, error) {
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"step": program, "Dockerfile": []byte(dockerfile)} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	folder, err := fsutil.NewFS(dir)
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	statuses := make(chan *buildkit.SolveStatus)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for s := range statuses {
			for _, l := range s.Logs {
				said.Write(l.Data)
				if seen != nil {
					seen(said.String())
				}
			}
		}
	}()
	_, err = c.Solve(ctx, nil, buildkit.SolveOpt{
		Frontend: "dockerfile.v0", FrontendAttrs: map[string]string{},
		LocalMounts: map[string]fsutil.FS{"context": folder, "dockerfile": folder},
	}, statuses)
	<-done
	return said.String(), err
}

func TestSteps(t *testing.T) {
	c, _ := start(t, Options{Surroundings: func() Surroundings {
		return Surroundings{CA: []byte("an authority"), Env: map[string]string{"https_proxy": "http://proxy.test", "GOPROXY": "https://go.test"}}
	}})
	t.Run("surroundings", func(t *testing.T) {
		said, err := build(t.Context(), t, c, `# syntax=docker/dockerfile:1
FROM scratch
COPY step /step
ENV GOPROXY=mine
RUN ["/step", "step", "show", "https_proxy", "GOPROXY", "NODE_EXTRA_CA_CERTS"]
RUN --network=none ["/step", "step", "show"]
`, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"https_proxy=http://proxy.test\n", "GOPROXY=mine\n", "NODE_EXTRA_CA_CERTS=/dev/emerald/ca.crt\n", "CA=an authority <nil>\n"} {
			if !strings.Contains(said, want) {
				t.Errorf("the step does not say %q:\n%s", want, said)
			}
		}
	})
	t.Run("failure", func(t *testing.T) {
		said, err := build(t.Context(), t, c, "FROM scratch\nCOPY step /step\nRUN [\"/step\", \"step\", \"fail\"]\n", nil)
		if err == nil || !strings.Contains(err.Error(), "exit code: 3") || !strings.Contains(said, "about to fail") {
			t.Errorf("got error %v after:\n%s", err, said)
		}
	})
	t.Run("cancel", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		_, err := build(ctx, t, c, "FROM scratch\nCOPY step /step\nRUN [\"/step\", \"step\", \"hang\"]\n", func(said string) {
			if strings.Contains(said, "hanging") {
				cancel()
			}
		})
		if err == nil || time.Since(began) > 50*time.Second {
			t.Errorf("got error %v after %v", err, time.Since(began))
		}
	})
}

func TestAuthorize(t *testing.T) {
	_, address := start(t, Options{Authorize: func(_ context.Context, got string) error {
		if got != token {
			return errors.New("not the token")
		}
		return nil
	}})
	knock := func(opts ...buildkit.ClientOpt) error {
		c, err := buildkit.New(t.Context(), "tcp://"+address, opts...)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, err = c.Info(t.Context())
		// A session is a stream, which another interceptor guards.
		if _, err2 := c.DiskUsage(t.Context()); (err == nil) != (err2 == nil) {
			t.Errorf("Info says %v, DiskUsage %v", err, err2)
		}
		return err
	}
	bearer := func(s string) buildkit.ClientOpt {
		return buildkit.WithGRPCDialOption(grpc.WithPerRPCCredentials(testBearer(s)))
	}
	if err := knock(bearer(token)); err != nil {
		t.Error(err)
	}
	for name, opts := range map[string][]buildkit.ClientOpt{"none": nil, "wrong": {bearer("wrong")}, "empty": {bearer("")}} {
		if err := knock(opts...); grpcerrors.Code(err) != codes.Unauthenticated {
			t.Errorf("%s: got error %v, want %v", name, err, codes.Unauthenticated)
		}
	}
}

type testBearer string

func (b testBearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}
func (testBearer) RequireTransportSecurity() bool { return false }

// fakeBases makes nothing but remembers what it was asked for.
type fakeBases struct{ asked atomic.Pointer[string] }

func (*fakeBases) Stale(string, []byte) bool { return false }
func (b *fakeBases) Make(_ context.Context, ref string, out io.Writer) error {
	b.asked.Store(&ref)
	fmt.Fprintln(out, "looking for", ref)
	return fmt.Errorf("%w: try another", ErrUnknownBase)
}

func TestBases(t *testing.T) {
	bases := &fakeBases{}
	c, _ := start(t, Options{Bases: bases})
	said, err := build(t.Context(), t, c, "ARG V=7\nFROM example:$V AS unused\nFROM example:1.$V\n", nil)
	const ref = "docker.io/library/example:1.7"
	if asked := bases.asked.Load(); asked == nil || *asked != ref {
		t.Errorf("asked for %v, want %q", asked, ref)
	}
	if err == nil || !strings.Contains(err.Error(), "try another") || !strings.Contains(said, "looking for "+ref) {
		t.Errorf("got error %v after:\n%s", err, said)
	}
}

func TestIsDockerfileSyntax(t *testing.T) {
	for image, want := range map[string]bool{
		"docker/dockerfile:1": true, "docker.io/docker/dockerfile:1.7-labs": true, "docker/dockerfile-upstream:master": true,
		"example.org/mirror/docker/dockerfile:1": true, "docker/dockerfile-other": false, "someone/frontend": false, "%": false,
	} {
		if got := isDockerfileSyntax(image); got != want {
			t.Errorf("%q: got %v", image, got)
		}
	}
}

func TestWithDefaults(t *testing.T) {
	got := withDefaults([]string{"PATH=/bin", "B="}, map[string]string{"B": "no", "A": "yes", "PAT": "h"})
	if want := []string{"PATH=/bin", "B=", "A=yes", "PAT=h"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestInUse(t *testing.T) {
	opts := Options{Root: t.TempDir(), Runc: runcForTest(t), Log: slog.New(slog.DiscardHandler)}
	d, err := New(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := New(ctx, opts); !errors.Is(err, ErrInUse) {
		t.Errorf("got error %v, want %v", err, ErrInUse)
	}
}

// TestDamaged finds a database that a power loss left half-written.
func TestDamaged(t *testing.T) {
	opts := Options{Root: t.TempDir(), Runc: runcForTest(t), Log: slog.New(slog.DiscardHandler)}
	d, err := New(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	databases, err := filepath.Glob(filepath.Join(opts.Root, "runc-*", "containerdmeta.db"))
	if err != nil || len(databases) != 1 {
		t.Fatalf("found %q, %v", databases, err)
	}
	if err := os.WriteFile(databases[0], make([]byte, 64<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(t.Context(), opts); !errors.Is(err, ErrDamaged) {
		t.Fatalf("got error %v, want %v", err, ErrDamaged)
	}
	d, err = New(t.Context(), opts)
	if err != nil {
		t.Fatalf("after the state was thrown away: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// TestDiesOpening is a state over which the processes before this one died.
func TestDiesOpening(t *testing.T) {
	opts := Options{Root: t.TempDir(), Runc: runcForTest(t), Log: slog.New(slog.DiscardHandler)}
	kept := filepath.Join(opts.Root, "kept")
	for deaths, want := range []bool{true, true, false} {
		for path, content := range map[string]string{kept: "", filepath.Join(opts.Root, "opening"): strings.Repeat("+", deaths)} {
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		d, err := New(t.Context(), opts)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(kept); (err == nil) != want {
			t.Errorf("after %d deaths the state is kept: %v, want %v", deaths, err == nil, want)
		}
		if _, err := os.Stat(filepath.Join(opts.Root, "opening")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("after %d deaths the mark stays: %v", deaths, err)
		}
	}
}
