#!/bin/sh
# Puts a newer valkey-server than the distribution's own into a directory, for tests of commands that
# only newer servers have: sh tools/newer-valkey.sh DIR [SUITE], on Debian. SUITE is "trixie" (8.1) by
# default; "sid" has 9.x. Nothing is installed: the packages are unpacked into DIR, with the libraries
# that they need, and DIR/bin/valkey-server starts the server with those. DIR/bin goes before the PATH.
set -eu

dir=${1:?usage: newer-valkey.sh DIR [SUITE]} suite=${2:-trixie}
[ ! -x "$dir/bin/valkey-server" ] || exit 0
if ! command -v apt-get >/dev/null 2>&1; then
	echo "flatrate: newer-valkey.sh needs apt-get" >&2
	exit 1
fi
codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
mirror=$(apt-get indextargets --format '$(CODENAME) $(REPO_URI)' | sed -n "s/^$codename //p" | head -n 1)
mkdir -p "$dir/debs" "$dir/lists/partial" "$dir/cache/archives/partial" "$dir/root" "$dir/bin"
dir=$(cd "$dir" && pwd)
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$dir/suite.list"
set -- -qq -o "Dir::Etc::SourceList=$dir/suite.list" -o Dir::Etc::SourceParts=/dev/null \
	-o "Dir::State::Lists=$dir/lists" -o "Dir::Cache=$dir/cache" -o APT::Sandbox::User=root
apt-get "$@" update
(
	cd "$dir/debs"
	# The rest is what valkey-server links to.
	apt-get "$@" download valkey-server valkey-tools libc6 libssl3t64 liblzf1 libjemalloc2 libatomic1 libsystemd0 libzstd1 \
		zlib1g libcap2 liblz4-1 libgcrypt20 libgpg-error0 liblzma5 libgcc-s1
	for package in *.deb; do dpkg -x "$package" "$dir/root"; done
)
loader=$(find "$dir/root" -name 'ld-linux-*.so.2' -o -name 'ld-linux-aarch64.so.1' | head -n 1)
cat >"$dir/bin/valkey-server" <<END
#!/bin/sh
exec "$loader" --library-path "$(dirname "$loader")" "$dir/root/usr/bin/valkey-server" "\$@"
END
chmod +x "$dir/bin/valkey-server"
rm -rf "$dir/debs" "$dir/lists" "$dir/cache"
"$dir/bin/valkey-server" --version
