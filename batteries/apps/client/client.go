// Package client does to Apps what people ask for: deploy, wait, follow logs,
// scale, roll back, delete. `emerald deploy` and `emerald app` print what it
// returns.
//
// It promises that a change is applied whole or not at all, that a refused
// change is taken back, and that whatever goes wrong is explained with the app's
// own last words. It refuses to overwrite what another tool manages.
//
// Invariant: it works through the Kubernetes API alone, with the rights of
// whoever calls it.
package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/emerald-platform/emerald/api/v1alpha1"
)

// Manager is the field manager of what this package applies (Kubernetes
// server-side apply, KEP-555).
const Manager = "emerald"

// Client reaches the Apps of one cluster. It is safe for concurrent use.
type Client struct {
	kube *rest.Config
	api  client.WithWatch
	core kubernetes.Interface
}

// New returns a client for the cluster that kube leads to. It does not connect
// yet.
func New(kube *rest.Config) (*Client, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, appsv1.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("build the scheme: %w", err)
		}
	}
	// Warnings of the API server go nowhere: they are about objects the user
	// did not write.
	kube = rest.CopyConfig(kube)
	kube.WarningHandler = rest.NoWarnings{}
	api, err := client.NewWithWatch(kube, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("reach the cluster: %w: is it up? see: emerald status", err)
	}
	core, err := kubernetes.NewForConfig(kube)
	if err != nil {
		return nil, fmt.Errorf("reach the cluster: %w", err)
	}
	return &Client{kube: kube, api: api, core: core}, nil
}

// Domain returns the platform's domain.
func (c *Client) Domain(ctx context.Context) (string, error) {
	platform := &v1alpha1.Platform{}
	if err := c.api.Get(ctx, client.ObjectKey{Name: v1alpha1.PlatformName}, platform); err != nil {
		return "", fmt.Errorf("read the platform's domain: %w", err)
	}
	if platform.Status.Domain == "" {
		return "", errors.New("read the platform's domain: it is not set up yet: see: emerald status")
	}
	return platform.Status.Domain, nil
}

// ErrNotFound says that there is no such App.
var ErrNotFound = errors.New("it does not exist")

// Get returns an App. Where there is none it returns an error that is
// [ErrNotFound] and names Apps there are.
func (c *Client) Get(ctx context.Context, namespace, name string) (*v1alpha1.App, error) {
	app := &v1alpha1.App{}
	err := c.api.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, app)
	switch {
	case apierrors.IsNotFound(err):
		return nil, c.notFound(ctx, namespace, name)
	case err != nil:
		return nil, fmt.Errorf("read app %q: %w", name, explain(err))
	}
	return app, nil
}

// notFound says which Apps there are instead.
func (c *Client) notFound(ctx context.Context, namespace, name string) error {
	hint := "list all with: emerald app list --all-namespaces"
	if list, err := c.List(ctx, ""); err == nil {
		for i := range list {
			if list[i].Name == name {
				hint = "there is one in another namespace: add --namespace " + list[i].Namespace
				break
			}
		}
	}
	return fmt.Errorf("app %q in namespace %q: %w: %s", name, namespace, ErrNotFound, hint)
}

// List returns the Apps of a namespace, of all namespaces when it is empty, by
// namespace and name.
func (c *Client) List(ctx context.Context, namespace string) ([]v1alpha1.App, error) {
	var list v1alpha1.AppList
	if err := c.api.List(ctx, &list, client.InNamespace(namespace)); err != nil {
		return nil, fmt.Errorf("list apps: %w", explain(err))
	}
	slices.SortFunc(list.Items, func(a, b v1alpha1.App) int {
		return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
	})
	return list.Items, nil
}

// Pods returns the pods of an App, the newest last.
func (c *Client) Pods(ctx context.Context, app *v1alpha1.App) ([]corev1.Pod, error) {
	var list corev1.PodList
	err := c.api.List(ctx, &list, client.InNamespace(app.Namespace), client.MatchingLabels{v1alpha1.LabelApp: app.Name})
	if err != nil {
		return nil, fmt.Errorf("list the pods of app %q: %w", app.Name, explain(err))
	}
	slices.SortStableFunc(list.Items, func(a, b corev1.Pod) int {
		return a.CreationTimestamp.Time.Compare(b.CreationTimestamp.Time)
	})
	return list.Items, nil
}

// explain adds what to do to the errors of the API server that a user meets
// before anything of ours is involved.
func explain(err error) error {
	switch {
	case meta.IsNoMatchError(err), runtime.IsNotRegisteredError(err):
		return fmt.Errorf("%w: the apps battery is not installed: see: emerald status", err)
	case apierrors.IsForbidden(err):
		return fmt.Errorf("%w: ask for the role \"edit\" in that namespace", err)
	}
	return err
}

// CheckNamespace returns an error that says what to type when the namespace
// does not exist.
func (c *Client) CheckNamespace(ctx context.Context, namespace string) error {
	_, err := c.core.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("namespace %q does not exist: make it with: emerald kubectl create namespace %s", namespace, namespace)
	}
	// Whoever may deploy to a namespace need not be allowed to look at it.
	if err != nil && !apierrors.IsForbidden(err) {
		return fmt.Errorf("read namespace %q: %w", namespace, err)
	}
	return nil
}
