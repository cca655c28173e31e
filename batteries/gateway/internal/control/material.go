package control

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"maps"
	"sync"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"golang.org/x/sync/errgroup"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/emerald-platform/emerald/batteries/gateway/internal/translate"
)

// material reads the objects with certificates that are referred to, each once
// until it changes.
type material struct {
	client client.Client

	mu    sync.Mutex
	found map[translate.Reference]translate.Material
	stale map[translate.Reference]bool
	// needed is what the last translation asked for, read or not: a change
	// that comes while the object is being read must not be missed.
	needed map[translate.Reference]bool
}

func newMaterial(c client.Client) *material {
	return &material{client: c, found: map[translate.Reference]translate.Material{}, stale: map[translate.Reference]bool{}}
}

// known returns what was read so far. Changed objects count until they were
// read again.
func (m *material) known() map[translate.Reference]translate.Material {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.found)
}

// expire notes that an object changed, and reports whether it is in use.
func (m *material) expire(kind, namespace, name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	used := false
	for _, use := range []translate.Use{translate.KeyPair, translate.Authorities} {
		ref := translate.Reference{Kind: kind, Namespace: namespace, Name: name, Use: use}
		if m.needed[ref] {
			m.stale[ref], used = true, true
		}
	}
	return used
}

// refresh expires what is not watched, and reports whether there is any.
func (m *material) refresh() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	any := false
	for ref := range m.found {
		if ref.Kind == "ClusterTrustBundle" {
			m.stale[ref], any = true, true
		}
	}
	return any
}

// fetch reads what is needed and not known, forgets what is not needed, and
// reports whether it read anything. What cannot be read now stays as it was.
func (m *material) fetch(ctx context.Context, needs []translate.Reference) bool {
	m.mu.Lock()
	var missing []translate.Reference
	needed := map[translate.Reference]bool{}
	for _, ref := range needs {
		needed[ref] = true
		if _, ok := m.found[ref]; !ok || m.stale[ref] {
			missing = append(missing, ref)
			delete(m.stale, ref)
		}
	}
	m.needed = needed
	maps.DeleteFunc(m.stale, func(ref translate.Reference, _ bool) bool { return !needed[ref] })
	maps.DeleteFunc(m.found, func(ref translate.Reference, _ translate.Material) bool { return !needed[ref] })
	m.mu.Unlock()
	var group errgroup.Group
	group.SetLimit(8)
	for _, ref := range missing {
		group.Go(func() error {
			got, err := m.read(ctx, ref)
			m.mu.Lock()
			defer m.mu.Unlock()
			if err == nil {
				m.found[ref] = got
				return nil
			}
			if _, ok := m.found[ref]; !ok {
				m.found[ref] = translate.Material{Problem: "cannot be read: " + err.Error()}
			}
			m.stale[ref] = true
			return nil
		})
	}
	_ = group.Wait() // the functions return no errors
	return len(missing) > 0
}

// read reads one object. What is wrong with the object itself is a Problem, no
// error. No error or Problem contains any of a Secret's content.
func (m *material) read(ctx context.Context, ref translate.Reference) (translate.Material, error) {
	name := types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}
	missing := translate.Material{Problem: "does not exist"}
	switch ref.Kind {
	case "Secret":
		var s corev1.Secret
		if err := m.client.Get(ctx, name, &s); err != nil {
			return missing, ignoreNotFound(err)
		}
		if s.Type != corev1.SecretTypeTLS {
			return translate.Material{Problem: fmt.Sprintf("is of type %q: it must be kubernetes.io/tls", s.Type)}, nil
		}
		if ref.Use == translate.Authorities {
			return authorities(s.Data["ca.crt"]), nil
		}
		return keyPair(s.Data[corev1.TLSCertKey], s.Data[corev1.TLSPrivateKeyKey]), nil
	case "ConfigMap":
		var c corev1.ConfigMap
		if err := m.client.Get(ctx, name, &c); err != nil {
			return missing, ignoreNotFound(err)
		}
		if pem, ok := c.BinaryData["ca.crt"]; ok {
			return authorities(pem), nil
		}
		return authorities([]byte(c.Data["ca.crt"])), nil
	case "ClusterTrustBundle":
		var b certificatesv1.ClusterTrustBundle
		if err := m.client.Get(ctx, name, &b); err != nil {
			return missing, ignoreNotFound(err)
		}
		return authorities([]byte(b.Spec.TrustBundle)), nil
	}
	return translate.Material{Problem: "is of an unknown kind"}, nil
}

func ignoreNotFound(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// keyPair reads a server's certificate.
func keyPair(cert, key []byte) translate.Material {
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		// The error of a bad key could quote it.
		return translate.Material{Problem: "holds no certificate with its key in tls.crt and tls.key"}
	}
	return translate.Material{Certificate: &pair}
}

// authorities reads certificates of authorities.
func authorities(pem []byte) translate.Material {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return translate.Material{Problem: "holds no certificate in ca.crt"}
	}
	sum := sha256.Sum256(pem)
	return translate.Material{Roots: pool, Digest: hex.EncodeToString(sum[:])}
}
