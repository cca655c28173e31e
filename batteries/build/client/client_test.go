package client

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	buildkit "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/session/auth"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/emerald-platform/emerald/batteries/build/detect"
)

func TestCompleteName(t *testing.T) {
	tests := map[string]string{
		"default/shop":                   "registry.emerald.localhost/default/shop:latest",
		"default/shop:v2":                "registry.emerald.localhost/default/shop:v2",
		"registry.example.org/a/b:1":     "registry.example.org/a/b:1",
		"localhost:5000/a/b":             "localhost:5000/a/b:latest",
		"team/group/shop":                "registry.emerald.localhost/team/group/shop:latest",
		"registry.emerald.localhost/a/b": "registry.emerald.localhost/a/b:latest",
	}
	for image, want := range tests {
		if got, err := completeName(image, "emerald.localhost"); err != nil || got != want {
			t.Errorf("completeName(%q) = %q, %v; want %q", image, got, err, want)
		}
	}
	for _, bad := range []string{"shop", "Default/Shop", "a/b:tag with space"} {
		if got, err := completeName(bad, "emerald.localhost"); err == nil {
			t.Errorf("completeName(%q) = %q", bad, got)
		}
	}
}

func TestFirstPort(t *testing.T) {
	tests := []struct {
		exposed []string
		want    int32
	}{
		{nil, 0}, {[]string{"9000/tcp", "8080/tcp"}, 8080}, {[]string{"53/udp"}, 0}, {[]string{"80"}, 80}, {[]string{"0/tcp", "70000/tcp", "x"}, 0},
	}
	for _, tc := range tests {
		set := map[string]struct{}{}
		for _, p := range tc.exposed {
			set[p] = struct{}{}
		}
		if got := firstPort(set); got != tc.want {
			t.Errorf("firstPort(%q) = %d, want %d", tc.exposed, got, tc.want)
		}
	}
}

func TestCredentials(t *testing.T) {
	c := &credentials{host: "registry.test", username: "token", password: "secret"}
	for host, want := range map[string]string{"registry.test": "secret", "elsewhere.test": "", "registry.test.evil": ""} {
		resp, err := c.Credentials(t.Context(), &auth.CredentialsRequest{Host: host})
		if err != nil || resp.Secret != want {
			t.Errorf("%q is told %q, %v", host, resp.GetSecret(), err)
		}
	}
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestPlan(t *testing.T) {
	dir := t.TempDir()
	if _, err := newPlan(Request{Dir: dir}); !errors.Is(err, detect.ErrUnknown) {
		t.Errorf("an empty folder: got error %v, want %v", err, detect.ErrUnknown)
	}
	write(t, dir, "index.html", "hi")
	p, err := newPlan(Request{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if p.detected != "static site" || !exists(filepath.Join(p.dockerfileDir, "Dockerfile.dockerignore")) {
		t.Errorf("got %+v", p)
	}
	if err := p.close(); err != nil || exists(p.scratch) {
		t.Errorf("close: %v", err)
	}
	write(t, dir, ".dockerignore", "x")
	if p, err = newPlan(Request{Dir: dir}); err != nil || exists(filepath.Join(p.dockerfileDir, "Dockerfile.dockerignore")) {
		t.Errorf("the folder's own .dockerignore does not count: %v", err)
	}
	defer p.close()
	write(t, dir, "Dockerfile", "FROM scratch\n")
	if p, err = newPlan(Request{Dir: dir}); err != nil || p.detected != "" || p.dockerfileDir != dir {
		t.Errorf("got %+v, %v", p, err)
	}
	for _, bad := range []Request{{Dir: filepath.Join(dir, "Dockerfile")}, {Dir: filepath.Join(dir, "nowhere")}, {Dir: dir, Dockerfile: "Other"}} {
		if _, err := newPlan(bad); err == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
}

func TestExplain(t *testing.T) {
	r := &recorder{}
	r.add(&buildkit.SolveStatus{
		Vertexes: []*buildkit.Vertex{
			{Digest: "sha256:b", Name: "[2/3] COPY a b", Error: "rpc error: context canceled"},
			{Digest: "sha256:a", Name: "[3/3] RUN make", Error: "exit code: 2"},
		},
		Logs: []*buildkit.VertexLog{
			{Vertex: "sha256:a", Data: []byte(strings.Repeat("line\n", 50))},
			{Vertex: "sha256:b", Data: []byte("other\n")},
			{Vertex: "sha256:a", Data: []byte("make: *** no rule\n")},
		},
	})
	cause := errdefs.WithSource(errors.New("failed to solve: exit code: 2"), &errdefs.Source{
		Info:   &pb.SourceInfo{Filename: "Dockerfile", Data: []byte("FROM a\nCOPY a b\nRUN make\n")},
		Ranges: []*pb.Range{{Start: &pb.Position{Line: 3}, End: &pb.Position{Line: 3}}},
	})
	err := r.explain(t.Context(), cause)
	var step *StepError
	if !errors.As(err, &step) {
		t.Fatalf("got %T: %v", err, err)
	}
	if step.File != "Dockerfile" || step.Line != 3 || step.Step != "[3/3] RUN make" || strings.Count(step.Output, "\n") >= keepLines {
		t.Errorf("got %+v", step)
	}
	for _, want := range []string{"Dockerfile:3: build failed: exit code: 2", ">>> RUN make", "make: *** no rule"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q:\n%v", want, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.explain(ctx, cause); !errors.Is(err, context.Canceled) || errors.As(err, &step) {
		t.Errorf("a build that was cancelled: %v", err)
	}
	if err := (&recorder{}).explain(t.Context(), errors.New("connection lost")); errors.As(err, &step) {
		t.Errorf("a lost connection is no step's fault: %v", err)
	}
}

func TestIsBroken(t *testing.T) {
	gone := status.Error(codes.Unavailable, "error reading from server: EOF")
	for _, tt := range []struct {
		reason string
		err    error
		want   bool
	}{
		{reason: "the builder died", err: fmt.Errorf("build: failed to receive status: %w", gone), want: true},
		{reason: "a step failed while something was not there", err: &StepError{Step: "RUN", cause: gone}},
		{reason: "no token", err: status.Error(codes.Unauthenticated, "the builder needs a token")},
		{reason: "no connection at all", err: ErrNoBuilder},
	} {
		if got := isBroken(tt.err); got != tt.want {
			t.Errorf("%s: isBroken(%v) = %t, want %t", tt.reason, tt.err, got, tt.want)
		}
	}
}
