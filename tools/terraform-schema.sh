#!/bin/sh
# Fetches what npm has of the AWS provider's schema into a folder: terraform-schema.sh DIR. The packages are read as text: nothing of them is
# installed or run.
set -eu
dir=$1
mkdir -p "$dir"
cd "$dir"
fetch() { # package, name of its tarball, folder, paths in it
	package=$1 tarball=$2 to=$3
	shift 3
	[ -e "$to" ] && return
	[ -e "$tarball" ] || npm pack --silent "$package" >/dev/null
	mkdir "$to.part"
	tar xzf "$tarball" -C "$to.part" --strip-components 1 "$@"
	mv "$to.part" "$to"
	rm "$tarball"
}
# Made from the provider 6.25.0.
set --
for resource in cloudwatch-log-group cloudwatch-metric-alarm data-aws-caller-identity data-aws-iam-policy-document data-aws-partition data-aws-region \
	elasticache-parameter-group elasticache-replication-group elasticache-serverless-cache elasticache-subnet-group elasticache-user \
	elasticache-user-group kms-alias kms-key security-group vpc-security-group-ingress-rule; do
	set -- "$@" "package/lib/$resource/index.js" "package/lib/$resource/index.d.ts"
done
fetch @cdktf/provider-aws@21.22.1 cdktf-provider-aws-21.22.1.tgz cdktf "$@"
# Made from a later one, for what is younger than that.
fetch @pulumi/aws@7.48.0 pulumi-aws-7.48.0.tgz pulumi package/elasticache/replicationGroup.d.ts package/elasticache/user.d.ts
