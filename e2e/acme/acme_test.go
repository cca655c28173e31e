//go:build e2e

// Package acme gets a certificate from an ACME server as Let's Encrypt runs it,
// by answering its challenge through the platform's gateway.
package acme

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	cmacme "github.com/cert-manager/cert-manager/pkg/apis/acme/v1"
	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	cmclient "github.com/cert-manager/cert-manager/pkg/client/clientset/versioned"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/emerald-platform/emerald/e2e/fixture"
)

func TestACME(t *testing.T) {
	pebble := build(t)
	m := fixture.Boot(t)
	authority := serve(t, m, pebble)
	cfg, err := m.Kube()
	if err != nil {
		t.Fatal(err)
	}
	client, err := cmclient.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	issuer := &cmapi.ClusterIssuer{
		ObjectMeta: metav1.ObjectMeta{Name: "pebble"},
		Spec: cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{ACME: &cmacme.ACMEIssuer{
			Server: fmt.Sprintf("https://%s:14000/dir", m.Address), CABundle: authority,
			PrivateKey: cmmeta.SecretKeySelector{LocalObjectReference: cmmeta.LocalObjectReference{Name: "pebble-account"}},
			Solvers: []cmacme.ACMEChallengeSolver{{HTTP01: &cmacme.ACMEChallengeSolverHTTP01{
				GatewayHTTPRoute: &cmacme.ACMEChallengeSolverHTTP01GatewayHTTPRoute{ParentRefs: []gatewayv1.ParentReference{{
					Name: "emerald", Namespace: new(gatewayv1.Namespace("emerald-gateway")), Kind: new(gatewayv1.Kind("Gateway")),
				}}},
			}}},
		}}},
	}
	if _, err := client.CertmanagerV1().ClusterIssuers().Create(ctx, issuer, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	const host = "shop.emerald.localhost"
	certificate := &cmapi.Certificate{
		ObjectMeta: metav1.ObjectMeta{Name: "shop"},
		Spec: cmapi.CertificateSpec{
			SecretName: "shop", DNSNames: []string{host}, IssuerRef: cmmeta.IssuerReference{Name: "pebble", Kind: "ClusterIssuer"},
		},
	}
	if _, err := client.CertmanagerV1().Certificates("default").Create(ctx, certificate, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	m.Eventually("the ACME server's certificate is there", 90*time.Second, func(ctx context.Context) error {
		secret, err := m.Client().CoreV1().Secrets("default").Get(ctx, "shop", metav1.GetOptions{})
		if err != nil {
			return err
		}
		block, _ := pem.Decode(secret.Data["tls.crt"])
		if block == nil {
			return fmt.Errorf("secret shop holds no certificate")
		}
		leaf, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return err
		}
		return leaf.VerifyHostname(host)
	})
	m.Eventually("what answered the challenge is gone", 30*time.Second, func(ctx context.Context) error {
		pods, err := m.Client().CoreV1().Pods("default").List(ctx, metav1.ListOptions{LabelSelector: "acme.cert-manager.io/http01-solver=true"})
		if err != nil {
			return err
		}
		if len(pods.Items) > 0 {
			return fmt.Errorf("%d pods are left", len(pods.Items))
		}
		return nil
	})
}

// build builds the ACME server from its own module.
func build(t *testing.T) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "pebble")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-mod=mod", "-o", out, "github.com/letsencrypt/pebble/v2/cmd/pebble")
	cmd.Dir = "pebble"
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the ACME server: %v\n%s", err, text)
	}
	return out
}

// serve runs the ACME server on the machine until the test ends and returns the
// PEM certificate by which its clients know it. It resolves names as pods do.
func serve(t *testing.T, m *fixture.Machine, pebble string) []byte {
	t.Helper()
	dir := t.TempDir()
	cert, key := keyPair(t, m.Address)
	settings := map[string]any{"pebble": map[string]any{
		"listenAddress": m.Address.String() + ":14000", "managementListenAddress": m.Address.String() + ":15000",
		"certificate": filepath.Join(dir, "cert.pem"), "privateKey": filepath.Join(dir, "key.pem"),
		"httpPort": 80, "tlsPort": 443, "keyAlgorithm": "ecdsa",
		"retryAfter": map[string]int{"authz": 1, "order": 1},
		"profiles":   map[string]any{"default": map[string]any{"description": "plain", "validityPeriod": 7776000}},
	}}
	raw, err := json.Marshal(settings)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"cert.pem": cert, "key.pem": key, "pebble.json": raw} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cmd := m.Command(ctx, pebble, "-config", filepath.Join(dir, "pebble.json"), "-dnsserver", "10.43.0.10:53")
	cmd.Env = append(cmd.Env, "PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=0")
	ended := make(chan struct{})
	go func() { defer close(ended); _ = m.Run(cmd) }() // it ends by being killed
	t.Cleanup(func() { cancel(); <-ended })
	m.Eventually("the ACME server listens", 10*time.Second, func(ctx context.Context) error {
		conn, err := m.Dial(ctx, "tcp", m.Address.String()+":14000")
		if err != nil {
			return err
		}
		return conn.Close()
	})
	return cert
}

// keyPair returns a self-signed certificate for an address, and its key, as PEM.
func keyPair(t *testing.T, address net.IP) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{address},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
}
