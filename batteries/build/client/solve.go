package client

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	contentproxy "github.com/containerd/containerd/v2/core/content/proxy"
	"github.com/distribution/reference"
	buildkit "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/auth"
	"github.com/moby/buildkit/util/progress/progressui"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tonistiigi/fsutil"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/emerald-platform/emerald/batteries/build/detect"
)

// solver is BuildKit's client.
type solver = *buildkit.Client

// Solve runs req on a builder that the caller is connected to already, for
// tests and for programs that bring a builder of their own. req.Image must be
// a full name; username and password are offered to its registry only.
func Solve(ctx context.Context, bk *buildkit.Client, req Request, username, password string) (Result, error) {
	plan, err := newPlan(req)
	if err != nil {
		return Result{}, err
	}
	defer plan.close()
	c := &connection{solver: bk, image: req.Image}
	if req.Image != "" {
		ref, err := reference.ParseNormalizedNamed(req.Image)
		if err != nil {
			return Result{}, fmt.Errorf("parse the image name %q: %w", req.Image, err)
		}
		c.login = credentials{host: reference.Domain(ref), username: username, password: password}
	}
	return plan.solve(ctx, c)
}

// plan is a request whose folder was looked at.
type plan struct {
	req           Request
	dir           string // absolute
	detected      string
	dockerfileDir string
	dockerfile    string // name inside dockerfileDir
	scratch       string // directory to remove, "" for none
}

// newPlan finds or writes the Dockerfile. The caller closes the plan.
func newPlan(req Request) (*plan, error) {
	dir, err := filepath.Abs(req.Dir)
	if err != nil {
		return nil, fmt.Errorf("find %q: %w", req.Dir, err)
	}
	if info, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("build %q: %w", req.Dir, err)
	} else if !info.IsDir() {
		return nil, fmt.Errorf("build %q: it is a file; name the folder that holds the source", req.Dir)
	}
	p := &plan{req: req, dir: dir}
	name := req.Dockerfile
	if name == "" {
		name = "Dockerfile"
	}
	path := filepath.Join(dir, name)
	switch _, err := os.Stat(path); {
	case err == nil:
		p.dockerfileDir, p.dockerfile = filepath.Dir(path), filepath.Base(path)
		return p, nil
	case req.Dockerfile != "" || !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("read the Dockerfile %q: %w", name, err)
	}
	found, err := detect.Dockerfile(os.DirFS(dir))
	if err != nil {
		return nil, fmt.Errorf("build %q: %w", req.Dir, err)
	}
	p.detected, p.dockerfile = found.Kind, "Dockerfile"
	if p.scratch, err = os.MkdirTemp("", "emerald-build-"); err != nil {
		return nil, fmt.Errorf("keep the generated Dockerfile: %w", err)
	}
	p.dockerfileDir = p.scratch
	for name, text := range map[string]string{"Dockerfile": found.Dockerfile, "Dockerfile.dockerignore": found.Ignore} {
		if name != "Dockerfile" && (text == "" || exists(filepath.Join(dir, ".dockerignore"))) {
			continue // the folder's own .dockerignore counts
		}
		if err := os.WriteFile(filepath.Join(p.scratch, name), []byte(text), 0o600); err != nil {
			return nil, errors.Join(fmt.Errorf("keep the generated Dockerfile: %w", err), p.close())
		}
	}
	return p, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (p *plan) close() error {
	if p.scratch == "" {
		return nil
	}
	return os.RemoveAll(p.scratch)
}

// solve runs the build and waits for it.
func (p *plan) solve(ctx context.Context, c *connection) (Result, error) {
	opt, err := p.options(c)
	if err != nil {
		return Result{}, err
	}
	record := &recorder{}
	statuses := make(chan *buildkit.SolveStatus)
	shown := make(chan *buildkit.SolveStatus)
	var resp *buildkit.SolveResponse
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		resp, err = c.solver.Solve(gctx, nil, opt, statuses)
		return err
	})
	g.Go(func() error {
		defer close(shown)
		for s := range statuses {
			record.add(s)
			shown <- s
		}
		return nil
	})
	g.Go(func() error { return p.show(shown) })
	if err := g.Wait(); err != nil {
		return Result{}, record.explain(ctx, err)
	}
	return p.result(ctx, c, resp, record)
}

// show prints the progress until there is no more.
func (p *plan) show(statuses chan *buildkit.SolveStatus) error {
	out, mode := p.req.Progress, progressui.DisplayMode(p.req.Display)
	if out == nil {
		out, mode = io.Discard, progressui.QuietMode
	}
	display, err := progressui.NewDisplay(out, mode)
	if err != nil {
		for range statuses { // the build must not wait for a reader
		}
		return fmt.Errorf("show the progress: %w", err)
	}
	// Not the build's context: what the builder said about its end counts.
	_, err = display.UpdateFrom(context.Background(), statuses)
	return err
}

