#!/bin/sh
# House rules that no linter knows: sizes of files, the first line of scripts, the sums of the workspaces.
set -eu
bad=0
for file in $(git ls-files '*.go' '*.lua'); do
	lines=$(wc -l <"$file")
	limit=600
	case $file in *_test.go) limit=1000 ;; esac
	if [ "$lines" -gt "$limit" ]; then
		echo "$file: $lines lines, over $limit: a noun is hiding in it"
		bad=1
	fi
	case $file in *.lua)
		if ! head -n 1 "$file" | grep -q '^#!lua'; then
			echo "$file: the first line must be #!lua, else a cluster node lets it touch keys of other slots"
			bad=1
		fi
		;;
	esac
done
# The sums of both workspaces hold all that go may ask for, so that no command leaves a clone changed.
for workspace in . proof; do
	before=$(cksum <"$workspace/go.work.sum")
	(cd "$workspace" && go list -m all >/dev/null)
	if [ "$before" != "$(cksum <"$workspace/go.work.sum")" ]; then
		echo "$workspace/go.work.sum lacked sums and has them now: commit it"
		bad=1
	fi
done
exit $bad
