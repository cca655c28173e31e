package deb

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Package is one record of a Packages index (deb-control(5)), as far as
// unpacking a root needs it.
type Package struct {
	Name, Version, Architecture string
	Priority                    string
	Essential                   bool
	Depends                     [][]string // names; the inner lists are alternatives
	Provides                    []string
	Filename                    string // below the archive's root
	SHA256                      string
	Size                        int64
}

// maxPackage is far above the largest package of Debian.
const maxPackage = 8 << 30

// ReadPackages calls keep for every record of an index. A record that lacks
// what installing needs is an error, as the index was signed.
func ReadPackages(r io.Reader, keep func(Package)) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), 4<<20) // some Depends lines are very long
	var p Package
	started := false
	flush := func() error {
		if !started {
			return nil
		}
		if p.Name == "" || p.Version == "" || p.Filename == "" || len(p.SHA256) != 64 || p.Size <= 0 || p.Size > maxPackage {
			return fmt.Errorf("%w: the record of package %q is not whole", ErrFormat, p.Name)
		}
		keep(p)
		p, started = Package{}, false
		return nil
	}
	for lines.Scan() {
		line := lines.Text()
		if line == "" {
			if err := flush(); err != nil {
				return err
			}
			continue
		}
		started = true
		if line[0] == ' ' || line[0] == '\t' {
			continue // more of a field that is not needed
		}
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch key {
		case "Package":
			p.Name = value
		case "Version":
			p.Version = value
		case "Architecture":
			p.Architecture = value
		case "Priority":
			p.Priority = value
		case "Essential":
			p.Essential = value == "yes"
		case "Depends", "Pre-Depends":
			p.Depends = append(p.Depends, parseRelations(value)...)
		case "Provides":
			for _, group := range parseRelations(value) {
				p.Provides = append(p.Provides, group...)
			}
		case "Filename":
			p.Filename = value
		case "SHA256":
			p.SHA256 = value
		case "Size":
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				return fmt.Errorf("%w: size %q of package %q", ErrFormat, value, p.Name)
			}
			p.Size = n
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read the package index: %w", err)
	}
	return flush()
}

// parseRelations reads "a (>= 1), b | c:any" as [[a] [b c]]. Versions are left
// out: all packages come from one suite, which is consistent.
func parseRelations(s string) [][]string {
	var groups [][]string
	for _, group := range strings.Split(s, ",") {
		var alternatives []string
		for _, a := range strings.Split(group, "|") {
			name := strings.TrimSpace(a)
			if i := strings.IndexAny(name, " (["); i >= 0 {
				name = name[:i]
			}
			name, _, _ = strings.Cut(name, ":")
			if name != "" {
				alternatives = append(alternatives, name)
			}
		}
		if len(alternatives) > 0 {
			groups = append(groups, alternatives)
		}
	}
	return groups
}
