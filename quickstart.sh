#!/usr/bin/env bash
# XSegTx from video to results on takes made here, in some minutes on two CPU cores. Needs Python 3.10+ with pip.
# Every command is printed before it runs: with your own data, run the same ones with your own paths.
# A second run reuses what is there; `rm -r quickstart` starts afresh. Smaller or larger, by environment variables:
#   QUICKSTART_DIR    where everything goes (default: quickstart)
#   QUICKSTART_TAKES  takes for training; an eighth as many for validation and for testing (default: 96)
#   QUICKSTART_STEPS  training steps per epoch, of three epochs (default: 100)
#   PYTHON            an interpreter that has the requirements; then nothing is installed
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source tests/setup_env.sh

out=${QUICKSTART_DIR:-quickstart}
takes=${QUICKSTART_TAKES:-96}
steps=${QUICKSTART_STEPS:-100}
root=$out/egoexo
data=$root/processed

step() { printf '\n== %s\n' "$1"; }
run() {
  printf '+ %s\n' "$*"
  "$@"
}
made() { printf -- '-> %s\n' "$@"; }

step "1/7 Environment"
setup_env requirements.txt

step "2/7 Takes: videos and annotations in the layout of Ego-Exo4D"
run python synthetic/make_takes.py --outputpath "$root" --num_train "$takes" --num_val $(((takes + 7) / 8)) \
  --num_test $(((takes + 7) / 8))
made "$root/takes/*/frame_aligned_videos/*.mp4" "$root/annotations/relations_{train,val,test}.json" "$root/contact_sheet.jpg"

step "3/7 Frames and masks"
run python data/process_data.py --takepath "$root/takes" --split_path "$root/split.json" --outputpath "$data"
made "$data/<take_uid>/<camera>/<frame>.jpg" "$data/<take_uid>/annotation.json"

step "4/7 Pairs"
run python data/create_pairs.py --data_dir "$data"
made "$data"/{train,val,test}_pairs.json

step "5/7 Training, short and small: 192-pixel input, the tiny network, a random backbone (the real one wants weights)"
for setting in ego exo; do
  run bash train/run_$setting.sh --train-dir "$data" --out-dir "$out/checkpoints/$setting" --resume-pth auto \
    --backbone random --mode tiny --mask_position --input_size 192 --batch-pos 8 --lr 5e-4 --warmUpIter 50 \
    --n-epoch 3 --iter-epoch "$steps" --lr-schedule 2 --val_size 0 --cache_features 2 --num_workers 0 --log_every 50
  made "$out/checkpoints/$setting/netBest.pth" "$out/checkpoints/$setting/log.jsonl"
done

step "6/7 Inference, both settings"
run python eval_segswap.py --setting ego-exo --split test --data_path "$data" --ckpt_path "$out/checkpoints/ego/netBest.pth" \
  --out_path "$out/results"
run python eval_segswap.py --setting exo-ego --split test --data_path "$data" --ckpt_path "$out/checkpoints/exo/netBest.pth" \
  --out_path "$out/results"
made "$out"/results/{ego-exo,exo-ego}_test_results.json

step "7/7 Score and picture"
for setting in ego-exo exo-ego; do
  results=$out/results/${setting}_test_results.json
  run python evaluation/evaluate.py --setting $setting --split test --data_path "$data" --pred_file "$results" \
    --out "$out/results/${setting}_evaluation"
  run python evaluation/visualize.py --setting $setting --split test --data_path "$data" --pred_file "$results" \
    --order random --num 6 --out "$out/$setting.jpg"
  run python evaluation/report.py --setting $setting --split test --data_path "$data" --pred_file "$results" \
    --out "$out/${setting}_report"
done
made "$out"/{ego-exo,exo-ego}.jpg "$out"/{ego-exo,exo-ego}_report/index.html

printf '\nDone. Look at %s/ego-exo.jpg (query with mask, prediction, truth; six cases at random) and at the reports.\n' "$out"
