package controlplane

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	apiserverv1 "k8s.io/apiserver/pkg/apis/apiserver/v1"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	podsecurityv1 "k8s.io/pod-security-admission/admission/api/v1"
	"sigs.k8s.io/yaml"

	"github.com/emerald-platform/emerald/kit/durable"
)

// Files in the conf directory that kube-apiserver reads.
const (
	authenticationFile = "authentication.yaml"
	encryptionFile     = "encryption.yaml"
	auditFile          = "audit.yaml"
	admissionFile      = "admission.yaml"
)

func writeAPIServerSettings(o Options) error {
	if err := writeSettings(o, authenticationFile, authentication()); err != nil {
		return err
	}
	if err := writeSettings(o, auditFile, auditPolicy()); err != nil {
		return err
	}
	admission, err := admissionSettings()
	if err != nil {
		return err
	}
	if err := writeSettings(o, admissionFile, admission); err != nil {
		return err
	}
	return ensureEncryption(o)
}

// admissionSettings hold the Pod Security level of namespaces that name none:
// what escapes to the host is refused, what falls short of "restricted" is
// told to whoever does it. Kubernetes' own namespace is exempt.
func admissionSettings() (*apiserverv1.AdmissionConfiguration, error) {
	podSecurity, err := json.Marshal(&podsecurityv1.PodSecurityConfiguration{
		TypeMeta: metav1.TypeMeta{APIVersion: "pod-security.admission.config.k8s.io/v1", Kind: "PodSecurityConfiguration"},
		Defaults: podsecurityv1.PodSecurityDefaults{
			Enforce: "baseline", EnforceVersion: "latest",
			Audit: "restricted", AuditVersion: "latest",
			Warn: "restricted", WarnVersion: "latest",
		},
		Exemptions: podsecurityv1.PodSecurityExemptions{Namespaces: []string{metav1.NamespaceSystem}},
	})
	if err != nil {
		return nil, fmt.Errorf("encode the Pod Security defaults: %w", err)
	}
	return &apiserverv1.AdmissionConfiguration{
		TypeMeta: metav1.TypeMeta{APIVersion: "apiserver.config.k8s.io/v1", Kind: "AdmissionConfiguration"},
		Plugins: []apiserverv1.AdmissionPluginConfiguration{{
			Name: "PodSecurity", Configuration: &runtime.Unknown{Raw: podSecurity},
		}},
	}, nil
}

func writeSettings(o Options, name string, settings any) error {
	raw, err := yaml.Marshal(settings)
	if err != nil {
		return fmt.Errorf("encode %s: %w", name, err)
	}
	if err := durable.WriteFile(filepath.Join(o.confDir(), name), raw, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// authentication lets the nameless ask for health and nothing else
// (KEP-4633).
func authentication() *apiserverv1.AuthenticationConfiguration {
	return &apiserverv1.AuthenticationConfiguration{
		TypeMeta: metav1.TypeMeta{APIVersion: "apiserver.config.k8s.io/v1", Kind: "AuthenticationConfiguration"},
		Anonymous: &apiserverv1.AnonymousAuthConfig{
			Enabled:    true,
			Conditions: []apiserverv1.AnonymousAuthCondition{{Path: "/livez"}, {Path: "/readyz"}, {Path: "/healthz"}},
		},
	}
}

// ensureEncryption writes the key that encrypts secrets before the first
// secret can be written. An existing file is kept: losing its key would lose
// every secret.
func ensureEncryption(o Options) error {
	path := filepath.Join(o.confDir(), encryptionFile)
	raw, err := os.ReadFile(path)
	if err == nil {
		return checkEncryption(path, raw)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read the key that encrypts secrets: %w", err)
	}
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return fmt.Errorf("make the encryption key: %w", err)
	}
	return writeSettings(o, encryptionFile, &apiserverv1.EncryptionConfiguration{
		TypeMeta: metav1.TypeMeta{APIVersion: "apiserver.config.k8s.io/v1", Kind: "EncryptionConfiguration"},
		Resources: []apiserverv1.ResourceConfiguration{{
			Resources: []string{"secrets"},
			Providers: []apiserverv1.ProviderConfiguration{
				{Secretbox: &apiserverv1.SecretboxConfiguration{
					Keys: []apiserverv1.Key{{Name: "first", Secret: base64.StdEncoding.EncodeToString(key)}},
				}},
				// Lets a restored backup of a cluster without encryption be
				// read; every write goes to the first provider.
				{Identity: &apiserverv1.IdentityConfiguration{}},
			},
		}},
	})
}

// errDamaged means that a file does not hold what it should.
var errDamaged = errors.New("it is damaged")

// checkEncryption refuses a file without a key, which kube-apiserver would
// refuse with words that help nobody.
func checkEncryption(path string, raw []byte) error {
	have := &apiserverv1.EncryptionConfiguration{}
	if yaml.Unmarshal(raw, have) == nil {
		for _, r := range have.Resources {
			for _, p := range r.Providers {
				if p.Secretbox == nil {
					continue
				}
				for _, k := range p.Secretbox.Keys {
					if key, err := base64.StdEncoding.DecodeString(k.Secret); err == nil && len(key) == 32 && len(r.Resources) > 0 {
						return nil
					}
				}
			}
		}
	}
	return fmt.Errorf("read the key that encrypts secrets, %s: %w: restore it from a backup, or start over with: emerald down --wipe", path, errDamaged)
}

// auditPolicy records who changed what, and who looked at secrets; never
// bodies, which may hold secrets themselves.
func auditPolicy() *auditv1.Policy {
	none := func(r auditv1.PolicyRule) auditv1.PolicyRule { r.Level = auditv1.LevelNone; return r }
	return &auditv1.Policy{
		TypeMeta:   metav1.TypeMeta{APIVersion: "audit.k8s.io/v1", Kind: "Policy"},
		OmitStages: []auditv1.Stage{auditv1.StageRequestReceived},
		Rules: []auditv1.PolicyRule{
			none(auditv1.PolicyRule{NonResourceURLs: []string{"/livez*", "/readyz*", "/healthz*", "/metrics", "/version", "/openapi/*"}}),
			none(auditv1.PolicyRule{Resources: []auditv1.GroupResources{{Group: "", Resources: []string{"events"}}, {Group: "events.k8s.io"}}}),
			// Heartbeats and leader elections, many a second.
			none(auditv1.PolicyRule{Resources: []auditv1.GroupResources{{Group: "coordination.k8s.io", Resources: []string{"leases"}}}}),
			none(auditv1.PolicyRule{
				UserGroups: []string{"system:nodes"},
				Resources:  []auditv1.GroupResources{{Group: "", Resources: []string{"nodes/status", "pods/status"}}},
			}),
			{Level: auditv1.LevelMetadata, Resources: []auditv1.GroupResources{{Group: "", Resources: []string{"secrets"}}}},
			none(auditv1.PolicyRule{Verbs: []string{"get", "list", "watch"}}),
			{Level: auditv1.LevelMetadata},
		},
	}
}
