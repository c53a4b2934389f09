#!/bin/sh
# Makes the other languages' clients and the gateways available that the tests in proof/interop run: Python's and
# PHP's redis modules and predis, nginx, HAProxy, Caddy, wrk and databases as root on Debian or Ubuntu, Node's packages wherever npm is. What
# can't be had is said, and its tests are left out. Nothing is started.
set -eu

if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
	policy=/usr/sbin/policy-rc.d # the packages would start their services
	if [ ! -e "$policy" ]; then
		printf '#!/bin/sh\nexit 101\n' >"$policy"
		chmod +x "$policy"
		trap 'rm -f "$policy"' EXIT
	fi
	export DEBIAN_FRONTEND=noninteractive
	apt-get -qq update || true
	for package in python3-redis php-cli php-redis php-nrk-predis nginx-light haproxy caddy wrk postgresql mariadb-server; do
		dpkg -s "$package" >/dev/null 2>&1 ||
			apt-get -qq install -y --no-install-recommends "$package" >/dev/null ||
			echo "flatrate: no package $package: its tests are left out" >&2
	done
fi
if command -v npm >/dev/null 2>&1; then
	(cd "$(dirname "$0")/../proof/interop/node" && npm ci --silent --no-fund --no-audit) ||
		echo "flatrate: no Node packages: their tests are left out" >&2
fi
