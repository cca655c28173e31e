package apps

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/emerald-platform/emerald/api/v1alpha1"
	"github.com/emerald-platform/emerald/battery"
	"github.com/emerald-platform/emerald/kit/poll"
	"github.com/emerald-platform/emerald/kit/reach"
)

// Times of the proofs.
const (
	proofLimit   = 2 * time.Minute        // for an App to become as wanted
	proofCleanup = time.Minute            // for what was made to go
	proofPause   = 200 * time.Millisecond // between looks
	proofRefused = 10 * time.Second       // for a refusal to be more than a moment's
	brokenFor    = 5 * time.Second        // how long a broken update is under load
	loadPause    = 5 * time.Millisecond   // between two requests of one client
)

// stage is a namespace of its own in which a proof acts as a user.
type stage struct {
	site      battery.Site
	api       client.Client
	namespace string
	route     *reach.Route
}

// onStage calls act with a new namespace and removes it afterwards, whatever
// happened.
func onStage(ctx context.Context, s battery.Site, act func(context.Context, *stage) error) (err error) {
	scheme, err := newScheme()
	if err != nil {
		return err
	}
	api, err := client.New(s.Kube, client.Options{Scheme: scheme})
	if err != nil {
		return fmt.Errorf("reach the cluster: %w", err)
	}
	route, err := reach.New(ctx, s.Kube)
	if err != nil {
		return fmt.Errorf("find the gateway: %w", err)
	}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name:   "proof-apps-" + rand.String(6),
		Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"},
	}}
	if err := api.Create(ctx, ns); err != nil {
		return fmt.Errorf("make namespace %q: %w", ns.Name, err)
	}
	defer func() {
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), proofCleanup)
		defer cancel()
		err = errors.Join(err, removeNamespace(late, api, ns))
	}()
	return act(ctx, &stage{site: s, api: api, namespace: ns.Name, route: route})
}

func removeNamespace(ctx context.Context, api client.Client, ns *corev1.Namespace) error {
	if err := client.IgnoreNotFound(api.Delete(ctx, ns)); err != nil {
		return fmt.Errorf("remove namespace %q: %w", ns.Name, err)
	}
	return nil
}

// app returns an App of the platform's own image, which is on every machine and
// answers 200 to everything.
func (s *stage) app(name string, domains ...v1alpha1.Domain) *v1alpha1.App {
	return &v1alpha1.App{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: name},
		Spec: v1alpha1.AppSpec{
			Image: s.site.Image, Command: []string{"/emerald", "echo"}, Port: 8080, Replicas: new(int32(1)), Domains: domains,
		},
	}
}

var errRefused = errors.New("the cluster refuses it")

// until waits for a state of the App and says, when it does not come, which one
// there is.
func (s *stage) until(ctx context.Context, app *v1alpha1.App, reached func(*v1alpha1.App) bool) error {
	key, last := client.ObjectKeyFromObject(app), "no state yet"
	var refused time.Time
	err := poll.Until(ctx, proofPause, proofLimit, func(ctx context.Context) (bool, error) {
		now := &v1alpha1.App{}
		if err := s.api.Get(ctx, key, now); err != nil {
			return false, client.IgnoreNotFound(err)
		}
		if c := meta.FindStatusCondition(now.Status.Conditions, v1alpha1.ConditionReady); c != nil {
			last = fmt.Sprintf("%s: %s", c.Reason, c.Message)
		}
		if now.Status.ObservedGeneration < now.Generation || !reached(now) {
			if readyReason(now) != v1alpha1.ReasonRefused {
				refused = time.Time{}
			} else if refused.IsZero() {
				refused = time.Now()
			} else if time.Since(refused) > proofRefused {
				return false, errRefused
			}
			return false, nil
		}
		*app = *now
		return true, nil
	})
	if err != nil {
		return fmt.Errorf("wait for app %q: %w: it says %s", app.Name, err, last)
	}
	return nil
}

func isReady(app *v1alpha1.App) bool {
	return meta.IsStatusConditionTrue(app.Status.Conditions, v1alpha1.ConditionReady)
}

func isRefusedFor(reason string) func(*v1alpha1.App) bool {
	return func(app *v1alpha1.App) bool { return readyReason(app) == reason }
}

// get asks for a URL once and wants 200 with a certificate of the platform.
func get(ctx context.Context, c *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("ask %s: %w", url, err)
	}
	resp, err := c.Do(req)
	if err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return fmt.Errorf("read the answer of %s: %w", url, err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("ask %s: %s", url, resp.Status)
	}
	return nil
}

