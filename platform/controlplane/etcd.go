package controlplane

import (
	"context"
	"fmt"
	"net/url"
	"os"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/emerald-platform/emerald/platform/pki"
)

// etcdQuota is the size at which etcd refuses writes, etcd's recommended
// maximum: https://etcd.io/docs/latest/dev-guide/limit/
const etcdQuota = 8 << 30

// How often etcd's only member looks at its clock, and how long it waits for a
// leader before it makes itself one: a random time up to electionMs, which the
// API's start waits for. Etcd's default of 1000 is for a network between members
// (https://etcd.io/docs/latest/tuning/#time-parameters); each look costs some
// processor time for ever.
const (
	tickMs     = 50
	electionMs = 250
)

// startEtcd starts the only or the local member of etcd and returns when it
// takes writes. Clients need a certificate of the etcd authority.
func startEtcd(ctx context.Context, o Options) (*embed.Etcd, error) {
	cfg := embed.NewConfig()
	cfg.Name = o.Node
	cfg.Dir = o.etcdDir()
	cfg.QuotaBackendBytes = etcdQuota
	cfg.TickMs, cfg.ElectionMs = tickMs, electionMs
	client := url.URL{Scheme: "https", Host: fmt.Sprintf("127.0.0.1:%d", EtcdClientPort)}
	peer := url.URL{Scheme: "https", Host: fmt.Sprintf("%s:%d", o.Address, EtcdPeerPort)}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	// With a listener of its own for HTTP, clients get gRPC's own server instead
	// of one on top of net/http: less memory, and watches that do not starve
	// under load (https://github.com/etcd-io/etcd/issues/15402).
	cfg.ListenClientHttpUrls = []url.URL{{Scheme: "https", Host: fmt.Sprintf("127.0.0.1:%d", EtcdHTTPPort)}}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	cfg.InitialCluster = cfg.InitialClusterFromName(o.Node)
	cfg.ClientTLSInfo = etcdTLS(o.PKI, pki.EtcdServer)
	cfg.PeerTLSInfo = etcdTLS(o.PKI, pki.EtcdPeer)
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(etcdLog())
	server, err := embed.StartEtcd(cfg)
	if err != nil {
		return nil, fmt.Errorf("start etcd on %s: %w", cfg.Dir, err)
	}
	select {
	case <-server.Server.ReadyNotify():
		return server, nil
	case <-server.Server.StopNotify():
		server.Close()
		return nil, fmt.Errorf("start etcd on %s: it stopped by itself: its reasons are in the log above", cfg.Dir)
	case err := <-server.Err():
		server.Close()
		return nil, fmt.Errorf("start etcd on %s: %w", cfg.Dir, err)
	case <-ctx.Done():
		server.Close()
		return nil, ctx.Err()
	}
}

// etcdLog keeps what matters: etcd tells every step of its life at info level.
func etcdLog() *zap.Logger {
	return zap.New(zapcore.NewCore(
		zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.Lock(os.Stderr), zap.WarnLevel))
}

func etcdTLS(p *pki.PKI, name string) transport.TLSInfo {
	return transport.TLSInfo{
		CertFile: p.Cert(name), KeyFile: p.Key(name),
		TrustedCAFile: p.Cert(pki.EtcdCA), ClientCertAuth: true,
	}
}
