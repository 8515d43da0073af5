#!/bin/bash
# Installs the servers that the tests start (RabbitMQ, PostgreSQL) and Chromium from Debian's
# packages, if they are missing and we may. No service is started or enabled.
set -euo pipefail

policy=/usr/sbin/policy-rc.d
sudo=()
packages=()
skipped=()

# need PATTERN PACKAGE TESTS: note the package if no file matches the pattern
need() {
    if ! compgen -G "$1" > /dev/null; then
        packages+=("$2")
        skipped+=("$3")
    fi
}

may_install() {
    command -v apt-get > /dev/null || return 1
    [ "$(id -u)" -eq 0 ] && return
    sudo=(sudo -n)
    command -v sudo > /dev/null && "${sudo[@]}" true 2> /dev/null
}

say_what_is_missing() {
    echo "Missing and not installed: ${packages[*]}." >&2
    printf '  %s\n' "${skipped[@]/%/ will be skipped, or fail where CI=true.}" >&2
    echo "To run them: apt-get install --no-install-recommends ${packages[*]}" >&2
}

# A package's scripts ask policy-rc.d whether they may start their service: 101 says no.
forbid_services() {
    saved=$(mktemp -d)
    if [ -e "$policy" ]; then "${sudo[@]}" cp -a "$policy" "$saved/"; fi
    trap restore_policy EXIT
    printf '#!/bin/sh\nexit 101\n' | "${sudo[@]}" tee "$policy" > /dev/null
    "${sudo[@]}" chmod 755 "$policy"
}

restore_policy() {
    "${sudo[@]}" rm -f "$policy"
    if [ -e "$saved/policy-rc.d" ]; then "${sudo[@]}" cp -a "$saved/policy-rc.d" "$policy"; fi
    "${sudo[@]}" rm -rf "$saved"
}

quietly() {
    if ! "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive "$@" > "$log" 2>&1 < /dev/null; then
        cat "$log" >&2
        echo "Failed: $*" >&2
        return 1
    fi
}

need /usr/lib/rabbitmq/bin/rabbitmq-server rabbitmq-server "tests on a real RabbitMQ"
need '/usr/lib/postgresql/*/bin/postgres' postgresql "tests on a real PostgreSQL"
need /usr/bin/chromium chromium "tests in a real browser"
[ "${#packages[@]}" -eq 0 ] && exit

if ! may_install; then
    say_what_is_missing
    exit
fi

log=$(mktemp)
echo "Installing for the tests: ${packages[*]}"
forbid_services
quietly apt-get update
quietly apt-get install -y --no-install-recommends "${packages[@]}"
if command -v systemctl > /dev/null; then
    for package in "${packages[@]}"; do
        # Not at the next boot either.
        "${sudo[@]}" systemctl disable --quiet "$package" > /dev/null 2>&1 || true
    done
fi
rm -f "$log"
