#!/usr/bin/env bash
# Train one network for both settings with the strong recipe (docs/training.md). Further arguments go to train.py, as
# those of run_ego.sh, and override the ones given here:
#   bash run_both.sh --recipe paper
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"

launch --both --recipe strong "$@"
