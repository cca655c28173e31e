package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/emerald-platform/emerald/battery"
	"github.com/emerald-platform/emerald/kit/echo"
	"github.com/emerald-platform/emerald/kit/poll"
)

var proofs = []battery.Proof{{
	Feature: "API gateways",
	Claim:   "A route sends requests by host, path, header and weight to its backends; unknown hosts and backends without a grant are refused.",
	Check:   proveRouting,
}, {
	Feature: "API gateways",
	Claim:   "Changing a route under load takes effect at once and fails no request.",
	Check:   proveChange,
}}

// rulePrefix returns a rule for a path prefix.
func rulePrefix(path string, backends ...gatewayv1.HTTPBackendRef) gatewayv1.HTTPRouteRule {
	kind := gatewayv1.PathMatchPathPrefix
	return gatewayv1.HTTPRouteRule{
		Matches:     []gatewayv1.HTTPRouteMatch{{Path: &gatewayv1.HTTPPathMatch{Type: &kind, Value: &path}}},
		BackendRefs: backends,
	}
}

// to refers to a Service of the scene.
func to(service, namespace string, weight int32) gatewayv1.HTTPBackendRef {
	port, ns := gatewayv1.PortNumber(80), gatewayv1.Namespace(namespace)
	ref := gatewayv1.HTTPBackendRef{}
	ref.Name, ref.Port, ref.Weight = gatewayv1.ObjectName(service), &port, &weight
	if namespace != "" {
		ref.Namespace = &ns
	}
	return ref
}

// proveRouting shows that requests go where the route says, and nowhere else.
func proveRouting(ctx context.Context, s battery.Site) error {
	return withScene(ctx, s, func(ctx context.Context, sc *scene) error {
		special := rulePrefix("/", to("two", "", 1))
		special.Matches[0].Headers = []gatewayv1.HTTPHeaderMatch{{Name: "X-Proof", Value: "two"}}
		err := sc.route(ctx,
			rulePrefix("/", to("one", "", 1)), special,
			rulePrefix("/two", to("two", "", 1)),
			rulePrefix("/split", to("one", "", 3), to("two", "", 1)),
			// The default namespace grants nothing to this one.
			rulePrefix("/foreign", to("kubernetes", metav1.NamespaceDefault, 1)),
		)
		if err != nil {
			return err
		}
		for _, path := range []string{"/", "/two"} {
			if err := sc.answers(ctx, path); err != nil {
				return err
			}
		}
		count := map[string]int{}
		var problems []error
		for range 40 {
			a, err := sc.get(ctx, sc.host, "/split", "")
			if err != nil {
				return err
			}
			count[a.Name]++
		}
		if count["one"] < 27 || count["one"] > 33 || count["one"]+count["two"] != 40 {
			problems = append(problems, fmt.Errorf("weights 3 and 1 split 40 requests as %v", count))
		}
		for _, c := range []struct{ path, header, want string }{
			{"/", "", "one"}, {"/twofold", "", "one"}, {"/two", "", "two"}, {"/two/more?x=1", "", "two"}, {"/", "two", "two"},
		} {
			a, err := sc.get(ctx, sc.host, c.path, c.header)
			switch {
			case err != nil:
				problems = append(problems, err)
			case a.Name != c.want:
				problems = append(problems, fmt.Errorf("%s with X-Proof %q went to %q, not to %q", c.path, c.header, a.Name, c.want))
			case a.Host != sc.host:
				problems = append(problems, fmt.Errorf("the backend was told host %q, not %q", a.Host, sc.host))
			}
		}
		return errors.Join(append(problems,
			sc.refuses(ctx, "nobody-"+sc.host, "/", http.StatusNotFound),
			sc.refuses(ctx, sc.host, "/foreign", http.StatusInternalServerError),
			sc.says(ctx, gatewayv1.RouteConditionResolvedRefs, metav1.ConditionFalse, string(gatewayv1.RouteReasonRefNotPermitted)),
		)...)
	})
}

