//go:build e2e

package broken

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var policyExempt = broke{
	mistake: "the policies of certificates are bound to namespaces with a label that none has",
	make: func(w *world) func() {
		bindings := strings.Fields(w.kubectl("get", "validatingadmissionpolicybindings", "-l", "emerald.dev/battery=certs", "-o", "name"))
		for _, b := range bindings {
			w.kubectl("patch", b, "--type=merge", "-p", `{"spec":{"matchResources":{"namespaceSelector":{"matchLabels":{"policed":"yes"}}}}}`)
		}
		bad := []string{"create", "--dry-run=server", "-f", "testdata/bad-certificate.yaml"}
		w.eventually("a bad certificate gets in", func(context.Context) error { return w.accepted(bad...) })
		return func() {
			for _, b := range bindings {
				w.kubectl("patch", b, "--type=merge", "-p", `{"spec":{"matchResources":null}}`)
			}
			w.eventually("a bad certificate is refused", func(context.Context) error { return w.refused("write it without scheme", bad...) })
		}
	},
	fails: map[string]string{"What could never be issued is refused": `a certificate for one minute was accepted`},
}

var catchAll = broke{
	mistake: "a route takes the requests for every host that nobody has",
	make:    func(w *world) func() { return w.object("catch-all.yaml") },
	fails:   map[string]string{"A route sends requests by host": `nobody-.* answered 302, not 404`},
}

var overwideRole = broke{
	mistake: "every service account may do everything",
	make: func(w *world) func() {
		heal := w.object("everything-for-everybody.yaml")
		return func() {
			heal()
			// The registry remembers for a while what somebody may do; the proofs
			// use accounts that it has never seen.
		}
	},
	fails: map[string]string{
		"An image comes back byte for byte": `refuse another namespace to (GET|PUT).*it was allowed`,
		"A pod runs an image of its own":    `it ran an image of another namespace`,
	},
}

var oneVersion = broke{
	mistake: "a policy makes every app stop before its next version starts",
	make:    func(w *world) func() { return w.object("one-version.yaml") },
	fails:   map[string]string{"updated under load": `a request failed during updates.*50[23]`},
}

var keysFrozen = broke{
	mistake: "a policy forbids changing keys",
	make: func(w *world) func() {
		return w.policy("frozen-keys.yaml", "keys are frozen", "label", "--dry-run=server", "--overwrite", "secret", "key", "-n", "proof-certs-probe", "a=b")
	},
	fails: map[string]string{"renewed when its time comes": `wait for another certificate.*Renewing certificate`},
}

var keysForbidden = broke{
	mistake: "a policy forbids keys outside of a vault",
	make: func(w *world) func() {
		return w.policy("no-keys.yaml", "keys belong into the vault", "create", "--dry-run=server", "-f", "testdata/other-key.yaml")
	},
	fails: map[string]string{
		"A certificate asked of the platform's authority": `certificate web.*`,
		"A host that asks for TLS":                        `secret`,
		"renewed when its time comes":                     `secret`,
	},
}

var routesForbidden = broke{
	mistake: "a policy leaves routes to the network team",
	make: func(w *world) func() {
		return w.policy("no-routes.yaml", "ask the network team", "create", "--dry-run=server", "-f", "testdata/route.yaml")
	},
	fails: map[string]string{
		"An image becomes an HTTPS URL": `ask the network team for routes`,
		"updated under load":            `ask the network team for routes`,
	},
}

