#!/usr/bin/env bash
# Get the benchmark's split.json and correspondence_takes.txt (the takes to download) into this folder:
#
#   bash data/download_split.sh
#
# Does nothing for a file that is there. SPLIT_URL names a mirror, SPLIT_DIR another folder, PYTHON the interpreter
# (default: the repository's .venv, else python3).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

url=${SPLIT_URL:-https://raw.githubusercontent.com/EGO4D/ego-exo4d-relation/main/correspondence/SegSwap/data}
folder=${SPLIT_DIR:-$PWD}
python=${PYTHON:-../.venv/bin/python}
command -v "$python" >/dev/null || python=python3

fail() {
    echo "error: $1" >&2
    exit 1
}

count_takes() { # what a file holds, in words
    "$python" - "$1" 2>/dev/null <<'PYTHON' || echo "nothing that can be read"
import json, sys
text = open(sys.argv[1], encoding="utf-8").read()
if text.lstrip().startswith("{"):
    print(", ".join(f"{len(set(json.loads(text)[split]))} {split}" for split in ("train", "val", "test")), "takes")
else:
    count = len({line.strip() for line in text.splitlines() if len(line.strip()) == 36})
    print(count, "take" if count == 1 else "takes")
PYTHON
}

get() { # name, what it must hold
    local file=$folder/$1 part=$folder/.$1.$$.tmp found
    if [ -e "$file" ]; then
        found=$(count_takes "$file")
        [ "$found" = "$2" ] || fail "$file holds $found, not the benchmark's $2; move it away and run this again"
        echo "$file is there already: $2"
        return
    fi
    if command -v curl >/dev/null; then
        curl --fail --silent --show-error --location --retry 3 --output "$part" "$url/$1" || fail "could not get $url/$1"
    elif command -v wget >/dev/null; then
        wget --quiet --tries 3 --output-document "$part" "$url/$1" || fail "could not get $url/$1"
    else
        fail "neither curl nor wget is installed; install one, or put $url/$1 into $folder yourself"
    fi
    found=$(count_takes "$part")
    [ "$found" = "$2" ] || fail "$url/$1 holds $found, not $2; nothing was kept"
    mv "$part" "$file"
    echo "$file: $2"
}

mkdir -p "$folder"
trap 'rm -f "$folder"/.*.$$.tmp' EXIT
get split.json "821 train, 201 val, 295 test takes"
get correspondence_takes.txt "1334 takes"
