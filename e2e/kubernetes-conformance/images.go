package main

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	upstream "k8s.io/kubernetes/test/utils/image"

	"github.com/emerald-platform/emerald/e2e/testimage"
	"github.com/emerald-platform/emerald/platform/containers/embedded"
)

// named is an image with the name that the suite calls it by.
type named struct {
	reference string
	image     testimage.Image
}

// images describe the images of the conformance tests, as the suite calls them
// when they are in the one repository. Each does what upstream's does, which is
// made of Alpine and the same programs.
func images(o options, r *root, b *busybox, repository string) ([]named, error) {
	pause, err := embedded.Read(embedded.Pause)
	if err != nil {
		return nil, err
	}
	debian := testimage.Layer{Tar: r.tar}
	busybox := testimage.Layer{Files: b.files()}
	agnhost := []testimage.Layer{debian, {Files: agnhostFiles(o, r, b)}}
	made := map[upstream.ImageID]testimage.Image{
		upstream.Pause: {
			Layers: []testimage.Layer{{Files: []testimage.File{{Path: "pause", Mode: 0o755, Data: pause}}}},
			Config: ocispec.ImageConfig{Entrypoint: []string{"/pause"}, User: "65535:65535"},
		},
		upstream.BusyBox: {Layers: []testimage.Layer{busybox}, Config: ocispec.ImageConfig{Cmd: []string{"sh"}}},
		upstream.NonRoot: {Layers: []testimage.Layer{busybox}, Config: ocispec.ImageConfig{Cmd: []string{"sh"}, User: "1234"}},
		upstream.Nonewprivs: {
			Layers: []testimage.Layer{busybox, {Files: []testimage.File{
				{Path: "usr/local/bin/nnp", Mode: 0o755 | fs.ModeSetuid | fs.ModeSetgid, From: o.program("nonewprivs")},
			}}},
			Config: ocispec.ImageConfig{Cmd: []string{"nnp"}},
		},
		upstream.Etcd: {
			Layers: []testimage.Layer{busybox, {Files: []testimage.File{
				{Path: "usr/local/bin/etcd", Mode: 0o755, From: o.program("etcd")},
			}}},
			Config: ocispec.ImageConfig{Cmd: []string{"/usr/local/bin/etcd"}},
		},
		upstream.APIServer: {
			Layers: []testimage.Layer{{Files: []testimage.File{
				{Path: "tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777},
				{Path: "sample-apiserver", Mode: 0o755, From: o.program("sample-apiserver")},
			}}},
			Config: ocispec.ImageConfig{Entrypoint: []string{"/sample-apiserver"}},
		},
		upstream.GlibcDnsTesting: {Layers: []testimage.Layer{debian}, Config: ocispec.ImageConfig{Cmd: []string{"/bin/sh"}}},
		upstream.Nginx:           nginx(debian),
		upstream.NginxNew:        nginx(debian),
		upstream.Agnhost:         {Layers: agnhost, Config: agnhostConfig("pause")},
		upstream.AgnhostPrev:     {Layers: agnhost, Config: agnhostConfig("pause")},
		upstream.Nautilus:        o.pet(agnhost, "nautilus"),
		upstream.Kitten:          o.pet(agnhost, "kitten"),
	}
	var out []named
	for id, config := range upstream.GetMappedImageConfigs(upstream.GetOriginalImageConfigs(), repository) {
		if i, ok := made[id]; ok {
			reference := config.GetE2EImage()
			i.Names = []string{reference}
			out = append(out, named{reference, i})
		}
	}
	if len(out) != len(made) {
		return nil, fmt.Errorf("name the images: the suite has names for %d of %d", len(out), len(made))
	}
	slices.SortFunc(out, func(a, b named) int { return strings.Compare(a.reference, b.reference) })
	return out, nil
}

// program is one that was built for the images.
func (o options) program(name string) string { return filepath.Join(o.built, name) }

// source is a folder of upstream's images.
func (o options) sourceOf(elem ...string) string {
	return filepath.Join(append([]string{o.source, "test", "images"}, elem...)...)
}

// files are an image of nothing but busybox.
func (b *busybox) files() []testimage.File {
	var out []testimage.File
	for dir, mode := range map[string]fs.FileMode{
		"bin": 0o755, "dev": 0o755, "etc": 0o755, "home": 0o755, "proc": 0o555, "root": 0o700, "sys": 0o555,
		"tmp": 0o777 | fs.ModeSticky, "usr": 0o755, "usr/bin": 0o755, "var": 0o755, "var/www": 0o755,
	} {
		out = append(out, testimage.File{Path: dir, Mode: fs.ModeDir | mode})
	}
	slices.SortFunc(out, func(a, b testimage.File) int { return strings.Compare(a.Path, b.Path) })
	out = append(out,
		testimage.File{Path: "etc/passwd", Mode: 0o644, Data: []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n")},
		testimage.File{Path: "etc/group", Mode: 0o644, Data: []byte("root:x:0:\nusers:x:100:\nnogroup:x:65534:\n")},
		testimage.File{Path: "bin/busybox", Mode: 0o755, From: b.path})
	for _, a := range b.applets {
		out = append(out, testimage.File{Path: "bin/" + a, Mode: 0o777, Link: "busybox"})
	}
	return out
}

// agnhostFiles are upstream's test program, what its image has besides, and the
// programs that Alpine has by busybox and Debian lacks.
func agnhostFiles(o options, r *root, b *busybox) []testimage.File {
	passwd := append(slices.Clone(r.files["etc/passwd"]), "user-defined-in-image:x:1000:1000::/home/user-defined-in-image:/bin/sh\n"...)
	group := append(slices.Clone(r.files["etc/group"]), "user-defined-in-image:x:1000:\ngroup-defined-in-image:x:50000:user-defined-in-image\n"...)
	out := []testimage.File{
		{Path: "uploads", Mode: fs.ModeDir | 0o755},
		{Path: "localhost.crt", Mode: 0o644, From: o.sourceOf("agnhost", "porter", "localhost.crt")},
		{Path: "localhost.key", Mode: 0o600, From: o.sourceOf("agnhost", "porter", "localhost.key")},
		{Path: "agnhost", Mode: 0o755, From: o.program("agnhost")},
		{Path: "agnhost-2", Mode: 0o777, Link: "agnhost"},
		{Path: "etc/passwd", Mode: 0o644, Data: passwd},
		{Path: "etc/group", Mode: 0o644, Data: group},
		{Path: "usr/local/bin/busybox", Mode: 0o755, From: b.path},
	}
	for _, a := range b.applets {
		if _, ok := r.programs[a]; !ok {
			out = append(out, testimage.File{Path: "usr/local/bin/" + a, Mode: 0o777, Link: "busybox"})
		}
	}
	return out
}

func agnhostConfig(command string) ocispec.ImageConfig {
	ports := map[string]struct{}{}
	for _, port := range []string{"80", "5000", "8080", "8081", "9376"} {
		ports[port+"/tcp"] = struct{}{}
	}
	return ocispec.ImageConfig{Entrypoint: []string{"/agnhost"}, Cmd: []string{command}, WorkingDir: "/", ExposedPorts: ports}
}

// pet is agnhost as the web server of a picture.
func (o options) pet(agnhost []testimage.Layer, name string) testimage.Image {
	files := []testimage.File{
		// A test reads the file in an image volume, and expects upstream's system.
		{Path: "etc/os-release", Mode: 0o644, Data: []byte("ID=debian\nPRETTY_NAME=\"Debian, in place of Alpine Linux\"\n")},
	}
	for _, f := range []string{name + ".jpg", "data.json"} {
		files = append(files, testimage.File{Path: f, Mode: 0o644, From: o.sourceOf(name, "html", f)})
	}
	return testimage.Image{
		Layers: append(slices.Clone(agnhost), testimage.Layer{Files: files}),
		Config: agnhostConfig("test-webserver"),
	}
}

// nginx is Debian's, set up as the project's own image is.
func nginx(debian testimage.Layer) testimage.Image {
	const config = `daemon off;
pid /run/nginx.pid;
error_log /dev/stderr notice;
events {}
http {
	include /etc/nginx/mime.types;
	access_log /dev/stdout;
	server {
		listen 80;
		root /usr/share/nginx/html;
	}
}
`
	return testimage.Image{
		Layers: []testimage.Layer{debian, {Files: []testimage.File{{Path: "etc/nginx/nginx.conf", Mode: 0o644, Data: []byte(config)}}}},
		Config: ocispec.ImageConfig{Cmd: []string{"nginx"}, StopSignal: "SIGQUIT", ExposedPorts: map[string]struct{}{"80/tcp": {}}},
	}
}
