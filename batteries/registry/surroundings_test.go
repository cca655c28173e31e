package registry

import (
	"context"
	"encoding/pem"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/emerald-platform/emerald/battery"
)

func TestSurroundings(t *testing.T) {
	ctx := context.Background()
	company := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "direct") }))
	defer company.Close()
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "by proxy to "+r.Host) }))
	defer proxy.Close()

	set := fake.NewClientset()
	s := &surroundings{hosts: set.CoreV1().ConfigMaps(battery.SystemNamespace), log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	get := func(url string) string {
		t.Helper()
		resp, err := (&http.Client{Transport: s.roundTripper(ctx)}).Get(url)
		if err != nil {
			return err.Error()
		}
		defer resp.Body.Close()
		raw, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	if got := get(company.URL); got == "direct" {
		t.Error("an unknown authority is trusted")
	}
	if s.roundTripper(ctx) != s.roundTripper(ctx) {
		t.Error("each call makes another transport, whose tokens and connections are lost")
	}

	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: company.Certificate().Raw}))
	_, err := set.CoreV1().ConfigMaps(battery.SystemNamespace).Create(ctx, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: hostConfigMap, Namespace: battery.SystemNamespace},
		Data:       map[string]string{"ca.crt": ca, "http_proxy": proxy.URL, "no_proxy": "127.0.0.1"},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s.readAt = time.Now().Add(-2 * rereadAfter)
	if got := get(company.URL); got != "direct" {
		t.Errorf("with the company's authority: %s", got)
	}
	if got := get("http://origin.test/"); got != "by proxy to origin.test" {
		t.Errorf("by way of the proxy: %s", got)
	}
}
