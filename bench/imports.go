package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// program is the package that everything is linked into.
const program = "github.com/emerald-platform/emerald/cmd/emerald"

// ours is the path of this module.
const ours = "github.com/emerald-platform/emerald"

// pkg is a package that the program is made of.
type pkg struct {
	ImportPath string
	Imports    []string
	ImportMap  map[string]string
	Standard   bool
	Dir        string
	EmbedFiles []string
	Module     *struct{ Path string }
}

// graph is the program's packages by their path.
type graph map[string]*pkg

// loadGraph asks the go command for the program's packages.
func (b *bench) loadGraph(ctx context.Context) (graph, error) {
	cmd := exec.CommandContext(ctx, b.gocmd, "list", "-deps", "-json=ImportPath,Imports,ImportMap,Standard,Dir,EmbedFiles,Module", program)
	cmd.Dir, cmd.Env = b.root, buildEnv()
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list the program's packages: %w", err)
	}
	g := graph{}
	decoder := json.NewDecoder(strings.NewReader(string(out)))
	for {
		p := new(pkg)
		if err := decoder.Decode(p); errors.Is(err, io.EOF) {
			return g, nil
		} else if err != nil {
			return nil, fmt.Errorf("list the program's packages: %w", err)
		}
		g[p.ImportPath] = p
	}
}

// reach returns the packages that the program would have if those for which
// without says true were not there.
func (g graph) reach(without func(*pkg) bool) map[string]bool {
	seen := map[string]bool{}
	todo := []string{program}
	for len(todo) > 0 {
		path := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		p := g[path]
		if p == nil || seen[path] || without(p) {
			continue
		}
		seen[path] = true
		for _, i := range p.Imports {
			if mapped, ok := p.ImportMap[i]; ok {
				i = mapped
			}
			todo = append(todo, i)
		}
	}
	return seen
}

// price is what a part of the program costs, in whatever the packages were
// weighed in.
type price struct {
	name string
	// own is the part's own packages; all is what the program would lose
	// without the part: those, and what nothing else imports.
	own, all float64
	packages int // that would go
}

// without weighs what goes when the packages go for which part says true.
func (g graph) without(name string, weight map[string]float64, part func(*pkg) bool) price {
	p := price{name: name}
	stays := g.reach(part)
	for path, pkg := range g {
		if part(pkg) {
			p.own += weight[path]
		}
		if !stays[path] {
			p.all += weight[path]
			p.packages++
		}
	}
	return p
}

// under returns whether a package is in one of some folders.
func under(folders ...string) func(*pkg) bool {
	return func(p *pkg) bool {
		return slices.ContainsFunc(folders, func(f string) bool {
			return p.ImportPath == f || strings.HasPrefix(p.ImportPath, f+"/")
		})
	}
}

// parts prices what the program is put together from: the parts of Kubernetes
// and the batteries, alone and all of them.
func (b *bench) parts(g graph, weight map[string]float64) ([]price, error) {
	out := []price{
		g.without("all of Kubernetes and etcd", weight, under("go.etcd.io/etcd/server/v3", "k8s.io/kubernetes", "k8s.io/apiserver/pkg/server", "k8s.io/kubectl/pkg/cmd")),
		g.without("all batteries", weight, under(ours+"/batteries")),
		g.without("etcd", weight, under("go.etcd.io/etcd/server/v3")),
		g.without("kube-apiserver", weight, under("k8s.io/kubernetes/cmd/kube-apiserver", "k8s.io/kubernetes/pkg/controlplane", "k8s.io/kube-aggregator/pkg/apiserver")),
		g.without("kube-controller-manager", weight, under("k8s.io/kubernetes/cmd/kube-controller-manager")),
		g.without("kube-scheduler", weight, under("k8s.io/kubernetes/cmd/kube-scheduler")),
		g.without("kubelet", weight, under("k8s.io/kubernetes/cmd/kubelet")),
		g.without("kube-proxy", weight, under("k8s.io/kubernetes/cmd/kube-proxy")),
		g.without("kubectl", weight, under("k8s.io/kubectl/pkg/cmd")),
		g.without("containerd", weight, under("github.com/containerd/containerd/v2/cmd", "github.com/containerd/containerd/v2/plugins", "github.com/containerd/containerd/v2/internal")),
	}
	entries, err := os.ReadDir(filepath.Join(b.root, "batteries"))
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.IsDir() {
			out = append(out, g.without("battery "+e.Name(), weight, under(ours+"/batteries/"+e.Name())))
		}
	}
	byPrice(out)
	return out, nil
}

// byPrice puts the dearest first.
func byPrice(prices []price) {
	slices.SortStableFunc(prices, func(a, b price) int {
		switch {
		case a.all > b.all:
			return -1
		case a.all < b.all:
			return 1
		}
		return strings.Compare(a.name, b.name)
	})
}

// modules prices every module that the program is made of: those of deps.txt,
// which our code imports, and those that come with them, marked so.
func (b *bench) modules(g graph, weight map[string]float64) ([]price, error) {
	raw, err := os.ReadFile(filepath.Join(b.root, "deps.txt"))
	if err != nil {
		return nil, err
	}
	direct := map[string]bool{ours: true}
	for line := range strings.Lines(string(raw)) {
		if name, _, found := strings.Cut(line, " "); found && name != "#" {
			direct[name] = true
		}
	}
	paths := map[string]bool{}
	for _, p := range g {
		if p.Module != nil {
			paths[p.Module.Path] = true
		}
	}
	var out []price
	for path := range paths {
		p := g.without(path, weight, func(p *pkg) bool { return p.Module != nil && p.Module.Path == path })
		if !direct[path] {
			p.name += " (indirect)"
		}
		if path == ours {
			p.name += ", all of our own"
			p.all, p.packages = p.own, 0 // without it nothing is left
		}
		out = append(out, p)
	}
	byPrice(out)
	return out, nil
}

// tablePrices adds a table of prices. Those below least are only counted.
func (r *report) tablePrices(what, without string, prices []price, least float64, show func(float64) string) {
	var rows [][]string
	var small int
	var rest float64
	for _, p := range prices {
		if p.all < least {
			small++
			rest += p.own
			continue
		}
		rows = append(rows, []string{p.name, show(p.own), show(p.all), fmt.Sprint(p.packages)})
	}
	if small > 0 {
		rows = append(rows, []string{fmt.Sprintf("%d smaller ones", small), show(rest), "", ""})
	}
	r.table([]string{what, "its own packages", without, "packages less"}, rows)
}