// options translates the request to BuildKit's words.
func (p *plan) options(c *connection) (buildkit.SolveOpt, error) {
	source, err := fsutil.NewFS(p.dir)
	if err != nil {
		return buildkit.SolveOpt{}, fmt.Errorf("read %q: %w", p.dir, err)
	}
	instructions, err := fsutil.NewFS(p.dockerfileDir)
	if err != nil {
		return buildkit.SolveOpt{}, fmt.Errorf("read %q: %w", p.dockerfileDir, err)
	}
	attrs := map[string]string{"filename": p.dockerfile}
	if p.req.Target != "" {
		attrs["target"] = p.req.Target
	}
	if p.req.NoCache {
		attrs["no-cache"] = ""
	}
	for name, value := range p.req.BuildArgs {
		attrs["build-arg:"+name] = value
	}
	export := map[string]string{
		// zstd at its fastest costs less than the disk it saves, both here and
		// where the image is unpacked.
		string(exptypes.OptKeyLayerCompression): "zstd",
		string(exptypes.OptKeyCompressionLevel): "1",
		string(exptypes.OptKeyOCITypes):         "true",
	}
	if c.image != "" {
		export[string(exptypes.OptKeyName)] = c.image
		export[string(exptypes.OptKeyPush)] = "true"
	}
	return buildkit.SolveOpt{
		Frontend:      "dockerfile.v0",
		FrontendAttrs: attrs,
		LocalMounts:   map[string]fsutil.FS{"context": source, "dockerfile": instructions},
		Exports:       []buildkit.ExportEntry{{Type: buildkit.ExporterImage, Attrs: export}},
		Session:       []session.Attachable{&c.login},
		SharedKey:     sharedKey(p.dir),
	}, nil
}

// sharedKey names the folder to the builder, which keeps its files for the next
// build of the same one.
func sharedKey(dir string) string {
	// A host without a name shares the key with its like, and loses only speed.
	host, _ := os.Hostname()
	sum := sha256.Sum256([]byte(host + "\x00" + strconv.Itoa(os.Getuid()) + "\x00" + dir))
	return hex.EncodeToString(sum[:16])
}

// result reads back what was built.
func (p *plan) result(ctx context.Context, c *connection, resp *buildkit.SolveResponse, record *recorder) (Result, error) {
	r := Result{Detected: p.detected, Digest: resp.ExporterResponse[exptypes.ExporterImageDigestKey], Notes: record.notes()}
	if c.image != "" {
		ref, err := reference.ParseNormalizedNamed(c.image)
		if err != nil {
			return r, fmt.Errorf("parse the image name %q: %w", c.image, err)
		}
		r.Image = reference.TrimNamed(ref).Name() + "@" + r.Digest
	}
	config := resp.ExporterResponse[exptypes.ExporterImageConfigDigestKey]
	dgst, err := digest.Parse(config)
	if err != nil {
		return r, fmt.Errorf("read the built image's configuration %q: %w", config, err)
	}
	raw, err := content.ReadBlob(ctx, contentproxy.NewContentStore(c.solver.ContentClient()), ocispecs.Descriptor{Digest: dgst})
	if err != nil {
		return r, fmt.Errorf("read the built image's configuration: %w", err)
	}
	var image ocispecs.Image
	if err := json.Unmarshal(raw, &image); err != nil {
		return r, fmt.Errorf("read the built image's configuration: %w", err)
	}
	r.Config = image.Config
	return r, nil
}

// firstPort returns the lowest TCP port of an image's EXPOSE instructions.
func firstPort(exposed map[string]struct{}) int32 {
	var ports []int32
	for p := range exposed {
		number, proto, _ := strings.Cut(p, "/")
		if n, err := strconv.ParseInt(number, 10, 32); err == nil && n > 0 && n < 65536 && (proto == "" || proto == "tcp") {
			ports = append(ports, int32(n))
		}
	}
	if len(ports) == 0 {
		return 0
	}
	return slices.Min(ports)
}

// credentials log in to one registry on the builder's behalf.
type credentials struct {
	auth.UnimplementedAuthServer
	host, username, password string
}

// Register implements session.Attachable.
func (c *credentials) Register(s *grpc.Server) { auth.RegisterAuthServer(s, c) }

// Credentials implements auth.AuthServer.
func (c *credentials) Credentials(_ context.Context, req *auth.CredentialsRequest) (*auth.CredentialsResponse, error) {
	if c.password == "" || req.Host != c.host {
		return &auth.CredentialsResponse{}, nil
	}
	return &auth.CredentialsResponse{Username: c.username, Secret: c.password}, nil
}
