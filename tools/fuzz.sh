#!/bin/sh
# Runs every fuzz target for FUZZTIME each, and ends with the first that finds
# something; the input is then in the package's testdata/fuzz, where ordinary
# tests try it again. Coverage guides the search, except in packages that embed
# Kubernetes, all of which would have to be compiled once more for that.
# Usage: tools/fuzz.sh [PACKAGE…]   by default all. GO names the go command.
set -eu
cd "$(dirname "$0")/.."
go=${GO:-go} time=${FUZZTIME:-30s}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ $# = 0 ]; then
	set -- $(git ls-files -co --exclude-standard '*_test.go' | xargs grep -l '^func Fuzz' | xargs -n1 dirname | sort -u | sed 's|^|./|')
fi
for package; do
	if $go list -deps "$package" | grep -q '^k8s.io/kubernetes/'; then
		$go test -c -vet=off -o "$work/test" "$package"
	else
		rm -f "$work/test"
	fi
	for target in $(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$package"/*_test.go | sort); do
		echo "$package $target"
		if [ -e "$work/test" ]; then
			(cd "$package" && "$work/test" -test.run='^$' -test.fuzz="^$target\$" -test.fuzztime="$time" -test.fuzzcachedir="$work/cache")
		else
			$go test -vet=off -run='^$' -fuzz="^$target\$" -fuzztime="$time" "$package"
		fi
	done
done
