package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/progress/logs"
	"github.com/moby/buildkit/worker"
)

// Bases makes base images on this platform. Its methods are called from many
// goroutines.
type Bases interface {
	// Stale tells whether an image that a registry has, known by its full name
	// and its OCI configuration, was made here and is due to be made again.
	Stale(ref string, config []byte) bool

	// Make makes the image and pushes it to where the name leads. It tells on
	// out what it does, for the person who waits for the build. It returns
	// ErrUnknownBase for a name that it does not know.
	Make(ctx context.Context, ref string, out io.Writer) error
}

// ErrUnknownBase says that an image cannot be made here.
var ErrUnknownBase = errors.New("no base image that can be made here")

// baseWorker is a worker that knows one more place for base images. Asking at
// the moment when the solver wants an image's configuration covers every
// frontend, every FROM with its arguments, COPY --from and --mount=from alike,
// and only stages that are really built.
type baseWorker struct {
	worker.Worker
	bases Bases
}

// ResolveSourceMetadata implements worker.Worker.
func (w *baseWorker) ResolveSourceMetadata(ctx context.Context, op *pb.SourceOp, opt sourceresolver.Opt, sm *session.Manager, job solver.JobContext) (*sourceresolver.MetaResponse, error) {
	asked := op.CloneVT()
	resp, err := w.Worker.ResolveSourceMetadata(ctx, op, opt, sm, job)
	ref, isImage := strings.CutPrefix(asked.Identifier, "docker-image://")
	switch {
	case !isImage || ctx.Err() != nil:
		return resp, err
	case err == nil && (resp.Image == nil || !w.bases.Stale(ref, resp.Image.Config)):
		return resp, nil
	}
	// Both streams are progress writers, which the build waits for.
	out, unused, flush := logs.NewLogStreams(ctx, false)
	defer out.Close()
	defer unused.Close()
	defer flush()
	makeErr := w.bases.Make(ctx, ref, out)
	switch {
	case makeErr == nil:
		return w.Worker.ResolveSourceMetadata(ctx, asked, opt, sm, job)
	case err == nil:
		fmt.Fprintf(out, "%s is due to be made again, but that did not work; the old one is used: %v\n", ref, makeErr)
		return resp, nil
	case errors.Is(makeErr, ErrUnknownBase):
		return nil, fmt.Errorf("%w (%v)", err, makeErr)
	}
	return nil, fmt.Errorf("%v; make it here instead: %w", err, makeErr)
}
