# lib.sh - what the scripts share: installing Debian packages, and building. Sourced from the project's root.

say() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; }
die() { say "$@"; exit 1; }

packages_of() { awk -v kind="$1" '$1 == kind { for (i = 2; i <= NF; i++) print $i }' scripts/packages.txt; }

missing_packages() {  # of the kinds given
    local kind package
    for kind in "$@"; do
        for package in $(packages_of "$kind"); do
            dpkg-query -W -f '${Status}\n' "$package" 2>/dev/null | grep -q '^install ok installed' || echo "$package"
        done
    done
}

install_packages() {  # install_packages KIND...: through apt, as root or with sudo; nothing when all is there
    local missing as_root=
    missing=$(missing_packages "$@")
    [ -n "$missing" ] || return 0
    command -v apt-get >/dev/null || die "these packages are missing, and there is no apt-get here:" $missing
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || die "these packages are missing, and there is no sudo: run as root: apt-get install" $missing
        as_root=sudo
    fi
    say "installing" $missing
    # shellcheck disable=SC2086
    { $as_root apt-get update -q && $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $missing
    } >&2 || die "could not install" $missing
}

programs="karst karst-controller karst-storage karst-frontend karst-group karst-txn"

build() {  # build PRESET [TARGET...]: in build/PRESET
    local preset=$1
    shift
    [ -e "build/$preset/build.ninja" ] || cmake --preset "$preset" >"build-$preset.log" 2>&1 ||
        { cat "build-$preset.log" >&2; rm -f "build-$preset.log"; die "cmake failed for $preset"; }
    rm -f "build-$preset.log"
    cmake --build "build/$preset" ${1:+--target "$@"}
}
