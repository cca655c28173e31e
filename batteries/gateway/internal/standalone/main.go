// Command standalone runs the data plane without a cluster, with as many routes
// as wanted to one backend, to be measured beside other proxies:
//
//	go run ./batteries/gateway/internal/standalone -routes 5000 -http 8080 -https 8443 -backend 127.0.0.1:9000
//
// Route n serves the host app-n.example.org under the paths / and /api.
// Unless -cert and -key name another, the certificate is made at the start and
// signed by nobody.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"flag"
	"fmt"
	"log/slog"
	"math/big"
	"os"
	"os/signal"
	"runtime/debug"
	"runtime/pprof"
	"syscall"
	"time"

	"github.com/emerald-platform/emerald/batteries/gateway/internal/model"
	"github.com/emerald-platform/emerald/batteries/gateway/internal/proxy"
	"github.com/emerald-platform/emerald/batteries/gateway/internal/routing"
	"github.com/emerald-platform/emerald/batteries/gateway/internal/upstream"
)

func main() {
	routes := flag.Int("routes", 10, "number of routes")
	plain := flag.Uint("http", 8080, "port for HTTP")
	secure := flag.Uint("https", 8443, "port for HTTPS")
	backend := flag.String("backend", "127.0.0.1:9000", "address of the backend")
	certFile := flag.String("cert", "", "file with the certificate; else one is made")
	keyFile := flag.String("key", "", "file with the certificate's key")
	collect := flag.Int("gc", 200, "percent for the garbage collector, as the battery sets it")
	profile := flag.String("profile", "", "file to write a profile of the processor's time to")
	flag.Parse()
	if *profile != "" {
		f, err := os.Create(*profile)
		if err == nil {
			err = pprof.StartCPUProfile(f)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "standalone: profile:", err)
			os.Exit(1)
		}
		defer pprof.StopCPUProfile()
	}
	debug.SetGCPercent(*collect)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cert, err := certificate(*certFile, *keyFile)
	if err == nil {
		err = run(ctx, *routes, uint16(*plain), uint16(*secure), *backend, cert)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "standalone:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, routes int, plain, secure uint16, backend string, cert *tls.Certificate) error {
	server := proxy.New(proxy.Options{
		Log: slog.New(slog.DiscardHandler), Metrics: proxy.NewMetrics(),
		Upstream: upstream.Options{ConnectTimeout: 3 * time.Second, IdleTimeout: 50 * time.Second, MaxIdle: 256},
		MaxHead:  64 << 10, MaxBody: 16 << 30, HeadTimeout: 15 * time.Second, IdleTimeout: 75 * time.Second,
		StallTimeout: time.Minute, BackendTimeout: time.Minute, Attempts: 3, DrainTimeout: time.Second,
	})
	id := model.BackendID{Namespace: "ns", Service: "app", Port: 80}
	server.SetEndpoints(upstream.Service{Namespace: id.Namespace, Name: id.Service, Port: id.Port}, []string{backend})
	l := model.Listener{Certificates: []*tls.Certificate{cert}}
	for i := range routes {
		name := fmt.Sprintf("ns/app-%d", i)
		rule := &model.Rule{Route: "HTTPRoute/" + name, Backends: []model.Backend{{ID: id, Weight: 1}}}
		for j, path := range []string{"/", "/api"} {
			l.Rules = append(l.Rules, routing.Rule[model.Action]{
				Hostname: fmt.Sprintf("app-%d.example.org", i), Match: routing.Match{PathType: routing.Prefix, Path: path},
				Age: routing.Age{Route: name, Rule: j}, Action: model.Action{Rule: rule},
			})
		}
	}
	c := &model.Config{
		Backends: map[model.BackendID]model.BackendSpec{id: {}},
		Ports: []model.Port{
			{Target: plain, Number: 80, Gateway: "ns/gw", Listeners: []model.Listener{l}},
			{Target: secure, Number: 443, Gateway: "ns/gw", TLS: true, Listeners: []model.Listener{l}},
		},
	}
	if err := server.Apply(c); err != nil {
		return err
	}
	return server.Run(ctx)
}

// certificate reads the certificate, or makes one where certFile is empty.
func certificate(certFile, keyFile string) (*tls.Certificate, error) {
	if certFile != "" {
		cert, err := tls.LoadX509KeyPair(certFile, keyFile)
		return &cert, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "example.org"}, DNSNames: []string{"*.example.org"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
