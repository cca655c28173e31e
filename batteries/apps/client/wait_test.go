package client

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/emerald-platform/emerald/api/v1alpha1"
)

// deleting returns a client of a cluster whose one App is being deleted and
// held by these finalizers.
func deleting(t *testing.T, finalizers ...string) (*Client, *v1alpha1.App) {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	app := &v1alpha1.App{ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: "shop", UID: "1", Finalizers: finalizers}}
	c := &Client{api: fake.NewClientBuilder().WithScheme(scheme).WithObjects(app).
		WithIndex(app, "metadata.name", func(o client.Object) []string { return []string{o.GetName()} }).Build()}
	if err := c.api.Delete(t.Context(), app); err != nil {
		t.Fatal(err)
	}
	return c, app
}

// What never goes is not waited for without end.
func TestGoneIsBounded(t *testing.T) {
	for name, tt := range map[string]struct {
		finalizer, want string
	}{
		"the garbage collector stands still": {metav1.FinalizerOrphanDependents, "Kubernetes' garbage collector has not dealt with what belongs to it (finalizer orphan)"},
		"another tool holds it":              {"example.org/backup", "whoever put the finalizers example.org/backup on it"},
	} {
		t.Run(name, func(t *testing.T) {
			c, app := deleting(t, tt.finalizer)
			err := c.gone(t.Context(), app, 50*time.Millisecond)
			if err == nil {
				t.Fatal("it was waited for and went")
			}
			for _, want := range []string{tt.want, "emerald status", "emerald kubectl -n team get app shop"} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error does not say %q: %v", want, err)
				}
			}
		})
	}
}

func TestGone(t *testing.T) {
	c, app := deleting(t, metav1.FinalizerOrphanDependents)
	watching := make(chan struct{})
	c.api = interceptor.NewClient(c.api, interceptor.Funcs{
		Watch: func(ctx context.Context, next client.WithWatch, l client.ObjectList, opts ...client.ListOption) (watch.Interface, error) {
			defer close(watching)
			return next.Watch(ctx, l, opts...)
		},
	})
	ended := make(chan error, 1)
	go func() { ended <- c.gone(t.Context(), app, time.Minute) }()
	<-watching
	app = app.DeepCopy()
	if err := c.api.Get(t.Context(), client.ObjectKeyFromObject(app), app); err != nil {
		t.Fatal(err)
	}
	app.Finalizers = nil
	if err := c.api.Update(t.Context(), app); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// Who gives up is told that, and not that it took too long.
func TestGoneIsCancelled(t *testing.T) {
	c, app := deleting(t, metav1.FinalizerOrphanDependents)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.gone(ctx, app, time.Minute); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v", err)
	}
}
