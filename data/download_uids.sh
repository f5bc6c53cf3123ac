#!/usr/bin/env bash
# Download the benchmark's takes with the `egoexo` command (pip install ego4d; needs the data set's licence and its AWS
# credentials), one after the other:
#
#   bash data/download_uids.sh                       # all takes, 6.1 TB
#   bash data/download_uids.sh --downscaled          # the same of 448 pixels on the short side: tens of times less
#   bash data/download_uids.sh --process             # for small disks: keep each take's frames instead of its videos
#   bash data/download_uids.sh --out_dir /disk/egoexo --uids_path my_takes.txt -- --s3_profile work
#
#   --out_dir DIR      the data set's folder (default: egoexo beside this script)
#   --uids_path FILE   take uids, one a line (default: correspondence_takes.txt beside this script)
#   --parts PART...    of the data set, as egoexo names them (default: takes, the full-size videos)
#   --downscaled       the same as --parts downscaled_takes/448
#   --views VIEW...    ego, exo (default: both)
#   --again            ask for every take, also those that are down as complete
#   --process          run process_data.py on each take, into DIR/processed, and delete the videos that were downloaded
#                      for it if nothing is left to do
#   -- FLAG...         passed to egoexo as they are; after a second --, to process_data.py: -- -- --frames annotated
#
# Run it again to continue: a take that egoexo has completed is written down in DIR/.downloaded and skipped, and egoexo
# leaves alone the files that have their size. Takes that failed are listed in the end; exit status 1 if there are any.
#
# With --process, takes whose frames are complete are skipped. Videos are downloaded into DIR/.fetched/UID; those that
# were in DIR/takes before stay, and are used if DIR/.downloaded names the take. It needs DIR/annotations and split.json
# in DIR or beside this script. PYTHON names the interpreter (default: the repository's .venv, else python3).
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

out_dir=$here/egoexo uids_path=$here/correspondence_takes.txt again= process=
parts=() views=() extra=() process_flags=()

fail() {
    echo "error: $1" >&2
    exit 1
}

while [ $# -gt 0 ]; do
    flag=$1
    shift
    case $flag in
        -h | --help)
            sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"
            exit
            ;;
        --again) again=1 ;;
        --process) process=1 ;;
        --downscaled) parts=(downscaled_takes/448) ;;
        --)
            while [ $# -gt 0 ] && [ "$1" != -- ]; do extra+=("$1") && shift; done
            process_flags=("${@:2}")
            break
            ;;
        --out_dir | --uids_path | --parts | --views)
            [ $# -gt 0 ] || fail "$flag needs a value; see --help"
            case $flag in
                --out_dir) out_dir=$1 && shift ;;
                --uids_path) uids_path=$1 && shift ;;
                --parts) while [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; do parts+=("$1") && shift; done ;;
                --views) while [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; do views+=("$1") && shift; done ;;
            esac
            ;;
        *) fail "unknown argument $flag; see --help" ;;
    esac
done
[ ${#parts[@]} -gt 0 ] || parts=(takes)

command -v egoexo >/dev/null || fail "no egoexo command; pip install ego4d, and set up the data set's AWS credentials"
[ -r "$uids_path" ] || fail "no file $uids_path; get it with bash data/download_split.sh or give --uids_path"
mkdir -p "$out_dir" || exit 1

done_list=$out_dir/.downloaded log=$out_dir/.egoexo.log verb=downloaded
what="${parts[*]} ${views[*]:-ego exo}"
touch "$done_list" || exit 1
trap 'echo "interrupted; run the same command again to continue" >&2; exit 130' INT TERM

if [ -n "$process" ]; then
    verb=processed
    python=${PYTHON:-$here/../.venv/bin/python}
    command -v "$python" >/dev/null || python=python3
    split_path=$out_dir/split.json
    [ -e "$split_path" ] || split_path=$here/split.json
    [ -r "$split_path" ] || fail "no file $split_path; get it with bash data/download_split.sh"
    [ -d "$out_dir/annotations" ] || # better now than after the first download
        fail "no folder $out_dir/annotations; egoexo -o $out_dir --parts annotations --benchmarks relations"
    case " ${parts[*]} " in
        *" takes "*) ;;
        *" downscaled_takes/448 "*) process_flags+=(--downscaled) ;;
        *) fail "--process needs videos: takes or downscaled_takes/448 among --parts" ;;
    esac
    exec 9>"$out_dir/.process.lock" # a download that outlives its killed run holds it, too
    if command -v flock >/dev/null && ! flock -n 9; then
        echo "waiting for another run with --process in $out_dir, or for its download" >&2
        flock 9
    fi
