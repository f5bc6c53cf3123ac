#!/usr/bin/env bash
# Train exo-ego with the paper's recipe. Further arguments go to train.py and win over those here:
#   bash run_exo.sh --n-epoch 1
#   bash run_exo.sh --gpu 0,1            # or NPROC=2 bash run_exo.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"

launch --reverse --train-dir "$train_dir/../data/egoexo/processed" --batch-pos 32 --n-epoch 250 \
    --out-dir "$train_dir/checkpoints/egoexo_v2_480x480_reverse" "$@"
