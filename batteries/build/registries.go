package build

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/auth"
	"google.golang.org/grpc"

	"github.com/emerald-platform/emerald/batteries/build/client"
	"github.com/emerald-platform/emerald/battery"
)

// copied are the registries whose images come through the platform's own, which
// keeps copies, and under whose names base images are made. They are the ones
// that the registry battery copies unless it is told otherwise.
var copied = []string{"docker.io", "ghcr.io", "quay.io", "registry.k8s.io", "gcr.io", "mcr.microsoft.com", "public.ecr.aws"}

// registries says how images are pulled and pushed.
type registries struct {
	own    string // name of the platform's registry
	home   *http.Client
	abroad *http.Client
}

func newRegistries(s battery.Site, abroad *http.Client) *registries {
	own := client.Registry(s.Domain)
	address := net.JoinHostPort(own, "443")
	if s.RegistryAddress != "" {
		address = net.JoinHostPort(s.RegistryAddress, "443") // before names work
	}
	return &registries{own: own, abroad: abroad, home: newHome(address, own).client()}
}

// hosts implements docker.RegistryHosts.
func (r *registries) hosts(host string) ([]docker.RegistryHost, error) {
	read := docker.HostCapabilityPull | docker.HostCapabilityResolve
	switch {
	case host == r.own:
		return []docker.RegistryHost{{Client: r.home, Scheme: "https", Host: r.own, Path: "/v2", Capabilities: read | docker.HostCapabilityPush | docker.HostCapabilityReferrers}}, nil
	case slices.Contains(copied, host):
		return []docker.RegistryHost{{Client: r.home, Scheme: "https", Host: r.own, Path: "/v2/" + host, Capabilities: read}}, nil
	}
	scheme := "https"
	if ok, err := docker.MatchLocalhost(host); ok && err == nil {
		return nil, fmt.Errorf("registry %q: a name like this leads to the builder's own pod; push to %s", host, r.own)
	}
	return []docker.RegistryHost{{Client: r.abroad, Scheme: scheme, Host: host, Path: "/v2", Capabilities: read | docker.HostCapabilityPush}}, nil
}

// ownLogin logs in to the platform's registry as the builder itself.
type ownLogin struct {
	auth.UnimplementedAuthServer
	host string
}

// Register implements session.Attachable.
func (l ownLogin) Register(s *grpc.Server) { auth.RegisterAuthServer(s, l) }

// Credentials implements auth.AuthServer. The kubelet renews the token's file.
func (l ownLogin) Credentials(_ context.Context, req *auth.CredentialsRequest) (*auth.CredentialsResponse, error) {
	if req.Host != l.host {
		return &auth.CredentialsResponse{}, nil
	}
	token, err := os.ReadFile(tokenFile)
	if err != nil {
		return nil, fmt.Errorf("read the builder's token for the registry: %w", err)
	}
	return &auth.CredentialsResponse{Username: "token", Secret: strings.TrimSpace(string(token))}, nil
}

var _ session.Attachable = ownLogin{}
