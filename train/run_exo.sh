#!/usr/bin/env bash
# Train for the setting exo-ego with the paper's recipe. Further arguments go to train.py, as those of run_ego.sh.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"

launch --reverse "$@"
