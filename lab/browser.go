package lab

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
)

// Browser returns a client that trusts authority, one or more certificates in
// PEM, and finds every host name on the machine itself, as *.localhost does.
// Each call makes connections of its own; it fails when authority holds no
// certificate. The caller sets what else it wants, such as a time limit.
func (m *Machine) Browser(authority []byte) (*http.Client, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(authority) {
		return nil, errors.New("trust the platform's authority: there is no certificate in it")
	}
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool},
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			_, port, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			return m.Dial(ctx, network, net.JoinHostPort("127.0.0.1", port))
		},
	}}, nil
}
