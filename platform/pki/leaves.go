package pki

import (
	"crypto/x509"
	"net"
)

// Names of authorities and keys, as in [PKI.Cert] and [PKI.Key].
const (
	// ClusterCA signs the identities of users and nodes, and serving
	// certificates of the API and the kubelets.
	ClusterCA = "cluster-ca"
	// FrontProxyCA signs who may pass on users' names to aggregated APIs.
	FrontProxyCA = "front-proxy-ca"
	// EtcdCA signs whoever may speak with etcd.
	EtcdCA = "etcd-ca"
	// ServiceAccounts is a bare key: it signs service accounts' tokens.
	ServiceAccounts = "service-accounts"
)

// Names of the certificates that the authorities sign.
const (
	APIServer         = "apiserver"
	APIServerKubelet  = "apiserver-kubelet"
	APIServerEtcd     = "apiserver-etcd"
	FrontProxy        = "front-proxy"
	EtcdServer        = "etcd-server"
	EtcdPeer          = "etcd-peer"
	ControllerManager = "controller-manager"
	Scheduler         = "scheduler"
	KubeProxy         = "kube-proxy"
	NodeBootstrap     = "node-bootstrap"
	Machine           = "machine"
	Admin             = "admin"
)

// AdminGroup is the group of the people who own the cluster; it is bound to
// the role cluster-admin by an ordinary, revocable binding.
const AdminGroup = "emerald:admins"

var authorities = []string{ClusterCA, FrontProxyCA, EtcdCA}

// leaf describes one certificate that an authority signs.
type leaf struct {
	name, authority string
	user            string
	groups          []string
	usages          []x509.ExtKeyUsage
	dns             []string
	ips             []net.IP
}

// leavesFor lists every certificate of a server machine.
func leavesFor(id Identity) []leaf {
	var (
		client = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		server = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		both   = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	)
	local := append([]net.IP{net.IPv4(127, 0, 0, 1).To4(), net.IPv6loopback}, id.Addresses...)
	apiNames := []string{
		"kubernetes", "kubernetes.default", "kubernetes.default.svc",
		"kubernetes.default.svc." + id.ClusterDomain, "localhost", id.Node,
	}
	apiAddresses := append(append([]net.IP{}, local...), id.ServiceAddress)
	user := func(name, user string, groups ...string) leaf {
		return leaf{name: name, authority: ClusterCA, user: user, groups: groups, usages: client}
	}
	return []leaf{
		{name: APIServer, authority: ClusterCA, user: "kube-apiserver", usages: server, dns: apiNames, ips: apiAddresses},
		{name: EtcdServer, authority: EtcdCA, user: id.Node, usages: both, dns: []string{"localhost", id.Node}, ips: local},
		{name: EtcdPeer, authority: EtcdCA, user: id.Node, usages: both, dns: []string{"localhost", id.Node}, ips: local},
		{name: APIServerEtcd, authority: EtcdCA, user: "kube-apiserver", usages: client},
		{name: FrontProxy, authority: FrontProxyCA, user: "front-proxy", usages: client},
		user(APIServerKubelet, "kube-apiserver-kubelet-client"),
		user(ControllerManager, "system:kube-controller-manager"),
		user(Scheduler, "system:kube-scheduler"),
		user(KubeProxy, "system:kube-proxy"),
		user(NodeBootstrap, "system:bootstrap:"+id.Node, "system:bootstrappers"),
		// The installer writes roles and bindings before any binding exists.
		user(Machine, "emerald:machine:"+id.Node, "system:masters"),
		user(Admin, "emerald-admin", AdminGroup),
	}
}
