package main

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/emerald-platform/emerald/batteries/registry/client"
	"github.com/emerald-platform/emerald/e2e/testimage"
	"github.com/emerald-platform/emerald/lab"
)

// Where the images are: one repository in a namespace of their own.
const (
	imagesNamespace  = "conformance-images"
	imagesRepository = imagesNamespace + "/e2e"
)

// serveImages puts the images that list returns for a repository into the
// machine's registry, lets every pod pull them, and returns the repository.
func serveImages(ctx context.Context, m *lab.Machine, list func(repository string) ([]named, error)) (string, error) {
	kube, err := m.Kube()
	if err != nil {
		return "", err
	}
	if err := shareImages(ctx, kube); err != nil {
		return "", fmt.Errorf("let pods pull the images: %w", err)
	}
	registry, err := client.Connect(ctx, kube, client.Admin)
	if err != nil {
		return "", err
	}
	defer registry.Close()
	repository := registry.Server() + "/" + imagesRepository
	all, err := list(repository)
	if err != nil {
		return "", err
	}
	var described []testimage.Image
	for _, n := range all {
		described = append(described, n.image)
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(testimage.Write(w, described...)) }()
	err = push(ctx, registry, r)
	r.CloseWithError(errors.Join(err, io.ErrClosedPipe))
	if err != nil {
		return "", fmt.Errorf("push the images to %s: %w", repository, err)
	}
	return repository, nil
}

// shareImages gives service accounts of every namespace what the registry
// takes for the right to pull.
func shareImages(ctx context.Context, config *rest.Config) error {
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: imagesNamespace}}
	if _, err := kube.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{}); err != nil {
		return err
	}
	_, err = kube.RbacV1().RoleBindings(imagesNamespace).Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "pull"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "view"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: "system:serviceaccounts"}},
	}, metav1.CreateOptions{})
	return err
}

// push pushes an archive that testimage wrote while reading it: everything is
// in it before what names it.
func push(ctx context.Context, registry *client.Client, r io.Reader) error {
	small := map[string][]byte{} // by path: what may be a manifest
	for archive := tar.NewReader(r); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return errors.New("the archive has no index")
		}
		if err != nil {
			return err
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			return err
		}
		if h.Name == ocispec.ImageIndexFile {
			return pushIndex(ctx, registry, content, small)
		}
		if !strings.HasPrefix(h.Name, ocispec.ImageBlobsDir+"/") {
			continue
		}
		if len(content) < 1<<20 {
			small[path.Base(h.Name)] = content
		}
		if _, err := registry.PushBlob(ctx, imagesRepository, content); err != nil {
			return err
		}
	}
}

// pushIndex pushes the manifests that the archive's index names.
func pushIndex(ctx context.Context, registry *client.Client, raw []byte, blobs map[string][]byte) error {
	var index ocispec.Index
	if err := json.Unmarshal(raw, &index); err != nil {
		return fmt.Errorf("understand the archive's index: %w", err)
	}
	for _, d := range index.Manifests {
		var manifest ocispec.Manifest
		if err := json.Unmarshal(blobs[d.Digest.Encoded()], &manifest); err != nil {
			return fmt.Errorf("understand manifest %s: %w", d.Digest, err)
		}
		if _, err := registry.PushImage(ctx, imagesRepository, d.Annotations[ocispec.AnnotationRefName], manifest); err != nil {
			return err
		}
	}
	return nil
}
