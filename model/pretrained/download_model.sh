#!/usr/bin/env bash
# Get the backbone's weights (MoCo v2, 800 epochs, ResNet-50):
#
#   cd model/pretrained && bash download_model.sh
#
# Does nothing if they are there; continues an interrupted download. MOCO_URL names a mirror, MOCO_MD5 the first
# characters of its file's md5, MOCO_DIR another folder, PYTHON the interpreter (by default the repository's .venv,
# else python3).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

url=${MOCO_URL:-https://dl.fbaipublicfiles.com/moco/moco_checkpoints/moco_v2_800ep/moco_v2_800ep_pretrain.pth.tar}
md5=${MOCO_MD5:-a04e12f8}
folder=${MOCO_DIR:-$PWD}
file=$folder/moco_v2_800ep_pretrain.pth.tar
python=${PYTHON:-../../.venv/bin/python}
command -v "$python" >/dev/null || python=python3

fail() {
    echo "error: $1" >&2
    exit 1
}

is_complete() {
    "$python" - "$1" "$md5" <<'PYTHON'
import hashlib, pathlib, sys
path = pathlib.Path(sys.argv[1])
sys.exit(not (path.exists() and hashlib.md5(path.read_bytes()).hexdigest().startswith(sys.argv[2])))
PYTHON
}

converted=$folder/moco_v2_800ep_pretrain_torchvision.pth.tar # by the original's script; it does as well
if [ -e "$converted" ] || is_complete "$file"; then
    echo "the weights are in $folder already"
    exit
fi
mkdir -p "$folder"
part=$file.part
if ! is_complete "$part"; then
    echo "downloading $url"
    if command -v curl >/dev/null; then
        download=(curl --fail --location --retry 3 --continue-at - --output)
    elif command -v wget >/dev/null; then
        download=(wget --tries 3 --continue --output-document)
    else
        fail "neither curl nor wget is installed; install one, or put $url into $folder yourself"
    fi
    "${download[@]}" "$part" "$url" || fail "no download of $url; run again to continue, or delete $part first"
    if ! is_complete "$part"; then
        rm -f "$part"
        fail "the md5 of $url does not begin with $md5; the download was deleted, run again"
    fi
fi
mv "$part" "$file"
echo "done: $file"
