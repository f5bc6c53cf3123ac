#!/usr/bin/env bash
# Makes xsegtx_tiny.pth, the network of this repository, anew: on rendered takes of modelled things, of kitchen things
# and of solids with one pattern each, with objects as large as real ones and with large objects. Everything goes to the
# folder given (default: runs/xsegtx_tiny); a second run continues.
#   bash model/pretrained/train_network.sh [FOLDER]
# Environment: PACKAGE: Debian's sweethome3d-furniture, the downloaded file (default: `apt-get download` fetches it); STEPS
# of training in each of five epochs (default: 2400); PYTHON as for quickstart.sh; SEED of the training (default: 0; only
# that one becomes the network of this repository, others stay in the folder).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source tests/setup_env.sh
setup_env requirements.txt requirements-models.txt

out=${1:-runs/xsegtx_tiny}
seed=${SEED:-0}
steps=${STEPS:-2400}
precision=fp32 # bfloat16 where the CPU computes in it
if grep -qsw avx512_bf16 /proc/cpuinfo; then precision=bf16; fi

household=$out/household
if [ ! -e "$household/credits.csv" ]; then
  mkdir -p "$out"
  [ -n "${PACKAGE:-}" ] || (cd "$out" && apt-get download sweethome3d-furniture)
  python synthetic/household_models.py --package "${PACKAGE:-$(ls "$out"/sweethome3d-furniture_*.deb)}" \
    --out "$household"
fi

make() { # folder, further flags
  local data=$out/$1/processed
  python synthetic/make_takes.py --outputpath "$out/$1" "${@:2}"
  python data/process_data.py --takepath "$out/$1/takes" --split_path "$out/$1/split.json" --outputpath "$data"
  python data/create_pairs.py --data_dir "$data"
}
real=(--object_size real --size medium --num_objects 6 --clutter 24 --blur 1.5 --noise 3)
models=(--things models --models "$household/models" --photos "$household/photos")
make models "${models[@]}" "${real[@]}" --num_train 192 --num_val 8 --num_test 24
make models_large "${models[@]}" --object_size 0.005 0.3 --clutter 12 --blur 1 --noise 3 --num_train 96 --num_val 4
for things in kitchen patterned; do
  make $things --things $things "${real[@]}" --num_train 96 --num_val 6 --num_test 24
  make ${things}_large --things $things --num_train 32 --num_val 4 --num_test 12
  make ${things}_large_more --things $things --seed 1 --num_train 64 --num_val 1 --num_test 1
done
make kitchen_more --things kitchen "${real[@]}" --seed 1 --num_train 96 --num_val 1 --num_test 1

bash train/run_both.sh --train-dir "$out"/*/processed --out-dir "$out/seed_$seed" --seed "$seed" --resume-pth auto \
  --backbone efficientnet_lite0 --mode tiny --input_size 192 --batch-pos 4 --lr 5e-4 --warmUpIter 100 \
  --iter-epoch "$steps" --n-epoch 5 --lr-schedule 4 --val_size 200 --cache_features 6 --num_workers 0 --precision $precision
[ "$seed" = 0 ] || exit 0
python - "$out/seed_0/netLast.pth" model/pretrained/xsegtx_tiny.pth <<'END' # what prediction needs, in half precision
import sys
from model.checkpoint import load_checkpoint, save_checkpoint
backbone, network, _, arguments, _ = load_checkpoint(sys.argv[1])
backbone.weights = None  # a place on this machine
kept = {name: arguments[name] for name in ("both", "reverse")}
save_checkpoint(sys.argv[2], backbone, network.half(), arguments=kept)
END
