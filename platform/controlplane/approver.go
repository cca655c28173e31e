package controlplane

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

// runServingApprover approves the certificates that kubelets serve with, which
// upstream leaves to the installer because only it knows which addresses a
// machine may claim. It approves what a node asks for itself, with the
// addresses that its Node object has, and leaves everything else to people.
func runServingApprover(ctx context.Context, cfg *rest.Config, log *slog.Logger) error {
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return fmt.Errorf("reach the API: %w", err)
	}
	queue := workqueue.NewTypedRateLimitingQueueWithConfig(
		workqueue.NewTypedItemExponentialFailureRateLimiter[string](50*time.Millisecond, time.Minute),
		workqueue.TypedRateLimitingQueueConfig[string]{Name: "serving-approver"})
	list := cache.NewListWatchFromClient(client.CertificatesV1().RESTClient(), "certificatesigningrequests", "",
		fields.OneTermEqualSelector("spec.signerName", certificatesv1.KubeletServingSignerName))
	add := func(o any) { queue.Add(o.(*certificatesv1.CertificateSigningRequest).Name) }
	store, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: list,
		ObjectType:    &certificatesv1.CertificateSigningRequest{},
		Handler:       cache.ResourceEventHandlerFuncs{AddFunc: add},
	})
	go informer.Run(ctx.Done())
	go func() {
		<-ctx.Done()
		queue.ShutDown()
	}()
	for {
		name, shutdown := queue.Get()
		if shutdown {
			return nil
		}
		if obj, ok, _ := store.GetByKey(name); ok {
			csr := obj.(*certificatesv1.CertificateSigningRequest).DeepCopy()
			if err := approveServing(ctx, client, csr); err != nil && queue.NumRequeues(name) < 12 {
				// The Node's addresses often come just after its request.
				log.Debug("approve a kubelet's serving certificate", "request", name, "error", err)
				queue.AddRateLimited(name)
			} else if err != nil {
				log.Warn("left a kubelet's serving certificate to a human", "request", name, "error", err)
			} else {
				queue.Forget(name)
			}
		}
		queue.Done(name)
	}
}

func approveServing(ctx context.Context, client kubernetes.Interface, csr *certificatesv1.CertificateSigningRequest) error {
	for _, c := range csr.Status.Conditions {
		if c.Type == certificatesv1.CertificateApproved || c.Type == certificatesv1.CertificateDenied {
			return nil
		}
	}
	name, ok := strings.CutPrefix(csr.Spec.Username, "system:node:")
	if !ok {
		return fmt.Errorf("%q is no node", csr.Spec.Username)
	}
	node, err := client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if err := mayServe(csr, node); err != nil {
		return err
	}
	csr.Status.Conditions = append(csr.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
		Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue,
		Reason: "EmeraldApproved", Message: "the node asked for its own addresses",
	})
	_, err = client.CertificatesV1().CertificateSigningRequests().UpdateApproval(ctx, csr.Name, csr, metav1.UpdateOptions{})
	return err
}

// errForeign marks a request that claims what is not the node's.
var errForeign = errors.New("it claims what is not the node's")

// mayServe tells whether a node may get the serving certificate it asks for,
// by the rules of the signer kubernetes.io/kubelet-serving.
func mayServe(csr *certificatesv1.CertificateSigningRequest, node *corev1.Node) error {
	block, _ := pem.Decode(csr.Spec.Request)
	if block == nil {
		return fmt.Errorf("read the request: no PEM block")
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	if request.Subject.CommonName != csr.Spec.Username || !slices.Equal(request.Subject.Organization, []string{"system:nodes"}) {
		return fmt.Errorf("subject %q: %w", request.Subject, errForeign)
	}
	if len(request.EmailAddresses) > 0 || len(request.URIs) > 0 {
		return fmt.Errorf("mail or URI names: %w", errForeign)
	}
	if len(request.DNSNames)+len(request.IPAddresses) == 0 {
		return fmt.Errorf("no names at all: %w", errForeign)
	}
	for _, dns := range request.DNSNames {
		if !slices.ContainsFunc(node.Status.Addresses, func(a corev1.NodeAddress) bool {
			return (a.Type == corev1.NodeHostName || a.Type == corev1.NodeInternalDNS || a.Type == corev1.NodeExternalDNS) && a.Address == dns
		}) {
			return fmt.Errorf("name %q: %w", dns, errForeign)
		}
	}
	for _, ip := range request.IPAddresses {
		if !slices.ContainsFunc(node.Status.Addresses, func(a corev1.NodeAddress) bool {
			return (a.Type == corev1.NodeInternalIP || a.Type == corev1.NodeExternalIP) && net.ParseIP(a.Address).Equal(ip)
		}) {
			return fmt.Errorf("address %s: %w", ip, errForeign)
		}
	}
	return nil
}
