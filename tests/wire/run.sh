#!/usr/bin/env bash
# run.sh [BUILD_DIR] [SEED]: holds proto/kafka/ and libs/wire against the real Kafka. Prints "ok NAME" or "not ok NAME WHY" a check;
# exit 1 when one fails. BUILD_DIR (default build/release) must hold bin/wire_roundtrip. Needs a JDK; installs it where it is missing.
#
#   notation        every fact of proto/kafka/*.msg equals the JSON inside the released jars
#   defaults        a new message of ours has the values of a new object of Kafka's class, field by field
#   kafka-reads     what we write, at every version and reaching every field, Kafka's classes read and write to the same bytes
#   kafka-writes    what Kafka's classes write, reaching every field, we read and write to the same bytes, also over the bus
set -uo pipefail
cd "$(dirname "$0")/../.."

build=${1:-build/release}
seed=${2:-$RANDOM}
roundtrip=$build/bin/wire_roundtrip
kafka=tests/tools/kafka
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

# check NAME COMMAND...: the command's output goes to a file; its end is the reason when it fails.
check() {
    local name=$1
    shift
    if "$@" >"$work/out" 2>&1; then
        echo "ok $name ($(tail -1 "$work/out"))"
    else
        echo "not ok $name $(tail -5 "$work/out" | cut -c 1-300)"
        failed=1
    fi
}

need_jdk() {
    command -v javac >/dev/null && return
    local as_root=
    [ "$(id -u)" = 0 ] || as_root=sudo
    { $as_root apt-get update -q && DEBIAN_FRONTEND=noninteractive $as_root apt-get install -qy --no-install-recommends \
        openjdk-17-jdk-headless; } >&2
}

# java needs the class path of the real Kafka beside our class.
reread() { java -Xshare:auto -cp "$work:$classpath" Reread "$@"; }

prepare() {
    [ -x "$roundtrip" ] || { echo "no $roundtrip: build first"; return 1; }
    need_jdk && "$kafka" setup && classpath=$("$kafka" classpath) && javac -cp "$classpath" -d "$work" tests/wire/Reread.java
}

notation() { "$kafka" messages "$work/json" >/dev/null && python3 -B tools/kafka_notation.py check "$work/json" proto/kafka; }

defaults() {
    "$roundtrip" list >"$work/list" && "$roundtrip" defaults | sort -u >"$work/our-defaults" &&
        reread defaults <"$work/list" | sort -u >"$work/their-defaults" &&
        diff "$work/our-defaults" "$work/their-defaults" && wc -l <"$work/our-defaults"
}

kafka_reads() { "$roundtrip" write "$seed" >"$work/ours" && reread read <"$work/ours"; }

kafka_writes() {
    "$roundtrip" list >"$work/list" && reread write "$seed" <"$work/list" >"$work/theirs" && "$roundtrip" read <"$work/theirs"
}

if ! prepare >"$work/prepare" 2>&1; then
    echo "not ok wire-prepare $(tail -3 "$work/prepare")"
    exit 1
fi
check "wire notation" notation
check "wire defaults" defaults
check "wire kafka-reads seed $seed" kafka_reads
check "wire kafka-writes seed $seed" kafka_writes
exit $failed
