#!/usr/bin/env bash
# Train for the setting exo-ego with the paper's recipe. Further arguments go to train.py:
#   bash run_exo.sh --n-epoch 1
#   bash run_exo.sh --gpu 0,1            # or NPROC=2 bash run_exo.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"

launch --reverse "$@"
