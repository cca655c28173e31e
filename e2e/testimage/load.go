package testimage

import (
	"context"
	"fmt"
	"io"

	containerd "github.com/containerd/containerd/v2/client"
)

// namespace is where containerd keeps what belongs to Kubernetes.
const namespace = "k8s.io"

// labels keep images from the kubelet's image collection, which could not pull
// them again.
var labels = map[string]string{"io.cri-containerd.image": "managed", "io.cri-containerd.pinned": "pinned"}

// Load imports an archive that [Write] wrote into the containerd that answers
// at socket, and returns the names of its images. Pods find them soon after; a
// layer is unpacked when the first container needs it.
func Load(ctx context.Context, socket string, archive io.Reader) ([]string, error) {
	client, err := containerd.New(socket, containerd.WithDefaultNamespace(namespace))
	if err != nil {
		return nil, fmt.Errorf("connect to containerd at %s: %w", socket, err)
	}
	defer client.Close()
	images, err := client.Import(ctx, archive, containerd.WithImageLabels(labels))
	if err != nil {
		return nil, fmt.Errorf("import images: %w", err)
	}
	var names []string
	for _, i := range images {
		names = append(names, i.Name)
	}
	return names, nil
}
