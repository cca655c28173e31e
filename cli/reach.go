package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/emerald-platform/emerald/api/v1alpha1"
	"github.com/emerald-platform/emerald/battery/install"
	"github.com/emerald-platform/emerald/platform/machine"
)

// patience is how long commands that only look wait for an answer.
const patience = 10 * time.Second

// explain turns an error of the API server of cfg into one that says what to do
// next. It knows more when the platform is coming up, or down, on this machine.
func explain(ctx context.Context, cfg *rest.Config, err error) error {
	var network net.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, install.ErrNotInstalled):
		return fmt.Errorf("%w: install it with: emerald up", err)
	case apierrors.IsUnauthorized(err):
		return fmt.Errorf("the API server at %s does not know you: %w: write a fresh kubeconfig with: emerald kubeconfig", cfg.Host, err)
	case apierrors.IsForbidden(err):
		// Until its roles are there the API server lets nobody in.
		if doing := comingUp(ctx); doing != "" {
			return fmt.Errorf("the platform on this machine is coming up: %s: watch it with: emerald up", doing)
		}
		return fmt.Errorf("%w: ask an administrator, or use the machine's own context: --context emerald", err)
	case errors.As(err, &network) || errors.Is(err, context.DeadlineExceeded):
		if doing := comingUp(ctx); doing != "" {
			return fmt.Errorf("the API server at %s does not answer yet: the platform on this machine is coming up: %s: watch it with: emerald up", cfg.Host, doing)
		}
		return fmt.Errorf("the API server at %s does not answer: %w: start the platform with: emerald up", cfg.Host, err)
	}
	return err
}

// explainSilence makes every command below cmd say what to do when the API
// server does not answer.
func (e *env) explainSilence(cmd *cobra.Command) {
	for _, c := range cmd.Commands() {
		e.explainSilence(c)
	}
	run := cmd.RunE
	if run == nil {
		return
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		err := run(cmd, args)
		var request *url.Error
		if !errors.As(err, &request) {
			return err
		}
		cfg, cfgErr := e.restConfig()
		if cfgErr != nil || !strings.HasPrefix(request.URL, cfg.Host) {
			return err
		}
		return explain(context.WithoutCancel(cmd.Context()), cfg, err)
	}
}

// comingUp returns what the platform on this machine is doing to come up, ""
// when it is not, or is up.
func comingUp(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	state, err := machine.Follow(ctx, defaultDirs(), -1)
	if err != nil || state.Ready {
		return ""
	}
	for _, s := range state.Steps {
		switch {
		case s.Done:
		case s.Error != "":
			return s.Name + ": " + s.Error
		case s.Waits != "":
			return s.Name + " waits for " + s.Waits
		default:
			return s.Name
		}
	}
	return ""
}

// objects returns a client for the platform's own types and those of
// Kubernetes.
func objects(cfg *rest.Config) (client.Client, error) {
	c, err := client.New(cfg, client.Options{})
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	if err := v1alpha1.AddToScheme(c.Scheme()); err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	return c, nil
}
