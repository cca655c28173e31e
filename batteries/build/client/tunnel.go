package client

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/distribution/reference"
	buildkit "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/util/grpcerrors"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"

	"github.com/emerald-platform/emerald/battery"
)

// Port is where the builder answers, on its pod's loopback address only.
const Port = 1234

// Account is the ServiceAccount in the builder's namespace whose token opens
// the builder; asking the API server for it takes the right to create
// serviceaccounts/token.
const Account = "client"

// Audience returns what tokens for the builder of a platform are made for.
func Audience(domain string) string { return "build." + domain }

// Registry returns the name of a platform's own registry.
func Registry(domain string) string { return "registry." + domain }

const (
	name       = "build"
	tokenHours = 2
)

// connect finds the builder, opens a way to it and gets the tokens a build
// needs: one for the builder, one for the registry.
func connect(ctx context.Context, kube *rest.Config, req Request) (*connection, error) {
	api, err := kubernetes.NewForConfig(kube)
	if err != nil {
		return nil, fmt.Errorf("reach the cluster: %w", err)
	}
	namespace := battery.NamespaceOf(name)
	domain, err := platformDomain(ctx, api, namespace)
	if err != nil {
		return nil, err
	}
	c := &connection{}
	if req.Image != "" {
		if c.image, err = completeName(req.Image, domain); err != nil {
			return nil, err
		}
	}
	if req.Namespace != "" { // base images are pulled with it, too
		c.login = credentials{host: Registry(domain), username: "token"}
		if c.login.password, err = requestToken(ctx, api, req.Namespace, "default", Registry(domain)); err != nil {
			return nil, fmt.Errorf("get a token for the registry from namespace %q: %w", req.Namespace, err)
		}
	}
	token, err := requestToken(ctx, api, namespace, Account, Audience(domain))
	if err != nil {
		return nil, fmt.Errorf("get a token for the builder: %w", err)
	}
	if err := c.open(ctx, kube, api, token); err != nil {
		return nil, err
	}
	return c, nil
}

// patience is how long a builder may be away: it, or the machine it runs on, may
// have just been started again.
const patience = 30 * time.Second

// open connects to a builder that is ready, for which it waits a while.
func (c *connection) open(ctx context.Context, kube *rest.Config, api kubernetes.Interface, token string) error {
	var t *tunnel
	var last error
	err := wait.PollUntilContextTimeout(ctx, 200*time.Millisecond, patience, true, func(context.Context) (bool, error) {
		// Not within the poll's time: what a question cut short says is no cause.
		t, last = reach(ctx, kube, api)
		if apierrors.IsForbidden(last) {
			return false, last
		}
		return last == nil, nil
	})
	if err != nil {
		return cmp.Or(last, err)
	}
	opts := []buildkit.ClientOpt{buildkit.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return t.dial(ctx) })}
	if token != "" {
		opts = append(opts, buildkit.WithGRPCDialOption(grpc.WithPerRPCCredentials(bearer(token))))
	}
	if c.solver, err = buildkit.New(ctx, "", opts...); err != nil {
		return errors.Join(fmt.Errorf("connect to the builder: %w", err), t.close())
	}
	c.shutdown = append(c.shutdown, t.close, c.solver.Close)
	return nil
}

// reach opens a way to a builder that is ready. The kubelet of a machine that
// has just started may not know its pods yet.
func reach(ctx context.Context, kube *rest.Config, api kubernetes.Interface) (*tunnel, error) {
	namespace := battery.NamespaceOf(name)
	pod, err := findBuilder(ctx, api, namespace)
	if err != nil {
		return nil, err
	}
	t := &tunnel{kube: kube, namespace: namespace, pod: pod}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t, t.connect()
}

// ErrNotAllowed says that the builder does not accept a token.
var ErrNotAllowed = errors.New("the builder lets nobody in without a token for it")

// Knock asks the builder for a sign of life with a token, "" for none. It
// returns ErrNotAllowed when the builder refuses the token.
func Knock(ctx context.Context, kube *rest.Config, token string) error {
	api, err := kubernetes.NewForConfig(kube)
	if err != nil {
		return fmt.Errorf("reach the cluster: %w", err)
	}
	c := &connection{}
	if err := c.open(ctx, kube, api, token); err != nil {
		return err
	}
	_, err = c.solver.Info(ctx)
	if grpcerrors.Code(err) == codes.Unauthenticated {
		err = fmt.Errorf("%w: %w", ErrNotAllowed, err)
	}
	return errors.Join(err, c.close())
}

// platformDomain reads the platform's domain from the settings that the
// builder itself runs with.
func platformDomain(ctx context.Context, api kubernetes.Interface, namespace string) (string, error) {
	cm, err := api.CoreV1().ConfigMaps(namespace).Get(ctx, "site", metav1.GetOptions{})
	if err != nil {
		return "", fmt.Errorf("%w (%w)", ErrNoBuilder, err)
	}
	var site battery.SiteSettings
	if err := json.Unmarshal([]byte(cm.Data["site.json"]), &site); err != nil {
		return "", fmt.Errorf("read the builder's settings: %w", err)
	}
	return site.Domain, nil
}

// completeName makes a full image name of one that may lack its registry.
func completeName(image, domain string) (string, error) {
	first, _, hasPath := strings.Cut(image, "/")
	if !hasPath {
		return "", fmt.Errorf("image name %q lacks its namespace: use NAMESPACE/APP", image)
	}
	if !strings.ContainsAny(first, ".:") && first != "localhost" {
		image = Registry(domain) + "/" + image
	}
	ref, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return "", fmt.Errorf("parse the image name %q: %w", image, err)
	}
	return reference.TagNameOnly(ref).String(), nil
}

