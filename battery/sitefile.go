package battery

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// SiteFile is where a battery's process finds the settings it was rendered
// with: a file of its own, mounted read-only from the ConfigMap "site" of the
// battery's namespace, whose change rolls the workload.
const SiteFile = "/etc/emerald/site.json"

// SiteSettings is the part of a Site that reaches a battery's process through
// [SiteFile]. Replicas is there for whoever asks, but its change alone rolls
// nothing: a machine that joins must not restart every battery.
type SiteSettings struct {
	Domain          string          `json:"domain"`
	Image           string          `json:"image"`
	Replicas        int32           `json:"replicas"`
	ClusterDomain   string          `json:"clusterDomain"`
	DNSAddress      string          `json:"dnsAddress"`
	RegistryAddress string          `json:"registryAddress"`
	DataDir         string          `json:"dataDir,omitempty"`
	Config          json.RawMessage `json:"config,omitempty"`

	// Batteries holds, in the file of a shared workload, the Config of each
	// battery it runs, by name; null for one without. Config is empty then.
	Batteries map[string]json.RawMessage `json:"batteries,omitempty"`
}

// Fingerprint returns a short digest of everything whose change must restart
// the processes that read the settings. It is the value of the annotation
// [AnnotationSite] on their pods.
func (s SiteSettings) Fingerprint() (string, error) {
	s.Replicas = 0
	raw, err := json.Marshal(s)
	if err != nil {
		return "", fmt.Errorf("encode the settings: %w", err)
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:8]), nil
}

// Settings returns what of the site goes into [SiteFile].
func (s Site) Settings() (SiteSettings, error) {
	out := SiteSettings{
		Domain: s.Domain, Image: s.Image, Replicas: s.Replicas, ClusterDomain: s.ClusterDomain,
		DNSAddress: s.DNSAddress, RegistryAddress: s.RegistryAddress, DataDir: s.DataDir,
	}
	if s.Config != nil {
		raw, err := json.Marshal(s.Config)
		if err != nil {
			return out, fmt.Errorf("encode the settings: %w", err)
		}
		out.Config = raw
	}
	return out, nil
}

// configMap returns the ConfigMap that is mounted at the directory of SiteFile.
func (s SiteSettings) configMap() (*corev1.ConfigMap, error) {
	raw, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode the settings: %w", err)
	}
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "site"},
		Data:       map[string]string{path.Base(SiteFile): string(raw)},
	}, nil
}