// proveChange changes a route ten times while requests are sent, and waits each
// time until they go to the other backend.
func proveChange(ctx context.Context, s battery.Site) error {
	return withScene(ctx, s, func(ctx context.Context, sc *scene) error {
		if err := sc.route(ctx, rulePrefix("/", to("one", "", 1)), rulePrefix("/two", to("two", "", 1))); err != nil {
			return err
		}
		for _, path := range []string{"/", "/two"} {
			if err := sc.answers(ctx, path); err != nil {
				return err
			}
		}
		ctx, stop := context.WithCancel(ctx)
		defer stop()
		load, loadCtx := errgroup.WithContext(ctx)
		for range 4 {
			load.Go(func() error {
				for loadCtx.Err() == nil {
					if _, err := sc.get(loadCtx, sc.host, "/", ""); err != nil && ctx.Err() == nil {
						return fmt.Errorf("a request failed while the route changed: %w", err)
					}
				}
				return nil
			})
		}
		changes := func() error {
			for i := range 10 {
				name := []string{"two", "one"}[i%2]
				if err := sc.route(loadCtx, rulePrefix("/", to(name, "", 1))); err != nil {
					return err
				}
				err := poll.Until(loadCtx, 20*time.Millisecond, 5*time.Second, func(ctx context.Context) (bool, error) {
					a, err := sc.get(ctx, sc.host, "/", "")
					return a.Name == name, err
				})
				if err != nil {
					return fmt.Errorf("change the route to %q: %w", name, err)
				}
			}
			return nil
		}
		err := changes()
		stop()
		if failed := load.Wait(); failed != nil {
			return failed // the changes end with it
		}
		return err
	})
}

// get asks the gateway for a path of a host and returns the backend's answer.
func (sc *scene) get(ctx context.Context, host, path, header string) (echo.Answer, error) {
	var a echo.Answer
	status, body, err := sc.fetch(ctx, host, path, header)
	if err != nil {
		return a, err
	}
	if status != http.StatusOK {
		return a, fmt.Errorf("%s%s answered %d: %s", host, path, status, body)
	}
	if err := json.Unmarshal(body, &a); err != nil {
		return a, fmt.Errorf("read the answer of %s%s: %w", host, path, err)
	}
	return a, nil
}

func (sc *scene) fetch(ctx context.Context, host, path, header string) (int, []byte, error) {
	url := "http://" + host + path
	if sc.port != 80 {
		url = fmt.Sprintf("http://%s:%d%s", host, sc.port, path)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, nil, fmt.Errorf("make a request for %s%s: %w", host, path, err)
	}
	req.Host = host
	if header != "" {
		req.Header.Set("X-Proof", header)
	}
	resp, err := sc.http.Do(req)
	if err != nil {
		return 0, nil, fmt.Errorf("get %s%s: %w", host, path, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return 0, nil, fmt.Errorf("get %s%s: %w", host, path, err)
	}
	return resp.StatusCode, body, nil
}

// answers waits until a path is served: a pod is ready a moment before its
// Service knows.
func (sc *scene) answers(ctx context.Context, path string) error {
	err := poll.Until(ctx, 50*time.Millisecond, 15*time.Second, func(ctx context.Context) (bool, error) {
		status, _, err := sc.fetch(ctx, sc.host, path, "")
		return status == http.StatusOK, err
	})
	if err != nil {
		return fmt.Errorf("wait for the backend of %s: %w", path, err)
	}
	return nil
}

// refuses demands that the gateway itself answers with a status.
func (sc *scene) refuses(ctx context.Context, host, path string, want int) error {
	status, body, err := sc.fetch(ctx, host, path, "")
	if err == nil && status != want {
		err = fmt.Errorf("%s%s answered %d, not %d: %s", host, path, status, want, body)
	}
	return err
}

// says waits until the route's status has a condition.
func (sc *scene) says(ctx context.Context, kind gatewayv1.RouteConditionType, status metav1.ConditionStatus, reason string) error {
	found := "nothing"
	err := poll.Until(ctx, 50*time.Millisecond, 15*time.Second, func(ctx context.Context) (bool, error) {
		var r gatewayv1.HTTPRoute
		if err := sc.client.Get(ctx, client.ObjectKey{Namespace: sc.namespace, Name: routeName}, &r); err != nil {
			return false, err
		}
		for _, p := range r.Status.Parents {
			c := meta.FindStatusCondition(p.Conditions, string(kind))
			if c == nil || c.ObservedGeneration != r.Generation {
				continue
			}
			if found = fmt.Sprintf("%s (%s: %s)", c.Status, c.Reason, c.Message); c.Status == status && c.Reason == reason {
				return true, nil
			}
		}
		return false, nil
	})
	if err != nil {
		return fmt.Errorf("wait for the route to say %s=%s (%s), it says %s: %w", kind, status, reason, found, err)
	}
	return nil
}
