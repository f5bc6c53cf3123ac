#!/usr/bin/env bash
# Get the benchmark's split.json and correspondence_takes.txt (the takes to download) into this folder:
#
#   bash data/download_split.sh
#
# A file that exists already is not downloaded again. The environment variable SPLIT_URL can name a mirror.
set -euo pipefail
case ${1:-} in -h | --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" && exit ;; esac
cd "$(dirname "${BASH_SOURCE[0]}")"
url=${SPLIT_URL:-https://raw.githubusercontent.com/EGO4D/ego-exo4d-relation/main/correspondence/SegSwap/data}
trap 'rm -f .*.part' EXIT
fail() { echo "error: $1" >&2 && exit 1; }

get() { # arguments: the file's name, and the number of takes that it lists
    local file=$1 from=$PWD/$1 remedy="move it away and run this again" found problem
    if [ ! -e "$1" ]; then
        file=.$1.part from=$url/$1 remedy="nothing was kept"
        problem=$(curl --fail --silent --show-error --location --retry 3 --output "$file" "$from" 2>&1) ||
            fail "could not download $from (${problem##*$'\n'}); check the network, or name a mirror in SPLIT_URL"
    fi
    found=$(grep -oE '[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}' "$file" | sort -u | grep -c '') || true
    [ "$found" -eq "$2" ] || fail "$from lists $found takes, not the benchmark's $2; $remedy"
    [ "$file" = "$1" ] || mv "$file" "$1"
    echo "$PWD/$1: $2 takes"
}

get split.json 1317
get correspondence_takes.txt 1334
