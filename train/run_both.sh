#!/usr/bin/env bash
# Train one network for both settings with the strong recipe (docs/training.md). Further arguments go to train.py and
# override the ones given here:
#   bash run_both.sh --recipe paper
#   bash run_both.sh --gpu 0,1            # or NPROC=2 bash run_both.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"

launch --both --recipe strong "$@"
