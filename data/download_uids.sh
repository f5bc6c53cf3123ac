#!/usr/bin/env bash
# Download the benchmark's takes one after the other with the `egoexo` command (pip install ego4d), which needs the
# data set's license and its AWS credentials:
#
#   bash data/download_uids.sh                       # all takes, 6.6 TB
#   bash data/download_uids.sh --downscaled          # videos of 448 pixels on the short side: tens of times less
#   bash data/download_uids.sh --out_dir /disk/egoexo --uids_path my_takes.txt -- --views ego --s3_profile work
#   bash data/download_uids.sh --process_in /scratch --shard 3/16    # needs no room for the videos, nor process_data.py
#
#   --out_dir DIR      the data set's folder (default: egoexo beside this script)
#   --uids_path FILE   take uids, one a line, or split.json (default: correspondence_takes.txt beside this script, or
#                      with --process_in split.json, which lists the takes that can be processed)
#   --process_in DIR   download each take into DIR, process it into the data set's folder, which must have the
#                      annotations, and delete its videos; so DIR holds one take at a time: 5 GB on average, 60 GB
#                      if it takes an hour
#   --pack             with --process_in: move the frames of each take into one file, as process_data.py --pack does
#   --shard I/N        only the I-th of every N takes, to share the work among jobs, all with the same N
#   -- FLAG...         further flags for egoexo
#
# Run it again to continue: it notes complete takes in DIR/.downloaded and skips them, and egoexo skips files that have
# the right size already. If takes failed, it lists them at the end and its exit status is 1. The data set has withdrawn
# one video of each of 76 takes, so egoexo fails to fetch it; these takes do not count as failed, a warning lists them.
# With --process_in, it skips takes that were processed whole. A take with a damaged video is fetched again, and a take
# that lacks one file once more: what cannot be fetched in two runs counts as withdrawn, and .fetched in the take's folder
# says so. PYTHON names the interpreter (default: python3).
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out_dir=$here/egoexo uids_path='' parts=takes process_in='' shard=1/1 pack='' small='' split='' folder=''

fail() { echo "error: $1" >&2 && exit 1; }

while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" && exit ;;
        --pack) pack=$1 && shift ;;
        --downscaled) parts=downscaled_takes/448 small=$1 && shift ;;
        --out_dir | --uids_path | --process_in | --shard)
            [ $# -gt 1 ] || fail "$1 needs a value; see --help" && declare "${1#--}=$2" && shift 2 ;;
        --) shift && break ;;
        *) fail "unknown option $1; see --help" ;;
    esac
done
uids_path=${uids_path:-$here/$([ "$process_in" ] && echo split.json || echo correspondence_takes.txt)}
job=${shard%/*} jobs=${shard#*/}
[[ $shard =~ ^[1-9][0-9]*/[1-9][0-9]*$ ]] && [ "$job" -le "$jobs" ] || fail "--shard $shard is not I/N with I from 1 to N"
command -v egoexo >/dev/null || fail "no egoexo command; pip install ego4d, and set up the data set's AWS credentials"
[ -r "$uids_path" ] || fail "no file $uids_path; get it with bash data/download_split.sh or give --uids_path"
uids=$(tr -d '\r' <"$uids_path" | grep '[^[:space:]]') || fail "$uids_path names no take"
if [[ $uids_path = *.json ]]; then
    split=$uids_path uids=$(grep -oE '[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}' <<<"$uids")
fi
wrong=$(grep -vxm1 '[A-Za-z0-9][A-Za-z0-9_-]*' <<<"$uids") && fail "$uids_path: $(printf %q "$wrong") is no take uid"
uids=$(awk "NR % $jobs == $job % $jobs" <<<"$uids")
mkdir -p "$out_dir" && touch "$out_dir/.downloaded" || exit 1
if [ "$process_in" ]; then # the lock ends with this job and the commands that it has started
    folder=$process_in/takes_${job}_of_$jobs
    mkdir -p "$folder" && exec 9>"$folder/lock" || exit 1
    flock -n 9 # where there are no locks, its error is all that happens
    [ $? != 1 ] || fail "another job works on shard $shard in $process_in; give each job a --shard of its own"
