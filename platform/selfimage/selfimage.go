// Package selfimage puts the platform's own image, made of the running program
// and the host's CA bundle, where the container runtime finds it, and the image
// of every pod's first process with it. Nothing is pulled, and hardly anything
// is copied.
//
// It promises that an image it returned is complete, pinned against the
// kubelet's image collection, and known to CRI by the reference it returned.
// The same program and bundle give the same reference on every machine.
//
// Invariant: an image's record is written after everything it refers to.
package selfimage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	core "github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/opencontainers/go-digest"

	"github.com/emerald-platform/emerald/kit/durable"
	"github.com/emerald-platform/emerald/platform/containers"
	"github.com/emerald-platform/emerald/platform/containers/embedded"
	"github.com/emerald-platform/emerald/platform/dirs"
)

// Repository is the name of the platform's image, without its digest. No
// registry has this host name.
const Repository = "emerald.local/emerald"

// Program is the path of the running program in the image.
const Program = "/emerald"

// visibleTimeout bounds how long CRI may take to notice an image.
const visibleTimeout = 30 * time.Second

// Labels of the runtime on images: pinned ones are never collected by the
// kubelet; managed ones are CRI's.
var imageLabels = map[string]string{
	"io.cri-containerd.image":  "managed",
	"io.cri-containerd.pinned": "pinned",
}

// Ensure makes the platform's image and the pause image present and returns
// the platform image's reference by digest, to be used with imagePullPolicy
// Never. caBundle is PEM, and may be empty. Images of other versions that no
// container uses are removed.
func Ensure(ctx context.Context, rt *containers.Runtime, d dirs.Dirs, caBundle []byte, log *slog.Logger) (string, error) {
	client := rt.Client()
	began := time.Now()
	pause, err := pauseImage()
	if err != nil {
		return "", err
	}
	layer, err := pause.layerOf()
	if err != nil {
		return "", err
	}
	pauseName, err := pause.ensure(ctx, client, layer)
	if err != nil {
		return "", err
	}
	self := selfImage("/proc/self/exe", caBundle)
	if layer, err = self.cachedLayer(d.SelfImage()); err != nil {
		return "", err
	}
	name, err := self.ensure(ctx, client, layer)
	if err != nil {
		return "", err
	}
	if err := awaitCRI(ctx, rt.Socket, pauseName, name); err != nil {
		return "", err
	}
	log.Info("platform image ready", "image", name, "duration", time.Since(began))
	if err := removeOthers(ctx, client, Repository, name); err != nil {
		// Old images cost disk, nothing else.
		log.Warn("old platform images not removed", "error", err)
	}
	return name, nil
}

// pauseImage is the image that [containers.PauseImage] names.
func pauseImage() (image, error) {
	name, err := containers.PauseImage()
	if err != nil {
		return image{}, err
	}
	data, err := embedded.Read(embedded.Pause)
	if err != nil {
		return image{}, err
	}
	repository, tag, _ := strings.Cut(name, ":")
	return image{
		repository: repository,
		tag:        tag,
		files:      []file{{path: "/pause", mode: 0o755, data: data}},
		config:     ocispec.ImageConfig{Entrypoint: []string{"/pause"}, User: "65535:65535"},
	}, nil
}

// selfImage is the image of the program at from.
func selfImage(from string, caBundle []byte) image {
	i := image{
		repository: Repository,
		files: []file{
			{path: Program, mode: 0o755, from: from},
			{path: "/etc/passwd", mode: 0o644, data: []byte("root:x:0:0:root:/:/\nnonroot:x:65532:65532:nonroot:/:/\n")},
			{path: "/etc/group", mode: 0o644, data: []byte("root:x:0:\nnonroot:x:65532:\n")},
		},
		dirs: []file{{path: "/tmp", mode: 0o777 | os.ModeSticky}},
		config: ocispec.ImageConfig{
			Entrypoint: []string{Program}, User: "65532:65532", WorkingDir: "/",
			Env: []string{"PATH=/"},
		},
	}
	if len(caBundle) > 0 {
		i.files = append(i.files, file{path: "/etc/ssl/certs/ca-certificates.crt", mode: 0o644, data: caBundle})
	}
	return i
}

// cached is what the cache file remembers: reading a program of hundreds of
// megabytes takes longer than everything else here.
type cached struct {
	Inode  uint64             `json:"inode"`
	Size   int64              `json:"size"`
	Time   int64              `json:"time"`
	Rest   digest.Digest      `json:"rest"` // of everything but the program
	Layer  ocispec.Descriptor `json:"layer"`
	Device uint64             `json:"device"`
}

// cachedLayer is layerOf for an image whose program rarely changes.
func (i image) cachedLayer(path string) (ocispec.Descriptor, error) {
	st, err := os.Stat(i.files[0].from)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("find this program: %w", err)
	}
	rest := i
	rest.files = i.files[1:]
	restLayer, err := rest.layerOf()
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	sys := st.Sys().(*syscall.Stat_t)
	want := cached{Inode: sys.Ino, Device: sys.Dev, Size: st.Size(), Time: st.ModTime().UnixNano(), Rest: restLayer.Digest}
	if data, err := os.ReadFile(path); err == nil {
		var have cached
		if json.Unmarshal(data, &have) == nil {
			layer := have.Layer
			have.Layer = ocispec.Descriptor{}
			if have.Inode == want.Inode && have.Device == want.Device && have.Size == want.Size &&
				have.Time == want.Time && have.Rest == want.Rest && layer.Digest.Validate() == nil {
				return layer, nil
			}
		}
	}
	if want.Layer, err = i.layerOf(); err != nil {
		return ocispec.Descriptor{}, err
	}
	data, err := json.Marshal(want)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("remember this program's digest: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("remember this program's digest: %w", err)
	}
	if err := durable.WriteFile(path, data, 0o600); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("remember this program's digest: %w", err)
	}
	return want.Layer, nil
}

