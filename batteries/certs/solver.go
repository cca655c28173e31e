package certs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/cert-manager/cert-manager/pkg/issuer/acme/http/solver"
	"github.com/go-logr/logr"
)

// Challenge is what an ACME server asks for at a host to be convinced that
// whoever ordered a certificate controls it (RFC 8555, section 8.3).
type Challenge struct {
	Port   int    // to listen on
	Domain string // the host asked for
	Token  string // the last part of the path asked for
	Key    string // the answer
}

// Solve answers one challenge over HTTP until ctx ends. cert-manager starts a
// pod for it; see the hidden command acme-solver.
func Solve(ctx context.Context, log *slog.Logger, c Challenge) error {
	s := &solver.HTTP01Solver{ListenPort: c.Port, Domain: c.Domain, Token: c.Token, Key: c.Key}
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	if err := s.Listen(logr.FromSlogHandler(log.Handler())); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("answer the challenge for %q: %w", c.Domain, err)
	}
	return nil
}