fi
work=${folder:-$out_dir} log=$(mktemp) || exit 1
trap 'rm -rf "$log" ${folder:+"$folder"}' EXIT
trap 'echo "interrupted; run the same command again to continue" >&2; exit 130' INT TERM

download() { # if files cannot be looked up, egoexo only warns, with status 0
    egoexo -o "$work" --parts "$parts" --uids "$@" --yes </dev/null 2>&1 | tee "$log" && ! grep -q 'WARN: .*fail' "$log"
}

process() {
    mkdir -p "$work/takes" # a take may have no video at all
    "${PYTHON:-python3}" "$here/process_data.py" --takepath "$work/takes" --annotation_path "$out_dir/annotations" \
        --outputpath "$out_dir/processed" --uids "$1" ${split:+--splits_path "$split"} ${small:+"$small"} ${pack:+"$pack"} </dev/null
}

noted() { grep -qxF "$1" "$notes" 2>/dev/null; }

is_done() { # for a processed take that lacks something, a note says that its files were fetched, or cannot be
    if [ "$process_in" ] && [ ! -e "$made/failed.json" ]; then [ -e "$made/annotation.json" ]; else noted "$note"; fi
}

failed=() lacking=() unknown=() in_part=() in_a_row=0
for uid in $uids; do
    note="$uid $parts $*" notes=$out_dir/.downloaded made=$out_dir/processed/$uid
    [ -z "$process_in" ] || notes=$made/.fetched
    if is_done; then
        [ -z "$process_in" ] || [ ! -e "$made/failed.json" ] || in_part+=("$uid")
        continue
    fi
    echo "take $uid"
    [ -z "$process_in" ] || rm -rf "$work/takes"
    fetched=all
    if ! download "$uid" "$@"; then
        if grep -q 'WARN: failed to fetch 1 files' "$log"; then fetched=but_one; else fetched=no; fi
    elif grep -q '(0 / 0 files)' "$log"; then
        unknown+=("$uid") && continue
    fi
    if [ $fetched = no ] || { [ "$process_in" ] && ! process "$uid"; }; then
        failed+=("$uid") && in_a_row=$((in_a_row + 1))
        [ $in_a_row -lt 5 ] || { echo "error: five takes in a row failed; stopped" >&2 && break; }
        continue
    fi
    in_a_row=0
    if [ "$process_in" ] && is_done; then
        continue
    elif [ $fetched = all ] || noted "$note but_one"; then
        echo "$note" >>"$notes"
        [ -z "$process_in" ] || in_part+=("$uid")
    else
        lacking+=("$uid")
        [ -z "$process_in" ] || echo "$note but_one" >>"$notes"
    fi
done
[ ${#unknown[@]} -eq 0 ] || echo "warning: the data set has no files of ${#unknown[@]} takes: ${unknown[*]}" >&2
[ ${#lacking[@]} -eq 0 ] || echo "warning: ${#lacking[@]} takes lack one file each, perhaps a withdrawn video; run again to" \
    "retry; process_data.py leaves out what needs it: ${lacking[*]}" >&2
[ ${#in_part[@]} -eq 0 ] || echo "warning: ${#in_part[@]} takes lack what the data set does not have, as failed.json in" \
    "their folders in $out_dir/processed says; to fetch them again, delete these folders: ${in_part[*]}" >&2
[ ${#failed[@]} -eq 0 ] || fail "${#failed[@]} takes failed, run again to retry: ${failed[*]}"
left=$((${#unknown[@]} + ${#lacking[@]} + ${#in_part[@]}))
[ $left = 0 ] && left='' || left=" but $left"
[ "$jobs" = 1 ] || uids_path="shard $shard of $uids_path"
echo "all$left takes of $uids_path are in $out_dir"
