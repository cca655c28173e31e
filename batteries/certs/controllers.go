package certs

import (
	"context"
	"fmt"
	"slices"
	"time"

	cmcontroller "github.com/cert-manager/cert-manager/pkg/controller"
	"github.com/cert-manager/cert-manager/pkg/controller/acmechallenges"
	"github.com/cert-manager/cert-manager/pkg/controller/acmeorders"
	gateways "github.com/cert-manager/cert-manager/pkg/controller/certificate-shim/gateways"
	ingresses "github.com/cert-manager/cert-manager/pkg/controller/certificate-shim/ingresses"
	listenersets "github.com/cert-manager/cert-manager/pkg/controller/certificate-shim/listenerset"
	requestsacme "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/acme"
	"github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/approver"
	requestsca "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/ca"
	requestsselfsigned "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/selfsigned"
	requestsvault "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/vault"
	"github.com/cert-manager/cert-manager/pkg/controller/certificates/issuing"
	"github.com/cert-manager/cert-manager/pkg/controller/certificates/keymanager"
	certificatemetrics "github.com/cert-manager/cert-manager/pkg/controller/certificates/metrics"
	"github.com/cert-manager/cert-manager/pkg/controller/certificates/readiness"
	"github.com/cert-manager/cert-manager/pkg/controller/certificates/requestmanager"
	"github.com/cert-manager/cert-manager/pkg/controller/certificates/revisionmanager"
	"github.com/cert-manager/cert-manager/pkg/controller/certificates/trigger"
	"github.com/cert-manager/cert-manager/pkg/controller/clusterissuers"
	"github.com/cert-manager/cert-manager/pkg/controller/issuers"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/acme"
	"github.com/cert-manager/cert-manager/pkg/issuer/acme/dns/util"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/ca"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/selfsigned"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/vault"
	logf "github.com/cert-manager/cert-manager/pkg/logs"
	"github.com/cert-manager/cert-manager/pkg/util/feature"
	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/emerald-platform/emerald/battery"
)

// always are the controllers that run in any cluster. Those for the Venafi
// issuer are missing: its library cannot be had.
var always = []string{
	issuers.ControllerName, clusterissuers.ControllerName,
	trigger.ControllerName, keymanager.ControllerName, requestmanager.ControllerName, issuing.ControllerName,
	readiness.ControllerName, revisionmanager.ControllerName, certificatemetrics.ControllerName,
	requestsselfsigned.CRControllerName, requestsca.CRControllerName,
	requestsacme.CRControllerName, requestsvault.CRControllerName,
	acmeorders.ControllerName, acmechallenges.ControllerName,
	ingresses.ControllerName,
}

// withGateways are those that need the Gateway API's definitions.
var withGateways = []string{gateways.ControllerName, listenersets.ControllerName}

// gates are cert-manager's feature gates that differ from its defaults.
var gates = map[string]bool{
	// Certificates for the hosts that apps bring along.
	"ListenerSets": true,
	// Several controllers write the status of one Certificate at a time. Without
	// this they fail each other's writes, and come back a second later or more.
	"ServerSideApply": true,
}

// workers is how many objects each controller works on at a time.
const workers = 5

// controllers is cert-manager, ready to run once.
type controllers struct {
	log   logr.Logger
	base  *cmcontroller.Context
	loops []cmcontroller.Interface
}

// newControllers builds cert-manager's controllers. They reach the API by the
// kubeconfig file, and work on Gateways only when told that there are any.
func newControllers(ctx context.Context, s battery.Site, kubeconfig string, withGatewayAPI bool) (*controllers, error) {
	if err := feature.DefaultMutableFeatureGate.SetFromMap(gates); err != nil {
		return nil, fmt.Errorf("set cert-manager's feature gates: %w", err)
	}
	log := logr.FromSlogHandler(s.Log.Handler())
	ctx = logf.NewContext(ctx, log)
	factory, err := cmcontroller.NewContextFactory(ctx, contextOptions(s, kubeconfig, withGatewayAPI))
	if err != nil {
		return nil, fmt.Errorf("set up cert-manager: %w", err)
	}
	base, err := factory.Build()
	if err != nil {
		return nil, fmt.Errorf("set up cert-manager: %w", err)
	}
	names := slices.Clone(always)
	if withGatewayAPI {
		names = append(names, withGateways...)
	}
	if s.Config.(Config).AutoApprove {
		names = append(names, approver.ControllerName)
	}
	c := &controllers{log: log, base: base}
	known := cmcontroller.Known()
	for _, name := range names {
		construct, ok := known[name]
		if !ok {
			return nil, fmt.Errorf("set up cert-manager: it has no controller %q", name)
		}
		loop, err := construct(factory)
		if err != nil {
			return nil, fmt.Errorf("set up cert-manager's controller %q: %w", name, err)
		}
		c.loops = append(c.loops, loop)
	}
	return c, nil
}

