package daemon

import (
	"context"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/frontend/dockerfile/builder"
	"github.com/moby/buildkit/frontend/gateway/client"
)

// buildDockerfile is the frontend for Dockerfiles. A Dockerfile that asks for
// Docker's own frontend (# syntax=docker/dockerfile:1) gets the built-in one,
// which is the same program, without pulling it.
func buildDockerfile(ctx context.Context, c client.Client) (*client.Result, error) {
	return builder.Build(ctx, &builtinSyntax{Client: c})
}

// builtinSyntax keeps the Dockerfile frontend from handing over to an image of
// itself.
type builtinSyntax struct{ client.Client }

// Solve implements client.Client.
func (c *builtinSyntax) Solve(ctx context.Context, req client.SolveRequest) (*client.Result, error) {
	if req.Frontend == "gateway.v0" && isDockerfileSyntax(req.FrontendOpt["source"]) {
		return builder.Build(ctx, &withCmdline{Client: c.Client, cmdline: req.FrontendOpt["cmdline"]})
	}
	return c.Client.Solve(ctx, req)
}

// withCmdline is how the Dockerfile frontend knows that it was handed over to.
type withCmdline struct {
	client.Client
	cmdline string
}

// BuildOpts implements client.Client.
func (c *withCmdline) BuildOpts() client.BuildOpts {
	opts := c.Client.BuildOpts()
	withCmd := make(map[string]string, len(opts.Opts)+1)
	for k, v := range opts.Opts {
		withCmd[k] = v
	}
	withCmd["cmdline"] = c.cmdline
	opts.Opts = withCmd
	return opts
}

// isDockerfileSyntax tells whether an image is one of Docker's releases of the
// Dockerfile frontend, all of which the built-in one can stand for.
func isDockerfileSyntax(image string) bool {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return false
	}
	name := reference.FamiliarName(named)
	return name == "docker/dockerfile" || name == "docker/dockerfile-upstream" ||
		strings.HasSuffix(reference.Path(named), "/docker/dockerfile")
}
