// Package apps turns an App, the few words a person wants to say about what
// runs, into the standard objects that production asks for: a Deployment, a
// Service, HTTPRoutes with HTTPS, a PodDisruptionBudget, and certificates for
// custom domains.
//
// It promises updates without a failed request, pods held to Pod Security
// "restricted" whenever their image allows it, a host name that belongs to one
// App only, and a status that names the cause and the next command. It refuses
// to touch any object it did not make: an App whose objects' names are taken
// waits and says so.
//
// Invariant: what runs never depends on this battery running. Everything made
// is a standard object that works on when the battery, or the App's owner
// reference, is gone.
package apps

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/emerald-platform/emerald/api/v1alpha1"
	"github.com/emerald-platform/emerald/battery"
)

// Battery is the apps battery.
var Battery = battery.Battery{
	Name:  "apps",
	Doc:   "One short App becomes a running, updatable application behind an HTTPS URL.",
	Needs: []string{"gateway", "certs"},
	Where: battery.Controllers,
	Config: Config{
		Gateway: Gateway{
			Name: "emerald", Namespace: "emerald-gateway",
			HTTP: "http", HTTPS: "https", HTTPRoot: "http-root", HTTPSRoot: "https-root",
		},
		Issuer:     "emerald-ca",
		RootImages: RootInUserNamespace,
		Reserved:   []string{"registry"},
		Defaults:   Defaults{CPU: "50m", Memory: "64Mi", MemoryLimit: "512Mi"},
		History:    10,
	},
	Manifests: manifests,
	Run:       run,
	Proofs: []battery.Proof{
		{
			Feature: "cloud hosting",
			Claim:   "An image becomes an HTTPS URL with the platform's certificate, and a second App that wants the same host name is refused.",
			Check:   checkURL,
		},
		{
			Feature: "cloud hosting",
			Claim:   "An app is updated under load without a failed request, and a broken update never takes its traffic.",
			Check:   checkUpdate,
		},
	},
}

// Config are the settings of the battery.
type Config struct {
	// Gateway is where Apps are reached.
	Gateway Gateway `json:"gateway"`

	// Issuer names the cert-manager ClusterIssuer of certificates for host
	// names that the Gateway's own certificate does not cover.
	Issuer string `json:"issuer"`

	// RootImages says what becomes of images that run as root.
	RootImages RootImages `json:"rootImages"`

	// Reserved are first labels of host names directly below the platform's
	// domain that no App gets, because the platform itself uses them.
	Reserved []string `json:"reserved"`

	// Defaults are the resources of Apps that name none.
	Defaults Defaults `json:"defaults"`

	// History is how many revisions of each App are kept for a rollback,
	// besides the one that runs.
	History int `json:"history"`
}

// Gateway names a Gateway and its listeners.
type Gateway struct {
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
	// HTTP and HTTPS are the names of the listeners for `*.<domain>`.
	HTTP  string `json:"http"`
	HTTPS string `json:"https"`
	// HTTPRoot and HTTPSRoot are those for `<domain>` itself.
	HTTPRoot  string `json:"httpRoot"`
	HTTPSRoot string `json:"httpsRoot"`
}

// RootImages is a way of dealing with images that run as root. See
// docs/adr/0003-root-images.md.
type RootImages string

const (
	// RootInUserNamespace runs them as root of a user namespace, which is
	// nobody on the machine.
	RootInUserNamespace RootImages = "UserNamespace"
	// RootAllowed runs them as root of the machine, for clusters without user
	// namespaces.
	RootAllowed RootImages = "Allow"
	// RootRefused does not run them.
	RootRefused RootImages = "Refuse"
)

// Defaults are quantities of resources as Kubernetes writes them.
type Defaults struct {
	CPU         string `json:"cpu"`
	Memory      string `json:"memory"`
	MemoryLimit string `json:"memoryLimit"`
}

// validate returns what is wrong with the settings, all at once.
func (c Config) validate() error {
	var errs []error
	for _, f := range []struct{ name, value string }{
		{"gateway.name", c.Gateway.Name}, {"gateway.namespace", c.Gateway.Namespace},
		{"gateway.http", c.Gateway.HTTP}, {"gateway.https", c.Gateway.HTTPS},
		{"gateway.httpRoot", c.Gateway.HTTPRoot}, {"gateway.httpsRoot", c.Gateway.HTTPSRoot}, {"issuer", c.Issuer},
	} {
		if f.value == "" {
			errs = append(errs, fmt.Errorf("apps: %s is empty: give a name", f.name))
		}
	}
	for _, f := range []struct{ name, value string }{
		{"cpu", c.Defaults.CPU}, {"memory", c.Defaults.Memory}, {"memoryLimit", c.Defaults.MemoryLimit},
	} {
		if q, err := resource.ParseQuantity(f.value); err != nil || q.Sign() <= 0 {
			errs = append(errs, fmt.Errorf("apps: defaults.%s: %q is no amount: write it like 50m or 64Mi", f.name, f.value))
		}
	}
	if !slices.Contains([]RootImages{RootInUserNamespace, RootAllowed, RootRefused}, c.RootImages) {
		errs = append(errs, fmt.Errorf("apps: rootImages: %q: use %s, %s or %s",
			c.RootImages, RootInUserNamespace, RootAllowed, RootRefused))
	}
	if c.History < 1 || c.History > 100 {
		errs = append(errs, fmt.Errorf("apps: history: %d: use 1 to 100", c.History))
	}
	return errors.Join(errs...)
}

// config returns the settings of the site. The contract guarantees the type.
func config(s battery.Site) Config { return s.Config.(Config) }

// older tells whether a asked before b: by creation, then by namespace and name.
func older(a, b *v1alpha1.App) bool {
	return cmp.Or(
		a.CreationTimestamp.Time.Compare(b.CreationTimestamp.Time),
		cmp.Compare(a.Namespace, b.Namespace),
		cmp.Compare(a.Name, b.Name),
	) < 0
}
