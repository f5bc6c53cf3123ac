#!/usr/bin/env bash
# Train for the setting ego-exo with the paper's recipe. Further arguments go to train.py:
#   bash run_ego.sh --n-epoch 1
#   bash run_ego.sh --gpu 0,1            # or NPROC=2 bash run_ego.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"

launch "$@"
