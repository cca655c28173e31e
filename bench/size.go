package main

import (
	"context"
	"debug/elf"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// size tells what every part and every module adds to the program.
func (b *bench) size(ctx context.Context) (*report, error) {
	b.say("linking the program once more, with its symbols")
	// The flag -s drops the table of symbols, -w only what debuggers need.
	flags := strings.Replace(" "+b.ldflags+" ", " -s ", " ", 1)
	withSymbols, err := b.build(ctx, ".", "emerald-with-symbols", "./cmd/emerald", strings.TrimSpace(flags))
	if err != nil {
		return nil, err
	}
	// This file is nearly half a gigabyte with its symbols.
	defer os.Remove(withSymbols)
	g, err := b.loadGraph(ctx)
	if err != nil {
		return nil, err
	}
	weight, total, known, err := g.weigh(withSymbols)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(b.emerald)
	if err != nil {
		return nil, fmt.Errorf("look at the program: %w", err)
	}
	parts, err := b.parts(g, weight)
	if err != nil {
		return nil, err
	}
	modules, err := b.modules(g, weight)
	if err != nil {
		return nil, err
	}
	var standard, own float64
	for path, p := range g {
		if p.Standard {
			standard += weight[path]
		} else if under(ours)(p) {
			own += weight[path]
		}
	}
	r := new(report)
	r.say("The program has %s: %d packages, of which the standard library is %s and our own code, with the files it carries, %s. "+
		"%.0f %% of the bytes are in symbols and files that belong to a package; the rest (line tables, types, strings) is divided in proportion to those.",
		megabytes(float64(info.Size())), len(g), megabytes(standard), megabytes(own), 100*known/total)
	const without = "the program without it is smaller by"
	r.tablePrices("part", without, parts, 0, megabytes)
	r.tablePrices("module", without, modules, 0.25e6, megabytes)
	return r, nil
}

// weigh divides the bytes of a program that has symbols among its packages.
// Known is how much of the total was found to belong to a package.
func (g graph) weigh(path string) (weight map[string]float64, total, known float64, err error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, 0, 0, fmt.Errorf("read the program: %w", err)
	}
	defer f.Close()
	for _, s := range f.Sections {
		// What is loaded from the file; the table of symbols is not, and the
		// stripped program has none.
		if s.Flags&elf.SHF_ALLOC != 0 && s.Type != elf.SHT_NOBITS {
			total += float64(s.Size)
		}
	}
	symbols, err := f.Symbols()
	if err != nil {
		return nil, 0, 0, fmt.Errorf("read the program's symbols: %w", err)
	}
	weight = map[string]float64{}
	for _, s := range symbols {
		if int(s.Section) >= len(f.Sections) || f.Sections[s.Section].Type == elf.SHT_NOBITS {
			continue
		}
		if p := packageOf(s.Name); g[p] != nil {
			weight[p] += float64(s.Size)
			known += float64(s.Size)
		}
	}
	embedded := map[string]float64{}
	for path, p := range g {
		for _, file := range p.EmbedFiles {
			if info, err := os.Stat(filepath.Join(p.Dir, file)); err == nil {
				embedded[path] += float64(info.Size())
			}
		}
	}
	// Files are strings without a name: they are part of the rest, which is
	// divided after they have been taken out of it.
	var files float64
	for _, n := range embedded {
		files += n
	}
	factor := (total - files) / known
	for path := range weight {
		weight[path] *= factor
	}
	for path, n := range embedded {
		weight[path] += n
	}
	return weight, total, known + files, nil
}

// packageOf returns the path of the package that a linker's symbol belongs to:
// "k8s.io/api/core/v1" for "k8s.io/api/core/v1.(*Pod).Marshal".
func packageOf(symbol string) string {
	for _, prefix := range []string{"type:.eq.", "type:.hash.", "go:itab.", "go:struct {"} {
		symbol = strings.TrimPrefix(symbol, prefix)
	}
	symbol = strings.TrimLeft(symbol, "*")
	// Arguments of generic functions, receivers and closures hold other paths.
	if end := strings.IndexAny(symbol, "[({,"); end >= 0 {
		symbol = symbol[:end]
	}
	slash := strings.LastIndexByte(symbol, '/')
	name, _, found := strings.Cut(symbol[slash+1:], ".")
	if !found {
		return ""
	}
	// The linker writes the dots of the last element as %2e.
	last, err := url.PathUnescape(name)
	if err != nil {
		return ""
	}
	return symbol[:slash+1] + last
}
