package proxy

import (
	"crypto/tls"
	"errors"
	"strings"

	"github.com/emerald-platform/emerald/batteries/gateway/internal/model"
	"github.com/emerald-platform/emerald/batteries/gateway/internal/routing"
)

// certificates finds the certificates for a server name.
type certificates struct {
	table *routing.Table[[]*tls.Certificate]
}

// newCertificates indexes the certificates of a port's listeners.
func newCertificates(listeners []model.Listener) *certificates {
	index := make([]routing.Listener[[]*tls.Certificate], 0, len(listeners))
	for _, l := range listeners {
		index = append(index, routing.Listener[[]*tls.Certificate]{
			Hostname: l.Hostname,
			Rules: []routing.Rule[[]*tls.Certificate]{{
				Hostname: l.Hostname, Match: routing.Match{PathType: routing.Prefix, Path: "/"}, Action: l.Certificates,
			}},
		})
	}
	table, err := routing.Compile(index)
	if err != nil {
		table = &routing.Table[[]*tls.Certificate]{} // impossible: there are no regular expressions
	}
	return &certificates{table}
}

// errNoCertificate makes the handshake fail: no listener is for that name.
var errNoCertificate = errors.New("no listener for this server name")

// get chooses the certificate for a handshake.
func (c *certificates) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if c == nil {
		return nil, errNoCertificate
	}
	list, outcome := c.table.Lookup(&routing.Request{Host: normalizeSNI(hello.ServerName), Path: "/"})
	if outcome != routing.Found || len(list) == 0 {
		return nil, errNoCertificate
	}
	if len(list) > 1 {
		for _, cert := range list {
			if hello.SupportsCertificate(cert) == nil {
				return cert, nil
			}
		}
	}
	return list[0], nil
}

// normalizeSNI returns a server name as routes spell hosts.
func normalizeSNI(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// tlsConfig returns the configuration of a port's handshakes, which look their
// certificate up anew each time; nil on a plain port. It stays the same for
// the life of the port, so that session tickets stay good.
func (p *port) tlsConfig() *tls.Config {
	if !p.routes.Load().secure {
		return nil
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return p.routes.Load().certificates.get(hello)
		},
	}
}
