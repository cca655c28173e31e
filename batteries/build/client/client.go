// Package client builds images on the cluster's builder from a folder on this
// machine, for `emerald build` and `emerald deploy`.
//
// It promises that what it returns is in the registry under the digest it
// names, that a failed build says which line failed and what the step printed
// last, and that ending the context ends the build on the cluster too. It
// refuses to guess: a folder that is neither described by a Dockerfile nor
// recognised is an error that says what was looked for.
//
// Invariant: it reaches the builder only through the Kubernetes API, so RBAC
// decides who may build.
package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/moby/buildkit/util/grpcerrors"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc/codes"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
)

// Request says what to build.
type Request struct {
	// Dir is the folder with the source. It is sent to the builder, without
	// what .dockerignore names, and only what changed since the last build.
	Dir string

	// Dockerfile is a path inside Dir. Empty means "Dockerfile" where there is
	// one and otherwise one that is written for the kind of source found.
	Dockerfile string

	// Image is where the result is pushed: "<namespace>/<app>[:tag]" for the
	// platform's registry, or a full name. Empty builds without pushing.
	Image string

	// Namespace is where the ServiceAccount "default" lives whose registry
	// rights the push has. It may be empty when nothing is pushed.
	Namespace string

	// Target is the stage to build; empty means the last.
	Target string

	// BuildArgs are the values of ARG instructions.
	BuildArgs map[string]string

	// NoCache runs every step again.
	NoCache bool

	// Progress is told what happens; nil means silence. Display is how:
	// "auto" or "" (a live view on a terminal, lines elsewhere), "plain", "tty".
	Progress io.Writer
	Display  string
}

// Result is a finished build.
type Result struct {
	// Image is the pushed image by digest, "" when nothing was pushed.
	Image string

	// Digest is the manifest's.
	Digest string

	// Config is the image's own configuration: its user, ports, command.
	Config ocispecs.ImageConfig

	// Detected is the kind of source found, such as "Go", or "" when a
	// Dockerfile decided.
	Detected string

	// Notes are the build's warnings, each a sentence for the user.
	Notes []string
}

// Port returns the first TCP port that the image exposes, or 0.
func (r Result) Port() int32 {
	return firstPort(r.Config.ExposedPorts)
}

// ErrNoBuilder says that the cluster has no builder that is ready.
var ErrNoBuilder = errors.New("no builder is ready on this cluster: see `emerald status` and `emerald batteries`")

// Times of a build whose builder, or way there, dies.
const (
	tries     = 3               // to build
	returning = 2 * time.Minute // for a builder, a machine or its API to come back
)

// Build builds req on the builder of the cluster that kube leads to, as the
// user kube says, and pushes the result. It returns a *StepError for a build
// that failed by its own fault. When the builder or the way to it dies, it waits
// until it is back and builds again, from what is in the cache by then.
func Build(ctx context.Context, kube *rest.Config, req Request) (Result, error) {
	plan, err := newPlan(req)
	if err != nil {
		return Result{}, err
	}
	defer plan.close()
	builder, err := connect(ctx, kube, req)
	for try := 1; err == nil; try++ {
		var result Result
		result, err = plan.solve(ctx, builder)
		// What is wrong with a way that is not needed any more does not matter.
		_ = builder.close()
		if err == nil || !isBroken(err) || ctx.Err() != nil {
			return result, err
		}
		if try == tries {
			return result, fmt.Errorf("build: the connection to the builder broke %d times: see `emerald status`, then try again: %w", tries, err)
		}
		if req.Progress != nil {
			fmt.Fprintf(req.Progress, "the connection to the builder broke (%v): building again when it is back\n", err)
		}
		builder, err = reconnect(ctx, kube, req)
	}
	return Result{}, err
}

// isBroken tells whether a build ended because the builder did, or the way to it.
func isBroken(err error) bool {
	var step *StepError
	return !errors.As(err, &step) && grpcerrors.Code(err) == codes.Unavailable
}

// reconnect is connect for a cluster that was there a moment ago.
func reconnect(ctx context.Context, kube *rest.Config, req Request) (*connection, error) {
	var c *connection
	var last error
	err := wait.PollUntilContextTimeout(ctx, time.Second, returning, true, func(ctx context.Context) (bool, error) {
		c, last = connect(ctx, kube, req)
		return last == nil, nil
	})
	if err != nil {
		return nil, cmp.Or(last, err)
	}
	return c, nil
}

// connection is a builder that is ready for one build.
type connection struct {
	solver   solver
	image    string      // full name to push to, "" for none
	login    credentials // for the registry
	shutdown []func() error
}

func (c *connection) close() error {
	var errs []error
	for i := len(c.shutdown) - 1; i >= 0; i-- {
		errs = append(errs, c.shutdown[i]())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("leave the builder: %w", err)
	}
	return nil
}
