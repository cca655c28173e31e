package install

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/emerald-platform/emerald/api/v1alpha1"
	"github.com/emerald-platform/emerald/battery"
)

// ErrNotInstalled is returned about a cluster that has no Emerald.
var ErrNotInstalled = errors.New("this cluster has no Emerald yet")

// Sites returns what each battery that is on in the cluster was rendered with,
// by name, with Kube set to cfg: what a proof is given. Log is left nil. It
// takes no more rights than reading two ConfigMaps of emerald-system.
func Sites(ctx context.Context, cfg *rest.Config, all []battery.Battery) (map[string]battery.Site, error) {
	c, err := newCluster(cfg)
	if err != nil {
		return nil, err
	}
	cm, err := c.core.ConfigMaps(battery.SystemNamespace).Get(ctx, "site", metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("read the settings in force: %w", ErrNotInstalled)
	}
	if err != nil {
		return nil, fmt.Errorf("read the settings in force: %w", err)
	}
	var s battery.SiteSettings
	if err := json.Unmarshal([]byte(cm.Data[path.Base(battery.SiteFile)]), &s); err != nil {
		return nil, fmt.Errorf("decode the settings in force: %w", err)
	}
	spec, err := c.accepted(ctx)
	if err != nil {
		return nil, err
	}
	if spec == nil {
		spec = &v1alpha1.PlatformSpec{}
	}
	p, err := decide(all, *spec, battery.Site{
		Domain: s.Domain, Image: s.Image, Replicas: s.Replicas, ClusterDomain: s.ClusterDomain,
		DNSAddress: s.DNSAddress, RegistryAddress: s.RegistryAddress, DataDir: s.DataDir,
	})
	if err != nil {
		return nil, fmt.Errorf("follow the settings in force: %w", err)
	}
	out := map[string]battery.Site{}
	for i := range all {
		if b := &all[i]; p.on[b.Name] {
			site := p.siteOf(b)
			site.Kube = rest.CopyConfig(cfg)
			out[b.Name] = site
		}
	}
	return out, nil
}
