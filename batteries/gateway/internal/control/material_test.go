package control

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/emerald-platform/emerald/batteries/gateway/internal/translate"
)

// A Secret that appears while it is being looked for is not missed.
func TestMaterialAppearsWhileRead(t *testing.T) {
	scheme, err := NewScheme()
	if err != nil {
		t.Fatal(err)
	}
	ref := translate.Reference{Kind: "Secret", Namespace: "ns", Name: "tls", Use: translate.KeyPair}
	var m *material
	appear := true
	c := interceptor.NewClient(fake.NewClientBuilder().WithScheme(scheme).Build(), interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			err := c.Get(ctx, key, o, opts...)
			if appear {
				appear = false
				secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "tls"}, Type: corev1.SecretTypeTLS}
				if err := c.Create(ctx, secret); err != nil {
					return err
				}
				if !m.expire("Secret", "ns", "tls") {
					t.Error("the change is not noticed")
				}
			}
			return err
		},
	})
	m = newMaterial(c)
	m.fetch(context.Background(), []translate.Reference{ref})
	if got := m.known()[ref].Problem; got != "does not exist" {
		t.Fatalf("got %q", got)
	}
	if !m.fetch(context.Background(), []translate.Reference{ref}) {
		t.Fatal("it is not read again")
	}
	if got := m.known()[ref].Problem; got == "does not exist" {
		t.Errorf("got %q", got)
	}
	if m.fetch(context.Background(), []translate.Reference{ref}) {
		t.Error("it is read although nothing changed")
	}
	if m.expire("Secret", "ns", "other") {
		t.Error("a Secret nobody refers to counts")
	}
	if m.fetch(context.Background(), nil); len(m.known()) != 0 {
		t.Error("what is no longer needed is kept")
	}
}
