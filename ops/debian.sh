# Sourced by the scripts that install Debian's packages where that is allowed.
# shellcheck shell=bash

sudo=()
packages=()
reasons=()

# need PATTERN PACKAGE REASON: note the package if no file matches the pattern
need() {
    if ! compgen -G "$1" > /dev/null; then
        packages+=("$2")
        reasons+=("$3")
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
    printf '  %s\n' "${reasons[@]}" >&2
    echo "Install them: apt-get install --no-install-recommends ${packages[*]}" >&2
}

quietly() {
    local log
    log=$(mktemp)
    if ! "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive "$@" > "$log" 2>&1 < /dev/null; then
        cat "$log" >&2
        rm -f "$log"
        echo "Failed: $*" >&2
        return 1
    fi
    rm -f "$log"
}

install_packages() {
    quietly apt-get update
    quietly apt-get install -y --no-install-recommends "${packages[@]}"
}
