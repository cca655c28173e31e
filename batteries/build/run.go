package build

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"time"

	buildkit "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/session"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilcache "k8s.io/apimachinery/pkg/util/cache"
	"k8s.io/client-go/kubernetes"

	"github.com/emerald-platform/emerald/batteries/build/bases"
	"github.com/emerald-platform/emerald/batteries/build/client"
	"github.com/emerald-platform/emerald/batteries/build/daemon"
	"github.com/emerald-platform/emerald/battery"
)

// run serves builds until ctx ends.
func run(ctx context.Context, s battery.Site) error {
	set, err := s.Config.(Config).read()
	if err != nil {
		return err
	}
	if _, err := os.Stat(runcPath); err != nil {
		return fmt.Errorf("find runc, which every machine of the platform has in its bin directory: %w", err)
	}
	relayLog(s.Log)
	// Between builds there is nothing to hurry for, and during them compressing
	// layers makes much garbage that the default clears sooner.
	debug.SetGCPercent(100)

	m, err := watchMachine(ctx, s)
	if err != nil {
		return err
	}
	authorize, err := newGate(s)
	if err != nil {
		return err
	}
	// BuildKit's own downloads (ADD https://…) use the process's transport.
	transport := http.DefaultTransport.(*http.Transport)
	transport.Proxy = m.proxyFor
	abroad := &http.Client{Transport: transport}
	regs := newRegistries(s, abroad)

	scratch := filepath.Join(stateDir, "scratch")
	if err := os.RemoveAll(scratch); err != nil { // of a process that was killed
		return fmt.Errorf("clear the downloads: %w", err)
	}
	var d *daemon.Daemon
	maker := bases.New(bases.Options{
		Client:  func(ctx context.Context) (*buildkit.Client, error) { return d.Client(ctx) },
		HTTP:    abroad,
		Sources: m.sources,
		Push:    func(ref string) (string, session.Attachable) { return m.pushName(ref), ownLogin{host: regs.own} },
		Scratch: scratch,
		MaxAge:  set.baseAge,
		Now:     time.Now,
	})
	d, err = daemon.New(ctx, daemon.Options{
		Root: filepath.Join(stateDir, "buildkit"), Runc: runcPath,
		Hosts: regs.hosts, Authorize: authorize, Surroundings: m.surroundings, Bases: maker,
		CacheSize: set.cacheSize, KeepFree: set.keepFree, Parallel: set.parallel,
		Log: s.Log,
	})
	if err != nil {
		return err
	}
	listen := net.ListenConfig{}
	l, err := listen.Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(client.Port)))
	if err != nil {
		return errors.Join(fmt.Errorf("listen for builds: %w", err), d.Close())
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.Serve(ctx, l) })
	g.Go(func() error {
		if err := d.Wait(ctx); err != nil {
			return err
		}
		s.Ready()
		return nil
	})
	return g.Wait()
}

// knownFor is how long a token that was found good is not asked about again.
const knownFor = time.Minute

// newGate returns what tells whether the bearer of a token may build: whoever
// the API server gave a token of the ServiceAccount [client.Account], made for
// this builder. RBAC on serviceaccounts/token decides who gets one.
func newGate(s battery.Site) (func(context.Context, string) error, error) {
	api, err := kubernetes.NewForConfig(s.Kube)
	if err != nil {
		return nil, fmt.Errorf("reach the cluster: %w", err)
	}
	audience := client.Audience(s.Domain)
	user := "system:serviceaccount:" + s.Namespace + ":" + client.Account
	known := utilcache.NewExpiring()
	return func(ctx context.Context, token string) error {
		key := sha256.Sum256([]byte(token))
		if _, ok := known.Get(key); ok {
			return nil
		}
		r, err := api.AuthenticationV1().TokenReviews().Create(ctx, &authenticationv1.TokenReview{
			Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: []string{audience}},
		}, metav1.CreateOptions{})
		if err != nil {
			return fmt.Errorf("ask whose the token is: %w", err)
		}
		// A server that knows nothing of audiences returns none: its word means
		// nothing here.
		if !r.Status.Authenticated || r.Status.User.Username != user || !slices.Contains(r.Status.Audiences, audience) {
			return errors.New("the token is not one for this builder: use `emerald build`")
		}
		known.Set(key, true, knownFor)
		return nil
	}, nil
}

// relayLog makes BuildKit's own log part of the battery's.
func relayLog(log *slog.Logger) {
	logrus.SetOutput(io.Discard)
	logrus.SetLevel(logrus.WarnLevel)
	logrus.AddHook(logHook{log})
}

// logHook hands logrus entries to slog.
type logHook struct{ log *slog.Logger }

// Levels implements logrus.Hook.
func (logHook) Levels() []logrus.Level { return logrus.AllLevels }

// Fire implements logrus.Hook.
func (h logHook) Fire(e *logrus.Entry) error {
	level := slog.LevelInfo
	switch {
	case e.Level <= logrus.ErrorLevel:
		level = slog.LevelError
	case e.Level == logrus.WarnLevel:
		level = slog.LevelWarn
	}
	attrs := make([]slog.Attr, 0, len(e.Data)+1)
	attrs = append(attrs, slog.String("message", e.Message))
	for k, v := range e.Data {
		attrs = append(attrs, slog.Any(k, v))
	}
	h.log.LogAttrs(context.Background(), level, "buildkit", attrs...)
	return nil
}