fi

is_down() { # in DIR/takes
    grep -qxF "$uid $what" "$done_list"
}

is_processed() { # as far as the data set has it: annotation.json comes last
    [ -e "$out_dir/processed/$uid/annotation.json" ] &&
        ! grep -qs '"kind": "broken"' "$out_dir/processed/$uid/failed.json"
}

is_done() {
    if [ -n "$process" ]; then is_processed; else is_down; fi
}

download() { # egoexo's status is 0 too when files could not be looked up or came short: it warns of them
    mkdir -p "$root" && egoexo -o "$root" --parts "${parts[@]}" ${views[@]+--views "${views[@]}"} --uids "$uid" --yes \
        ${extra[@]+"${extra[@]}"} </dev/null 2>&1 | tee "$log" && ! grep -q 'WARN: .*fail' "$log"
}

process() {
    mkdir -p "$root/takes" && "$python" "$here/process_data.py" --takepath "$root/takes" --uids "$uid" \
        --annotationpath "$out_dir/annotations/relations_{split}.json" --outputpath "$out_dir/processed" \
        --split_path "$split_path" ${process_flags[@]+"${process_flags[@]}"} </dev/null
}

get_take() {
    [ -z "$again" ] && is_down || download || return
    [ -z "$process" ] || process
}

total=0 skipped=0 succeeded=0 in_a_row=0 failed=()
count=$(grep -c '[^[:space:]]' "$uids_path")
takes="$count take$([ "$count" -eq 1 ] || echo s)"
while read -r uid <&3 || [ -n "$uid" ]; do
    uid=${uid%$'\r'}
    [ -n "$uid" ] || continue
    total=$((total + 1))
    case $uid in
        [!A-Za-z0-9]* | *[!A-Za-z0-9_-]*) # egoexo would take some for options
            failed+=("$(printf %q "$uid")")
            echo "line $total of $uids_path is no take uid: ${failed[${#failed[@]} - 1]}" >&2
            continue
            ;;
    esac
    if [ -n "$process" ] && ! grep -qF "\"$uid\"" "$split_path"; then
        echo "take $uid is in no split of $split_path and left out"
        continue
    fi
    root=$out_dir
    [ -z "$process" ] || is_down || root=$out_dir/.fetched/$uid # only what this script has fetched is in there
    if [ -z "$again" ] && is_done; then
        skipped=$((skipped + 1))
    elif echo "[$total/$count] $uid" && get_take; then
        succeeded=$((succeeded + 1)) in_a_row=0
    else
        failed+=("$uid") in_a_row=$((in_a_row + 1))
        echo "take $uid failed" >&2
        [ $in_a_row -lt 5 ] || { echo "error: five takes in a row failed; stopped" >&2 && break; }
        continue
    fi
    if [ "$root" = "$out_dir" ]; then
        is_down || echo "$uid $what" >>"$done_list"
    else
        rm -rf "$root"
    fi
done 3<"$uids_path"

rm -f "$log"
[ -z "$process" ] || rmdir "$out_dir/.fetched" 2>/dev/null
echo "$takes: $succeeded $verb, $skipped were there already, ${#failed[@]} failed"
if [ ${#failed[@]} -gt 0 ]; then
    echo "failed, run again to retry:"
    printf '  %s\n' "${failed[@]}"
    exit 1
fi
[ "$total" -eq "$count" ]
