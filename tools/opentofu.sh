#!/bin/sh
# Builds OpenTofu from the Go module proxy into a folder: opentofu.sh DIR. go install refuses its replace directives, so that its source is
# copied and built there. It takes about ten minutes on two cores.
set -eu
version=v1.12.6
dir=$1
[ -x "$dir/tofu" ] && exit
mkdir -p "$dir/source"
source=$(cd "$dir" && GOFLAGS=-mod=mod go mod download -json "github.com/opentofu/opentofu@$version" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
cp -R "$source/." "$dir/source"
chmod -R u+w "$dir/source"
(cd "$dir/source" && GOWORK=off go build -o ../tofu ./cmd/tofu)
rm -rf "$dir/source"
