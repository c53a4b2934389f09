#!/bin/sh
# Usage: fuzz.sh TIME MODULE... Runs every fuzz target of the modules for TIME, one after the other.
set -eu
time=$1
shift
for module in "$@"; do
	(
		cd "$module"
		grep -rl --include='*_test.go' '^func Fuzz' . | grep -v '^\./\(cmd\|contrib\|proof\)/' | while read -r file; do
			dir=$(dirname "$file")
			sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$file" | while read -r target; do
				echo "-- $module $dir $target"
				go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 1s "$dir"
			done
		done
	)
done
