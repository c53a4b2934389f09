#!/bin/sh
# Installs the gateways that the tests in proof/interop put in front of flatrate serve: nginx, HAProxy, Caddy, and wrk,
# from Debian or Ubuntu, as root. None is left running. Elsewhere it says so, and those tests skip.
set -eu

missing=""
for program in nginx haproxy caddy wrk; do
	PATH="$PATH:/usr/sbin" command -v "$program" >/dev/null 2>&1 || missing="$missing $program"
done
[ -n "$missing" ] || exit 0
if ! command -v apt-get >/dev/null 2>&1 || [ "$(id -u)" -ne 0 ]; then
	echo "flatrate: not installed:$missing; the tests with them skip" >&2
	exit 0
fi

# The packages would start their services: forbid it while they install.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod +x "$policy"
	trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
for program in $missing; do
	case $program in nginx) package=nginx-light ;; *) package=$program ;; esac
	apt-get -qq install -y --no-install-recommends "$package" >/dev/null
done
