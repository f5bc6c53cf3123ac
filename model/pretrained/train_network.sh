#!/usr/bin/env bash
# Makes xsegtx_tiny.pth, the network of this repository, anew: on rendered takes with objects as large as real ones and
# takes with large objects. Everything goes to the folder given (default: runs/xsegtx_tiny); a second run continues.
#   bash model/pretrained/train_network.sh [FOLDER]
# Environment: STEPS of training in each of five epochs (default: 700), PYTHON as for quickstart.sh; SEED of the training
# (default: 0; only that one becomes the network of this repository, others stay in the folder).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source tests/setup_env.sh
setup_env requirements.txt

out=${1:-runs/xsegtx_tiny}
seed=${SEED:-0}
python synthetic/make_takes.py --outputpath "$out/real" --num_train 96 --num_val 6 --num_test 24 --object_size real \
  --size medium --num_objects 6 --clutter 24 --blur 1.5 --noise 3
python synthetic/make_takes.py --outputpath "$out/large" --num_train 32 --num_val 4 --num_test 12
for kind in real large; do
  data=$out/$kind/processed
  python data/process_data.py --takepath "$out/$kind/takes" --split_path "$out/$kind/split.json" --outputpath "$data"
  python data/create_pairs.py --data_dir "$data"
done
bash train/run_both.sh --train-dir "$out"/{real,large}/processed --out-dir "$out/seed_$seed" --seed "$seed" --resume-pth auto \
  --backbone efficientnet_lite0 --mode tiny --input_size 192 --zoom 4 --batch-pos 8 --lr 5e-4 --warmUpIter 100 \
  --iter-epoch "${STEPS:-700}" --n-epoch 5 --lr-schedule 4 --val_size 200 --cache_features 3 --num_workers 0
if [ "$seed" = 0 ]; then
  rm -f "$out/xsegtx_tiny.pth"
  python model/pretrained/export.py "$out/seed_0/netLast.pth" "$out/xsegtx_tiny.pth"
  mv -f "$out/xsegtx_tiny.pth" model/pretrained/
fi