// requestToken asks for a token of a ServiceAccount (TokenRequest API).
func requestToken(ctx context.Context, api kubernetes.Interface, namespace, account, audience string) (string, error) {
	seconds := int64(tokenHours * 3600)
	tr, err := api.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, account, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{Audiences: []string{audience}, ExpirationSeconds: &seconds},
	}, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	return tr.Status.Token, nil
}

// findBuilder returns the name of a builder's pod that is ready.
func findBuilder(ctx context.Context, api kubernetes.Interface, namespace string) (string, error) {
	pods, err := api.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{
		LabelSelector: labels.SelectorFromSet(battery.Selector(name)).String(),
	})
	if err != nil {
		return "", fmt.Errorf("look for the builder: %w", err)
	}
	for _, p := range pods.Items {
		if p.DeletionTimestamp != nil {
			continue
		}
		for _, c := range p.Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
				return p.Name, nil
			}
		}
	}
	return "", ErrNoBuilder
}

// bearer is a token sent with every call. The way it takes is TLS to the API
// server and then the pod's own loopback, so gRPC's demand for TLS of its own
// is waived.
type bearer string

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (bearer) RequireTransportSecurity() bool { return false }

// tunnel is a port-forward through the Kubernetes API that opens no port on
// this machine, where every local user could use it.
type tunnel struct {
	kube           *rest.Config
	namespace, pod string
	requests       atomic.Int64

	mu   sync.Mutex
	conn httpstream.Connection
}

// connect makes sure that there is a connection that lives. The caller holds the
// lock.
func (t *tunnel) connect() error {
	if t.conn != nil {
		select {
		case <-t.conn.CloseChan():
			t.conn = nil // it broke; the builder may still be there
		default:
			return nil
		}
	}
	conn, err := t.open()
	if err != nil {
		return fmt.Errorf("open a way to the builder: %w", err)
	}
	t.conn = conn
	return nil
}

// dial opens one more connection to the builder.
func (t *tunnel) dial(context.Context) (net.Conn, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.connect(); err != nil {
		return nil, err
	}
	// A port-forward carries pairs of streams, one for data, one for the
	// error that ends it (KEP-4006, and the protocol it tunnels).
	headers := http.Header{}
	headers.Set(corev1.PortHeader, strconv.Itoa(Port))
	headers.Set(corev1.PortForwardRequestIDHeader, strconv.FormatInt(t.requests.Add(1), 10))
	headers.Set(corev1.StreamType, corev1.StreamTypeError)
	failures, err := t.conn.CreateStream(headers)
	if err != nil {
		return nil, fmt.Errorf("open a stream to the builder: %w", err)
	}
	if err := failures.Close(); err != nil { // nothing is written to it
		return nil, fmt.Errorf("open a stream to the builder: %w", err)
	}
	headers.Set(corev1.StreamType, corev1.StreamTypeData)
	data, err := t.conn.CreateStream(headers)
	if err != nil {
		return nil, fmt.Errorf("open a stream to the builder: %w", err)
	}
	return &streamConn{Stream: data, failures: failures, remove: t.conn.RemoveStreams}, nil
}

// open upgrades a request to the API server, by WebSocket or, through a proxy
// that knows none, by SPDY.
func (t *tunnel) open() (httpstream.Connection, error) {
	api, err := kubernetes.NewForConfig(t.kube)
	if err != nil {
		return nil, err
	}
	url := api.CoreV1().RESTClient().Post().Resource("pods").Namespace(t.namespace).Name(t.pod).SubResource("portforward").URL()
	transport, upgrader, err := spdy.RoundTripperFor(t.kube)
	if err != nil {
		return nil, err
	}
	old := spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, url)
	dialer, err := portforward.NewSPDYOverWebsocketDialer(url, t.kube)
	if err != nil {
		return nil, err
	}
	conn, _, err := portforward.NewFallbackDialer(dialer, old, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	}).Dial(portforward.PortForwardProtocolV1Name)
	return conn, err
}

func (t *tunnel) close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conn == nil {
		return nil
	}
	return t.conn.Close()
}

// streamConn is a stream of a port-forward as a net.Conn.
type streamConn struct {
	httpstream.Stream
	failures httpstream.Stream
	remove   func(...httpstream.Stream)
}

// Read implements net.Conn. At the end it tells what went wrong in the pod.
func (c *streamConn) Read(p []byte) (int, error) {
	n, err := c.Stream.Read(p)
	if errors.Is(err, io.EOF) {
		if why, _ := io.ReadAll(io.LimitReader(c.failures, 1<<10)); len(why) > 0 {
			return n, fmt.Errorf("the builder's port: %s", why)
		}
	}
	return n, err
}

// Close implements net.Conn.
func (c *streamConn) Close() error {
	err := c.Stream.Reset()
	c.remove(c.Stream, c.failures)
	return err
}

// LocalAddr implements net.Conn.
func (c *streamConn) LocalAddr() net.Addr { return tunnelAddr{} }

// RemoteAddr implements net.Conn.
func (c *streamConn) RemoteAddr() net.Addr { return tunnelAddr{} }

// SetDeadline implements net.Conn; streams have none.
func (c *streamConn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline implements net.Conn; streams have none.
func (c *streamConn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline implements net.Conn; streams have none.
func (c *streamConn) SetWriteDeadline(time.Time) error { return nil }

type tunnelAddr struct{}

func (tunnelAddr) Network() string { return "kubernetes" }
func (tunnelAddr) String() string  { return "builder" }
