package certs

import (
	"context"
	"fmt"
	"log/slog"

	cmscheme "github.com/cert-manager/cert-manager/pkg/client/clientset/versioned/scheme"
	"github.com/cert-manager/cert-manager/pkg/controller/cainjector"
	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	kscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/emerald-platform/emerald/battery"
)

// injected are the kinds whose CA bundles are kept up to date where they ask for
// it with an annotation such as cert-manager.io/inject-ca-from: most programs
// that bring webhooks along do.
var injected = map[string]bool{
	cainjector.MutatingWebhookConfigurationName:   true,
	cainjector.ValidatingWebhookConfigurationName: true,
	cainjector.APIServiceName:                     true,
	cainjector.CustomResourceDefinitionName:       true,
}

// runInjector runs cert-manager's CA injector until ctx ends.
func runInjector(ctx context.Context, s battery.Site) error {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		kscheme.AddToScheme, cmscheme.AddToScheme, apiextensionsv1.AddToScheme, apiregistrationv1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			return fmt.Errorf("set up the CA injector: %w", err)
		}
	}
	cfg := rest.CopyConfig(s.Kube)
	// The injector takes its field manager from here.
	cfg.UserAgent = "cert-manager-cainjector"
	mgr, err := ctrl.NewManager(cfg, ctrl.Options{
		Scheme: scheme,
		Logger: logr.FromSlogHandler(quiet{s.Log.Handler()}),
		Cache: cache.Options{
			ReaderFailOnMissingInformer: true,
			DefaultTransform:            cache.TransformStripManagedFields(),
			ByObject: map[client.Object]cache.ByObject{
				&apiextensionsv1.CustomResourceDefinition{}: {Transform: dropSchemas},
			},
		},
		// A Secret is read when it is needed; only that it changed is watched.
		Client:  client.Options{Cache: &client.CacheOptions{DisableFor: []client.Object{&corev1.Secret{}}}},
		Metrics: metricsserver.Options{BindAddress: "0"},
		// The names only have to be unique in the metrics.
		Controller: config.Controller{SkipNameValidation: new(true)},
	})
	if err != nil {
		return fmt.Errorf("set up the CA injector: %w", err)
	}
	options := cainjector.SetupOptions{EnableCertificatesDataSource: true, EnabledReconcilersFor: injected}
	if err := cainjector.RegisterAllInjectors(ctx, mgr, options); err != nil {
		return fmt.Errorf("set up the CA injector: %w", err)
	}
	if err := mgr.Start(ctx); err != nil {
		return fmt.Errorf("run the CA injector: %w", err)
	}
	return nil
}

// dropSchemas keeps of a definition what the injector looks at. It never writes
// a definition back: it applies the bundle alone.
func dropSchemas(obj any) (any, error) {
	if crd, ok := obj.(*apiextensionsv1.CustomResourceDefinition); ok {
		crd.Spec.Versions, crd.ManagedFields = nil, nil
		crd.Status = apiextensionsv1.CustomResourceDefinitionStatus{}
	}
	return obj, nil
}

// quiet drops what controller-runtime says about starting each of its parts.
type quiet struct{ slog.Handler }

// Enabled lets warnings and errors through.
func (q quiet) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn && q.Handler.Enabled(ctx, l)
}

// WithAttrs keeps quiet.
func (q quiet) WithAttrs(attrs []slog.Attr) slog.Handler { return quiet{q.Handler.WithAttrs(attrs)} }

// WithGroup keeps quiet.
func (q quiet) WithGroup(name string) slog.Handler { return quiet{q.Handler.WithGroup(name)} }
