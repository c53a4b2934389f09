#!/bin/sh
# Makes valkey-server and redis-server available for the tests.
#
# Both on the PATH: nothing is done. As root on Debian or Ubuntu they come from the distribution (on
# Debian 12 valkey-server comes from its backports), with Homebrew on macOS. Otherwise the one command
# to type is printed. It never calls sudo, and no server is left running.
set -eu

have() { command -v "$1" >/dev/null 2>&1; }
missing=""
for server in valkey-server redis-server; do have "$server" || missing="$missing $server"; done
[ -n "$missing" ] || exit 0

if [ "$(uname)" = Darwin ] && have brew; then
	for server in $missing; do brew install "${server%-server}"; done
	exit 0
fi
if ! have apt-get; then
	echo "flatrate: install$missing with your package manager; the tests skip without a server" >&2
	exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
	echo "flatrate: the tests want$missing; type: sudo sh tools/install-servers.sh" >&2
	exit 0
fi

# The packages would start their services on the default port: forbid it while they install.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod +x "$policy"
	trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update

# With backports named only for this call, the machine's own package sources stay as they are.
install() { apt-get -qq install -y --no-install-recommends "$@" >/dev/null; }
for server in $missing; do
	candidate=$(apt-cache policy "$server" | sed -n 's/^ *Candidate: //p')
	if [ -n "$candidate" ] && [ "$candidate" != "(none)" ]; then
		install "$server"
		continue
	fi
	codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
	mirror=$(apt-get indextargets --format '$(CODENAME) $(REPO_URI)' | sed -n "s/^$codename //p" | head -n 1)
	if [ -z "$mirror" ]; then
		echo "flatrate: no package source carries $server for $codename" >&2
		exit 1
	fi
	scratch=$(mktemp -d)
	chmod 755 "$scratch" # apt reads it as its own user
	mkdir -p "$scratch/parts" "$scratch/lists/partial"
	cp -r /etc/apt/sources.list.d/. "$scratch/parts/"
	echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $codename-backports main" \
		>"$scratch/parts/flatrate-backports.list"
	set -- -o "Dir::Etc::SourceParts=$scratch/parts" -o "Dir::State::Lists=$scratch/lists"
	apt-get -qq "$@" update
	install "$@" -t "$codename-backports" "$server"
	rm -rf "$scratch"
done
