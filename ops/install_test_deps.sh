#!/bin/bash
# Installs the servers that the tests start (RabbitMQ, PostgreSQL) and Chromium from Debian's
# packages, if they are missing and we may. No service is started or enabled.
set -euo pipefail
source "$(dirname "$0")/debian.sh"

policy=/usr/sbin/policy-rc.d

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

need_for_tests() {
    need "$1" "$2" "$3 will be skipped, or fail where CI=true."
}

need_for_tests /usr/lib/rabbitmq/bin/rabbitmq-server rabbitmq-server "tests on a real RabbitMQ"
need_for_tests '/usr/lib/postgresql/*/bin/postgres' postgresql "tests on a real PostgreSQL"
need_for_tests /usr/bin/chromium chromium "tests in a real browser"
[ "${#packages[@]}" -eq 0 ] && exit

if ! may_install; then
    say_what_is_missing
    exit
fi

echo "Installing for the tests: ${packages[*]}"
forbid_services
install_packages
if command -v systemctl > /dev/null; then
    for package in "${packages[@]}"; do
        # Not at the next boot either.
        "${sudo[@]}" systemctl disable --quiet "$package" > /dev/null 2>&1 || true
    done
fi
