#!/usr/bin/env bash
# Download the benchmark's takes with the `egoexo` command (pip install ego4d; needs the data set's licence and its AWS
# credentials), one after the other:
#
#   bash data/download_uids.sh                       # all takes, 6.1 TB
#   bash data/download_uids.sh --downscaled          # the same of 448 pixels on the short side: tens of times less
#   bash data/download_uids.sh --out_dir /disk/egoexo --uids_path my_takes.txt -- --s3_profile work
#
#   --out_dir DIR      the data set's folder (default: egoexo beside this script)
#   --uids_path FILE   take uids, one a line (default: correspondence_takes.txt beside this script)
#   --parts PART...    of the data set, as egoexo names them (default: takes, the full-size videos)
#   --downscaled       the same as --parts downscaled_takes/448
#   --views VIEW...    ego, exo (default: both)
#   --again            ask for every take, also those that are down as complete
#   -- FLAG...         passed to egoexo as they are
#
# Run it again to continue: a take that egoexo has completed is written down in DIR/.downloaded and skipped, and egoexo
# leaves alone the files that have their size. Takes that failed are listed in the end; exit status 1 if there are any.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

out_dir=$here/egoexo uids_path=$here/correspondence_takes.txt again=
parts=() views=() extra=()

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
        --downscaled) parts=(downscaled_takes/448) ;;
        --)
            extra=("$@")
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

done_list=$out_dir/.downloaded log=$out_dir/.egoexo.log
what="${parts[*]} ${views[*]:-ego exo}"
touch "$done_list" || exit 1
trap 'echo "interrupted; run the same command again to continue" >&2; exit 130' INT TERM

is_down() {
    grep -qxF "$uid $what" "$done_list"
}

download() { # egoexo's status is 0 too when files could not be looked up or came short: it warns of them
    egoexo -o "$out_dir" --parts "${parts[@]}" ${views[@]+--views "${views[@]}"} --uids "$uid" --yes \
        ${extra[@]+"${extra[@]}"} </dev/null 2>&1 | tee "$log" && ! grep -q 'WARN: .*fail' "$log"
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
    if [ -z "$again" ] && is_down; then
        skipped=$((skipped + 1))
    elif echo "[$total/$count] $uid" && download; then
        is_down || echo "$uid $what" >>"$done_list"
        succeeded=$((succeeded + 1)) in_a_row=0
    else
        failed+=("$uid") in_a_row=$((in_a_row + 1))
        echo "take $uid failed" >&2
        [ $in_a_row -lt 5 ] || { echo "error: five takes in a row failed; stopped" >&2 && break; }
    fi
done 3<"$uids_path"

rm -f "$log"
echo "$takes: $succeeded downloaded, $skipped were there already, ${#failed[@]} failed"
if [ ${#failed[@]} -gt 0 ]; then
    echo "failed, run again to retry:"
    printf '  %s\n' "${failed[@]}"
    exit 1
fi
[ "$total" -eq "$count" ]