// ensure makes the image present and returns its full name.
func (i image) ensure(ctx context.Context, client *containerd.Client, layer ocispec.Descriptor) (string, error) {
	config, manifest, err := i.describe(layer)
	if err != nil {
		return "", err
	}
	name := i.repository + "@" + manifest.Digest.String()
	if i.tag != "" {
		name = i.repository + ":" + i.tag
	}
	chain := identity.ChainID([]digest.Digest{layer.Digest}).String()
	snapshots := client.SnapshotService(snapshotter)
	record, err := client.ImageService().Get(ctx, name)
	if err != nil && !errdefs.IsNotFound(err) {
		return "", fmt.Errorf("look for image %s: %w", name, err)
	}
	if err == nil && record.Target.Digest == manifest.Digest {
		ok, err := i.intact(ctx, snapshots, chain)
		if err != nil {
			return "", err
		}
		if ok {
			return name, nil
		}
		// Broken by a power loss: its containers are gone, too.
		if err := client.ImageService().Delete(ctx, name, images.SynchronousDelete()); err != nil && !errdefs.IsNotFound(err) {
			return "", fmt.Errorf("remove broken image %s: %w", name, err)
		}
		if err := snapshots.Remove(ctx, chain); err != nil && !errdefs.IsNotFound(err) {
			return "", fmt.Errorf("remove broken image %s: %w", name, err)
		}
	}
	// The lease keeps what no image refers to yet from being collected.
	ctx, release, err := client.WithLease(ctx)
	if err != nil {
		return "", fmt.Errorf("import image %s: %w", name, err)
	}
	defer release(ctx)
	if err := i.unpack(ctx, snapshots, chain); err != nil {
		return "", err
	}
	// The layer itself is not stored: it could only be unpacked once more.
	for _, b := range []struct {
		blob   blob
		labels map[string]string
	}{
		{config, map[string]string{"containerd.io/gc.ref.snapshot." + snapshotter: chain}},
		{manifest, map[string]string{"containerd.io/gc.ref.content.config": config.Digest.String()}},
	} {
		err := content.WriteBlob(ctx, client.ContentStore(), name+string(b.blob.Digest), b.blob.reader(), b.blob.Descriptor, content.WithLabels(b.labels))
		if err != nil && !errdefs.IsAlreadyExists(err) {
			return "", fmt.Errorf("import image %s: %w", name, err)
		}
	}
	record = images.Image{Name: name, Target: manifest.Descriptor, Labels: imageLabels}
	if _, err := client.ImageService().Create(ctx, record); errdefs.IsAlreadyExists(err) {
		_, err = client.ImageService().Update(ctx, record)
		if err != nil {
			return "", fmt.Errorf("import image %s: %w", name, err)
		}
	} else if err != nil {
		return "", fmt.Errorf("import image %s: %w", name, err)
	}
	return name, nil
}

// awaitCRI returns when CRI knows every image: it learns of them by events.
func awaitCRI(ctx context.Context, socket string, names ...string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, visibleTimeout, errors.New("the container runtime did not notice it"))
	defer cancel()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("connect to containerd: %w", err)
	}
	defer conn.Close()
	for _, name := range names {
		for {
			status, err := cri.NewImageServiceClient(conn).ImageStatus(ctx, &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: name}})
			if err == nil && status.Image != nil {
				break
			}
			select {
			case <-ctx.Done():
				return errors.Join(fmt.Errorf("wait for image %s: %w", name, context.Cause(ctx)), err)
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
	return nil
}

// removeOthers removes the images of a repository, but keep and those that a
// container was made from.
func removeOthers(ctx context.Context, client *containerd.Client, repository, keep string) error {
	all, err := client.ImageService().List(ctx)
	if err != nil {
		return fmt.Errorf("list images: %w", err)
	}
	made, err := client.ContainerService().List(ctx)
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	// Containers name their image by any of its names; what counts is the
	// manifest behind it.
	used := map[digest.Digest]bool{}
	for _, i := range all {
		if i.Name == keep || slices.ContainsFunc(made, func(c core.Container) bool { return c.Image == i.Name }) {
			used[i.Target.Digest] = true
		}
	}
	var errs []error
	for _, i := range all {
		if !strings.HasPrefix(i.Name, repository+"@") || used[i.Target.Digest] {
			continue
		}
		// CRI adds a second name of its own, the digest of the configuration.
		for _, alias := range all {
			if alias.Target.Digest != i.Target.Digest {
				continue
			}
			if err := client.ImageService().Delete(ctx, alias.Name); err != nil && !errdefs.IsNotFound(err) {
				errs = append(errs, fmt.Errorf("remove image %s: %w", alias.Name, err))
			}
		}
	}
	return errors.Join(errs...)
}