// run works until ctx ends.
func (c *controllers) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(logf.NewContext(ctx, c.log))
	for _, loop := range c.loops {
		g.Go(func() error {
			err := loop.Run(workers, ctx)
			if ctx.Err() != nil {
				// It says so when it is ended before it has seen everything.
				return nil
			}
			return err
		})
	}
	c.base.SharedInformerFactory.Start(ctx.Done())
	c.base.KubeSharedInformerFactory.Start(ctx.Done())
	c.base.HTTP01ResourceMetadataInformersFactory.Start(ctx.Done())
	if c.base.GatewaySolverEnabled {
		c.base.GWShared.Start(ctx.Done())
	}
	err := g.Wait()
	c.base.GWShared.Shutdown()
	c.base.HTTP01ResourceMetadataInformersFactory.Shutdown()
	c.base.SharedInformerFactory.Shutdown()
	if err != nil {
		return fmt.Errorf("run cert-manager: %w", err)
	}
	return nil
}

func contextOptions(s battery.Site, kubeconfig string, withGatewayAPI bool) cmcontroller.ContextOptions {
	cfg := s.Config.(Config)
	resolvers := cfg.DNS01Resolvers
	if len(resolvers) == 0 {
		resolvers = util.RecursiveNameservers
	}
	return cmcontroller.ContextOptions{
		Kubeconfig: kubeconfig,
		// Counted only where the API server does no fair queuing itself.
		KubernetesAPIQPS: 50, KubernetesAPIBurst: 100,
		IssuerOptions: cmcontroller.IssuerOptions{
			ClusterResourceNamespace:        s.Namespace,
			ClusterIssuerAmbientCredentials: cfg.AmbientCredentials,
		},
		ACMEOptions: cmcontroller.ACMEOptions{
			HTTP01SolverImage:                 s.Image,
			HTTP01SolverResourceRequestCPU:    resource.MustParse("10m"),
			HTTP01SolverResourceRequestMemory: resource.MustParse("64Mi"),
			HTTP01SolverResourceLimitsCPU:     resource.MustParse("500m"),
			HTTP01SolverResourceLimitsMemory:  resource.MustParse("256Mi"),
			ACMEHTTP01SolverRunAsNonRoot:      true,
			DNS01Nameservers:                  resolvers,
			DNS01CheckAuthoritative:           len(cfg.DNS01Resolvers) == 0,
			// Also the pause between looks at a challenge served over HTTP.
			DNS01CheckRetryPeriod: 2 * time.Second,
		},
		IngressShimOptions: cmcontroller.IngressShimOptions{
			// Who asks for TLS without naming an issuer gets the platform's.
			DefaultAutoCertificateAnnotations: []string{"kubernetes.io/tls-acme"},
			DefaultIssuerName:                 AuthorityName,
			DefaultIssuerKind:                 "ClusterIssuer",
			DefaultIssuerGroup:                group,
		},
		CertificateOptions: cmcontroller.CertificateOptions{
			EnableOwnerRef:           cfg.DeleteSecrets,
			CopiedAnnotationPrefixes: []string{"*", "-kubectl.kubernetes.io/", "-fluxcd.io/", "-argocd.argoproj.io/", "-emerald.dev/"},
			// A failed request is tried again soon at first: most fail because
			// something else is not there yet.
			CertificateRequestMinimumBackoffDuration: time.Minute,
			CertificateRequestMaximumBackoffDuration: 8 * time.Hour,
		},
		SchedulerOptions: cmcontroller.SchedulerOptions{MaxConcurrentChallenges: 60},
		ConfigOptions: cmcontroller.ConfigOptions{
			EnableGatewayAPI: withGatewayAPI, EnableGatewayAPIListenerSet: withGatewayAPI,
		},
	}
}
