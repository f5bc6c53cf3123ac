#!/usr/bin/env bash
# Download the benchmark's takes one after the other with the `egoexo` command (pip install ego4d), which needs the
# data set's license and its AWS credentials:
#
#   bash data/download_uids.sh                       # all takes, 6.6 TB
#   bash data/download_uids.sh --downscaled          # videos of 448 pixels on the short side: tens of times less
#   bash data/download_uids.sh --out_dir /disk/egoexo --uids_path my_takes.txt -- --views ego --s3_profile work
#
#   --out_dir DIR      the data set's folder (default: egoexo beside this script)
#   --uids_path FILE   take uids, one a line (default: correspondence_takes.txt beside this script)
#   -- FLAG...         further flags for egoexo
#
# Run it again to continue: it notes complete takes in DIR/.downloaded and skips them, and egoexo skips files that have
# the right size already. If takes failed, it lists them at the end and its exit status is 1. The data set has withdrawn
# one video of each of 76 takes, so egoexo fails to fetch it; these takes do not count as failed, a warning lists them.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out_dir=$here/egoexo uids_path=$here/correspondence_takes.txt parts=takes

fail() { echo "error: $1" >&2 && exit 1; }

while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" && exit ;;
        --downscaled) parts=downscaled_takes/448 && shift ;;
        --out_dir | --uids_path) [ $# -gt 1 ] || fail "$1 needs a value; see --help" && declare "${1#--}=$2" && shift 2 ;;
        --) shift && break ;;
        *) fail "unknown option $1; see --help" ;;
    esac
done
command -v egoexo >/dev/null || fail "no egoexo command; pip install ego4d, and set up the data set's AWS credentials"
[ -r "$uids_path" ] || fail "no file $uids_path; get it with bash data/download_split.sh or give --uids_path"
uids=$(tr -d '\r' <"$uids_path" | grep '[^[:space:]]') || fail "$uids_path names no take"
wrong=$(grep -vxm1 '[A-Za-z0-9][A-Za-z0-9_-]*' <<<"$uids") && fail "$uids_path: $(printf %q "$wrong") is no take uid"
mkdir -p "$out_dir" && touch "$out_dir/.downloaded" || exit 1
trap 'echo "interrupted; run the same command again to continue" >&2; exit 130' INT TERM

download() { # if files cannot be looked up, egoexo only warns, with status 0
    egoexo -o "$out_dir" --parts "$parts" --uids "$@" --yes </dev/null 2>&1 | tee "$out_dir/.egoexo.log" &&
        ! grep -q 'WARN: .*fail' "$out_dir/.egoexo.log"
}

failed=() lacking=() unknown=() in_a_row=0
for uid in $uids; do
    grep -qxF "$uid $parts $*" "$out_dir/.downloaded" && continue
    echo "take $uid"
    if download "$uid" "$@"; then
        in_a_row=0
        grep -q '(0 / 0 files)' "$out_dir/.egoexo.log" && unknown+=("$uid") && continue
        echo "$uid $parts $*" >>"$out_dir/.downloaded"
    elif grep -q 'WARN: failed to fetch 1 files' "$out_dir/.egoexo.log"; then
        lacking+=("$uid") && in_a_row=0
    else
        failed+=("$uid") && in_a_row=$((in_a_row + 1))
        [ $in_a_row -lt 5 ] || { echo "error: five takes in a row failed; stopped" >&2 && break; }
    fi
done
rm -f "$out_dir/.egoexo.log"
[ ${#unknown[@]} -eq 0 ] || echo "warning: the data set has no files of ${#unknown[@]} takes: ${unknown[*]}" >&2
[ ${#lacking[@]} -eq 0 ] || echo "warning: ${#lacking[@]} takes lack one file each, perhaps a withdrawn video; run again to" \
    "retry; process_data.py leaves out what needs it: ${lacking[*]}" >&2
[ ${#failed[@]} -eq 0 ] || fail "${#failed[@]} takes failed, run again to retry: ${failed[*]}"
echo "all else of $uids_path is in $out_dir"
