#!/usr/bin/env bash
# XSegTx from video to results on takes made here, in 5 minutes on two CPU cores. Needs Python 3.10+ with pip.
# Every command is printed before it runs: with your own data, run the same ones with your own paths.
# A second run reuses what is there; `rm -r quickstart` starts afresh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source tests/setup_env.sh

step() { printf '\n== %s\n' "$1"; }
run() {
  printf '+ %s\n' "$*"
  "$@"
}
made() { printf -- '-> %s\n' "$@"; }

step "1/7 Environment (.venv)"
setup_env requirements.txt

root=quickstart/egoexo
data=$root/processed
step "2/7 Takes: videos and annotations in the layout of Ego-Exo4D"
run python synthetic/make_takes.py --outputpath $root
made "$root/takes/*/frame_aligned_videos/*.mp4" "$root/annotations/relations_{train,val,test}.json" "$root/contact_sheet.jpg"

step "3/7 Frames and masks"
for split in train val test; do
  run python data/process_data.py --takepath $root/takes --annotationpath "$root/annotations/relations_{split}.json" \
    --split_path $root/split.json --split $split --outputpath $data
done
made "$data/<take_uid>/<camera>/<frame>.jpg" "$data/<take_uid>/annotation.json"

step "4/7 Pairs"
run python data/create_pairs.py --data_dir $data
made "$data/{train,val,test}_{egoexo,exoego}_pairs.json"

step "5/7 Training, short and small: 192-pixel input, the tiny network, a random backbone (the real one wants weights)"
for setting in ego exo; do
  run bash train/run_$setting.sh --train-dir $data --out-dir quickstart/checkpoints/$setting --resume-pth auto \
    --backbone random --mode tiny --mask_position --input_size 192 --batch-pos 8 --lr 5e-4 --warmUpIter 50 \
    --n-epoch 3 --iter-epoch 100 --lr-schedule 2 --val_size 0 --cache_features 2 --num_workers 0 --log_every 50
  made "quickstart/checkpoints/$setting/netBest.pth" "quickstart/checkpoints/$setting/log.jsonl"
done

step "6/7 Inference, both settings"
run python eval_segswap.py --setting ego-exo --split test --data_path $data --ckpt_path quickstart/checkpoints/ego/netBest.pth \
  --out_path quickstart/results
run python eval_segswap.py --setting exo-ego --split test --data_path $data --ckpt_path quickstart/checkpoints/exo/netBest.pth \
  --out_path quickstart/results
made quickstart/results/{ego-exo,exo-ego}_test_results.json

step "7/7 Score and picture"
for setting in ego-exo exo-ego; do
  run python evaluation/evaluate.py --setting $setting --split test --data_path $data --out quickstart/results/${setting}_evaluation \
    --pred_file quickstart/results/${setting}_test_results.json
  run python evaluation/visualize.py --setting $setting --split test --data_path $data --order best --num 6 \
    --pred_file quickstart/results/${setting}_test_results.json --out quickstart/${setting}.jpg
done
made quickstart/{ego-exo,exo-ego}.jpg

printf '\nDone. Look at quickstart/ego-exo.jpg: query with mask, prediction, truth.\n'
