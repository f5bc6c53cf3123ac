#!/usr/bin/env bash
# Download the weights of the paper's backbone (ResNet-50, trained by MoCo v2 for 800 epochs):
#
#   cd model/pretrained && bash download_model.sh
#
# If the file is there, the script does nothing. If a download was interrupted, the script continues it. Set MOCO_URL
# to download from a mirror.
set -euo pipefail
case ${1:-} in -h | --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" && exit ;; esac
cd "$(dirname "${BASH_SOURCE[0]}")"
url=${MOCO_URL:-https://dl.fbaipublicfiles.com/moco/moco_checkpoints/moco_v2_800ep/moco_v2_800ep_pretrain.pth.tar}
file=moco_v2_800ep_pretrain.pth.tar part=$file.part

is_whole() { # the authors of MoCo publish the beginning of the md5; macOS has md5 in place of md5sum
    { md5sum "$1" || md5 -q "$1"; } 2>/dev/null | grep -q '^a04e12f8'
}

fail() { echo "error: $1" >&2 && exit 1; }

if [ ! -e moco_v2_800ep_pretrain_torchvision.pth.tar ] && ! is_whole "$file"; then # the first is the original's
    is_whole "$part" || curl --fail --location --retry 3 --continue-at - --output "$part" "$url" ||
        fail "could not download $url; run again to continue, or delete $PWD/$part first"
    is_whole "$part" || { rm -f "$part" && fail "the md5 of $url does not begin with a04e12f8; nothing was kept"; }
    mv "$part" "$file"
fi
echo "the weights are in $PWD"