func checkURL(ctx context.Context, site battery.Site) error {
	return onStage(ctx, site, func(ctx context.Context, s *stage) error {
		short := "proof-" + rand.String(8) + "." + site.Domain
		app := s.app("web", v1alpha1.Domain(short))
		if err := s.api.Create(ctx, app); err != nil {
			return fmt.Errorf("make app %q: %w", app.Name, err)
		}
		if err := s.until(ctx, app, isReady); err != nil {
			return err
		}
		web := &http.Client{Transport: s.route.Transport(), Timeout: 10 * time.Second}
		defer web.CloseIdleConnections()
		// The first name has a certificate of its own, the second shares the
		// platform's.
		for _, url := range []string{app.Status.URL, "https://" + short} {
			if err := get(ctx, web, url); err != nil {
				return err
			}
		}

		thief := s.app("thief", v1alpha1.Domain(short))
		if err := s.api.Create(ctx, thief); err != nil {
			return fmt.Errorf("make app %q: %w", thief.Name, err)
		}
		if err := s.until(ctx, thief, isRefusedFor(v1alpha1.ReasonHostTaken)); err != nil {
			return err
		}
		var pods corev1.PodList
		if err := s.api.List(ctx, &pods, client.InNamespace(s.namespace), client.MatchingLabels{v1alpha1.LabelApp: thief.Name}); err != nil {
			return fmt.Errorf("list pods: %w", err)
		}
		if len(pods.Items) > 0 {
			return errors.New("an App that was refused its host name runs all the same")
		}
		return get(ctx, web, "https://"+short)
	})
}

func checkUpdate(ctx context.Context, site battery.Site) error {
	return onStage(ctx, site, func(ctx context.Context, s *stage) error {
		app := s.app("web", v1alpha1.Domain("proof-"+rand.String(8)+"."+site.Domain))
		if err := s.api.Create(ctx, app); err != nil {
			return fmt.Errorf("make app %q: %w", app.Name, err)
		}
		if err := s.until(ctx, app, isReady); err != nil {
			return err
		}
		load := s.startLoad(ctx, "https://"+string(app.Spec.Domains[0]))
		err := s.update(ctx, app)
		answered, failed := load.stop()
		switch {
		case failed != nil:
			return errors.Join(fmt.Errorf("a request failed during updates, after %d that did not: %w", answered, failed), err)
		case err != nil:
			return err
		case answered == 0:
			return errors.New("no request was answered during the updates")
		}
		return nil
	})
}

// update rolls the App twice, once well and once to something that cannot start.
func (s *stage) update(ctx context.Context, app *v1alpha1.App) error {
	change := func(mutate func(*v1alpha1.AppSpec)) error {
		before := app.DeepCopy()
		mutate(&app.Spec)
		if err := s.api.Patch(ctx, app, client.MergeFrom(before)); err != nil {
			return fmt.Errorf("update app %q: %w", app.Name, err)
		}
		return nil
	}
	err := change(func(spec *v1alpha1.AppSpec) { spec.Env = []v1alpha1.EnvVar{{Name: "VERSION", Value: "2"}} })
	if err != nil {
		return err
	}
	if err := s.until(ctx, app, isReady); err != nil {
		return err
	}
	if err := s.untilOnePod(ctx, app); err != nil {
		return err
	}
	if err := change(func(spec *v1alpha1.AppSpec) { spec.Command = []string{"/emerald", "no-such-command"} }); err != nil {
		return err
	}
	began := time.Now()
	err = s.until(ctx, app, func(app *v1alpha1.App) bool {
		return time.Since(began) > brokenFor && strings.HasPrefix(readyReason(app), "CrashLoop")
	})
	if err != nil {
		return err
	}
	if app.Status.ReadyReplicas != 1 {
		return fmt.Errorf("%d copies take requests during a broken update, want the former one", app.Status.ReadyReplicas)
	}
	return nil
}

// untilOnePod waits until the copies of the former version are gone.
func (s *stage) untilOnePod(ctx context.Context, app *v1alpha1.App) error {
	err := poll.Until(ctx, proofPause, proofLimit, func(ctx context.Context) (bool, error) {
		var pods corev1.PodList
		err := s.api.List(ctx, &pods, client.InNamespace(s.namespace), client.MatchingLabels{v1alpha1.LabelApp: app.Name})
		return len(pods.Items) == 1, err
	})
	if err != nil {
		return fmt.Errorf("wait until the former copy of app %q is gone: %w", app.Name, err)
	}
	return nil
}

// load asks for a URL without a break.
type load struct {
	stop func() (answered int64, failed error)
}

// startLoad asks for url from several clients at once, half of which open a
// connection for each request, until stopped or a request fails.
func (s *stage) startLoad(ctx context.Context, url string) load {
	ctx, cancel := context.WithCancel(ctx)
	g, ctx := errgroup.WithContext(ctx)
	var answered atomic.Int64
	for i := range 4 {
		transport := s.route.Transport()
		transport.DisableKeepAlives = i%2 == 1
		c := &http.Client{Transport: transport, Timeout: 30 * time.Second}
		g.Go(func() error {
			defer c.CloseIdleConnections()
			tick := time.NewTicker(loadPause)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return nil
				case <-tick.C:
				}
				err := get(ctx, c, url)
				if ctx.Err() != nil {
					return nil
				}
				if err != nil {
					return err
				}
				answered.Add(1)
			}
		})
	}
	return load{stop: func() (int64, error) {
		cancel()
		err := g.Wait()
		return answered.Load(), err
	}}
}
