#!/usr/bin/env bash
# Train a network like xsegtx_tiny.pth on rendered takes: of 3D models and of solids with one pattern each, with objects
# as large as in Ego-Exo4D and with larger objects. All files go to FOLDER (default: runs/xsegtx_tiny); a second run
# continues.
#   bash model/pretrained/train_network.sh [FOLDER]
# The network beside this file was trained with these options at commits 9666890 to d4e592f, for 6 hours on two cores
# (NPROC=2 after epoch 2), and its choice fitted to 3,898 pairs at commit e9c97cb. Rendering takes about an hour more.
# Environment variables:
#   PACKAGE  Debian's package sweethome3d-furniture, a .deb file (default: `apt-get download` fetches it)
#   FROM     network whose training is continued (default: none, a new network)
#   EPOCHS   epochs of training, with 2400 steps each (default: 12)
#   NPROC    processes that train, with 8 GB each (default: 1)
#   SEED     seed of the training (default: 0). Only seed 0 replaces xsegtx_tiny.pth; other networks stay in FOLDER
#   PYTHON   an interpreter that has the requirements (default: .venv, which is made if needed)
set -euo pipefail
case ${1:-} in -h | --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" && exit ;; esac
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source tests/setup_env.sh
setup_env requirements.txt requirements-models.txt

out=${1:-runs/xsegtx_tiny}
seed=${SEED:-0}
epochs=${EPOCHS:-12}
start=()
if [ -n "${FROM:-}" ]; then start=(--init_weights "$FROM" --lr 3e-4 --dropout 0 --drop-feat 0); fi
precision=fp32 # or bfloat16, if the CPU computes in it
if grep -qsw avx512_bf16 /proc/cpuinfo; then precision=bf16; fi

household=$out/household
if [ ! -e "$household/credits.csv" ]; then
  mkdir -p "$out"
  [ -n "${PACKAGE:-}" ] || (cd "$out" && apt-get download sweethome3d-furniture)
  dpkg -x "${PACKAGE:-$(ls "$out"/sweethome3d-furniture_*.deb)}" "$out/furniture"
  python synthetic/household_models.py --package "$out/furniture" --out "$household"
fi

make() { # arguments: a folder, and options of make_takes.py
  local data=$out/$1/processed
  python synthetic/make_takes.py --outputpath "$out/$1" "${@:2}"
  python data/process_data.py --takepath "$out/$1/takes" --split_path "$out/$1/split.json" --outputpath "$data"
  python data/create_pairs.py --data_dir "$data"
}
models=(--things models --models "$household/models" --photos "$household/photos")
real=(--object_size real --size medium --num_objects 6 --clutter 24 --blur 1.5 --noise 3 --seen_only)
mixed=(--object_size 0.005 0.3 --clutter 12 --blur 1 --noise 3 --seen_only)
large=(--object_size 0.03 0.4 --clutter 8 --blur 1 --noise 3 --seen_only)

# Videos are blurred by up to 1 or 1.5 pixels: a rendered edge is one pixel wide, one of a lens and a sensor two or more.
# In takes for training and validation, every fifth object is left out where it would be seen; a quarter of the takes
# have odd cameras.
learn=(--left_out 0.2 --odd_cameras 0.25 --num_val 8 --num_test 0)
make train/models "${models[@]}" "${real[@]}" "${learn[@]}" --num_train 192
make train/models_mixed "${models[@]}" "${mixed[@]}" "${learn[@]}" --num_train 144
make train/patterned --things patterned "${real[@]}" "${learn[@]}" --num_train 96
make train/patterned_large --things patterned "${large[@]}" "${learn[@]}" --num_train 64

bash train/run_both.sh --train-dir "$out"/train/*/processed --out-dir "$out/seed_$seed" --seed "$seed" \
  --resume-pth auto "${start[@]}" --batch-pos 4 --warmUpIter 100 --iter-epoch 2400 --n-epoch "$epochs" \
  --val_size 240 --num_workers 0 --save_every 0 --log_every 200 --precision $precision
[ "$seed" = 0 ] || exit 0
python - "$out/seed_0/netLast.pth" model/pretrained/xsegtx_tiny.pth <<'END' # for prediction, in half precision
import sys
from pathlib import Path
from model.checkpoint import save_checkpoint
from recipes.table import load_checkpoint
_, backbone, network, arguments, _ = load_checkpoint(Path(sys.argv[1]))
backbone.weights = None  # a path on this machine
kept = {name: arguments[name] for name in ("both", "reverse")}
save_checkpoint(Path(sys.argv[2]), "strong", backbone, network.half(), arguments=kept)
END

# Takes for the tables of README.md (benchmarks/network_card.py). They are not used in training or for a choice: takes
# as in training, takes with larger things, with things that are left out, with odd cameras.
test=(--num_train 0 --num_val 0)
make models "${models[@]}" "${real[@]}" "${test[@]}" --num_test 24
make models_slivers "${models[@]}" "${real[@]/--seen_only/--num_exo=2}" "${test[@]}" --num_test 24 # with slivers and dark things
make models_left_out "${models[@]}" "${real[@]}" "${test[@]}" --num_test 8 --left_out 0.4
make models_odd "${models[@]}" "${real[@]}" "${test[@]}" --num_test 12 --odd_cameras 1
make models_mixed "${models[@]}" "${mixed[@]}" "${test[@]}" --num_test 12
make models_touching "${models[@]}" "${mixed[@]}" "${test[@]}" --num_test 16 --touching
make patterned --things patterned "${real[@]}" "${test[@]}" --num_test 24
make patterned_large --things patterned "${test[@]}" --num_test 12 --seen_only
make patterned_larger --things patterned "${large[@]}" "${test[@]}" --num_test 8