var builderUnplaced = broke{
	mistake: "the builder wants a machine that does not exist",
	make: func(w *world) func() {
		w.kubectl("patch", "deployment", "-n", "emerald-build", "build", "--type=merge", "-p", `{"spec":{"template":{"spec":{"nodeSelector":{"for":"builds"}}}}}`)
		w.eventually("the builder is gone", func(context.Context) error {
			if d := w.deployment("emerald-build", "build"); d.Status.ObservedGeneration < d.Generation || d.Status.ReadyReplicas > 0 {
				return errors.New("it is ready")
			}
			return nil
		})
		return func() {
			w.kubectl("patch", "deployment", "-n", "emerald-build", "build", "--type=merge", "-p", `{"spec":{"template":{"spec":{"nodeSelector":null}}}}`)
			w.rolledOut("emerald-build", "build")
		}
	},
	fails: map[string]string{
		"A folder with a Dockerfile becomes": `no builder is ready.*emerald status`,
		"A broken Dockerfile is refused":     `no builder is ready.*emerald status`,
		"Without a token for the builder":    `no builder is ready.*emerald status`,
	},
}

var authorityReplaced = broke{
	mistake: "the container runtime trusts another authority than the registry's",
	make: func(w *world) func() {
		file := filepath.Join(w.Dirs.RegistryHosts(), "registry.emerald.localhost", "ca.crt")
		before, err := os.ReadFile(file)
		if err != nil {
			w.t.Fatal(err)
		}
		write := func(data []byte) {
			if err := os.WriteFile(file, data, 0o644); err != nil {
				w.t.Fatal(err)
			}
		}
		write(strangeAuthority(w))
		return func() { write(before) }
	},
	fails: map[string]string{"A pod runs an image of its own": `the image cannot be pulled.*certificate signed by unknown authority`},
}

var diskReadOnly = broke{
	mistake: "the registry may not write into its folders",
	make: func(w *world) func() {
		chmod := func(change func(fs.FileMode) fs.FileMode) {
			err := filepath.WalkDir(w.Dirs.InData("batteries", "registry"), func(path string, d fs.DirEntry, err error) error {
				if err != nil || !d.IsDir() {
					return err
				}
				info, err := d.Info()
				if err != nil {
					return err
				}
				return os.Chmod(path, change(info.Mode().Perm()))
			})
			if err != nil {
				w.t.Fatal(err)
			}
		}
		chmod(func(m fs.FileMode) fs.FileMode { return m &^ 0o222 })
		return func() { chmod(func(m fs.FileMode) fs.FileMode { return m | 0o200 }) }
	},
	fails: map[string]string{
		"An image comes back byte for byte":  `push a blob to`,
		"A pod runs an image of its own":     `push a blob to`,
		"A folder with a Dockerfile becomes": `build a folder`,
	},
}

// prepare makes what the mistakes are tried on.
func (w *world) prepare() {
	for _, ns := range []string{"proof-certs-probe", "proof-apps-probe"} {
		w.kubectl("create", "namespace", ns)
	}
	w.kubectl("create", "-f", "testdata/key.yaml")
	w.resolver()
}

// object makes what is in a file of testdata; the returned function deletes it.
func (w *world) object(file string) func() {
	w.t.Helper()
	file = filepath.Join("testdata", file)
	w.kubectl("create", "-f", file)
	return func() { w.kubectl("delete", "-f", file) }
}

// policy is object for a policy, whose effect, on trying what it forbids, is
// waited for.
func (w *world) policy(file, message string, try ...string) func() {
	w.t.Helper()
	remove := w.object(file)
	w.eventually(file+" is in force", func(context.Context) error { return w.refused(message, try...) })
	return func() {
		remove()
		w.eventually(file+" is out of force", func(context.Context) error { return w.accepted(try...) })
	}
}

// rolledOut waits until the newest copy is the only one, and ready.
func (w *world) rolledOut(namespace, name string) {
	w.t.Helper()
	w.eventually(name+" is rolled out", func(context.Context) error {
		d := w.deployment(namespace, name)
		s := d.Status
		if s.ObservedGeneration < d.Generation || s.UpdatedReplicas != 1 || s.Replicas != 1 || s.ReadyReplicas != 1 {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
}

func (w *world) deployment(namespace, name string) *appsv1.Deployment {
	w.t.Helper()
	d, err := w.kube.AppsV1().Deployments(namespace).Get(w.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

// strangeAuthority returns the certificate of an authority that signed nothing.
func strangeAuthority(w *world) []byte {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		w.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw})
}
