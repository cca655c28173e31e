package deb

import (
	"fmt"
	"slices"
	"strings"
)

// Index holds the newest version of every package of a suite and of its
// updates.
type Index struct {
	packages  map[string]Package
	providers map[string][]string // real names, sorted, by virtual name
}

// NewIndex returns an index without packages.
func NewIndex() *Index {
	return &Index{packages: map[string]Package{}, providers: map[string][]string{}}
}

// Add puts a package in, unless a newer version is there.
func (x *Index) Add(p Package) {
	if have, ok := x.packages[p.Name]; ok && CompareVersions(have.Version, p.Version) >= 0 {
		return
	}
	x.packages[p.Name] = p
	for _, v := range p.Provides {
		at, found := slices.BinarySearch(x.providers[v], p.Name)
		if !found {
			x.providers[v] = slices.Insert(x.providers[v], at, p.Name)
		}
	}
}

// Get returns a package by name.
func (x *Index) Get(name string) (Package, bool) {
	p, ok := x.packages[name]
	return p, ok
}

// Select returns the names, sorted, of the packages for which want is true.
func (x *Index) Select(want func(Package) bool) []string {
	var out []string
	for name, p := range x.packages {
		if want(p) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// Closure returns the packages named and all they depend on, sorted by name.
// Of alternatives the one that is already chosen counts, then the first that
// exists.
func (x *Index) Closure(names ...string) ([]Package, error) {
	chosen := map[string]bool{}
	satisfied := map[string]bool{} // real and provided names
	var queue []string
	choose := func(name string) {
		if chosen[name] {
			return
		}
		chosen[name], satisfied[name] = true, true
		for _, v := range x.packages[name].Provides {
			satisfied[v] = true
		}
		queue = append(queue, name)
	}
	for _, name := range names {
		if _, ok := x.packages[name]; !ok {
			return nil, fmt.Errorf("package %q: %w", name, ErrNotFound)
		}
		choose(name)
	}
	for i := 0; i < len(queue); i++ {
		for _, group := range x.packages[queue[i]].Depends {
			if slices.ContainsFunc(group, func(n string) bool { return satisfied[n] }) {
				continue
			}
			name, err := x.pick(group)
			if err != nil {
				return nil, fmt.Errorf("package %q depends on %s: %w", queue[i], strings.Join(group, " | "), err)
			}
			choose(name)
		}
	}
	slices.Sort(queue)
	out := make([]Package, len(queue))
	for i, name := range queue {
		out[i] = x.packages[name]
	}
	return out, nil
}

func (x *Index) pick(group []string) (string, error) {
	for _, name := range group {
		if _, ok := x.packages[name]; ok {
			return name, nil
		}
		if p := x.providers[name]; len(p) > 0 {
			return slices.MinFunc(p, func(a, b string) int { return x.rank(a) - x.rank(b) }), nil
		}
	}
	return "", ErrNotFound
}

// priorities are Debian's, most important first: the package that every system
// has is the one to choose of those that provide the same.
var priorities = []string{"required", "important", "standard", "optional", "extra"}

func (x *Index) rank(name string) int {
	if i := slices.Index(priorities, x.packages[name].Priority); i >= 0 {
		return i
	}
	return len(priorities)
}
