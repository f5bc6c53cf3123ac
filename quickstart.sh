#!/usr/bin/env bash
# XSegTx from video to results on takes made here, in some minutes on two CPU cores. Needs Python 3.10+ with pip.
# Every command is printed before it runs: with your own data, run the same ones with your own paths.
# A second run reuses what is there; `rm -r quickstart` starts afresh. Smaller or larger, by environment variables:
#   QUICKSTART_DIR    where everything goes (default: quickstart)
#   QUICKSTART_TAKES  takes for training; an eighth as many for validation, a quarter for testing (default: 96)
#   QUICKSTART_STEPS  training steps per epoch, of four epochs (default: 300)
#   QUICKSTART_SEED   of the networks and the order of the samples (default: 0)
#   PYTHON            an interpreter that has the requirements; then nothing is installed
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source tests/setup_env.sh

out=${QUICKSTART_DIR:-quickstart}
takes=${QUICKSTART_TAKES:-96}
steps=${QUICKSTART_STEPS:-300}
seed=${QUICKSTART_SEED:-0}
precision=fp32 # of training: bfloat16 where the CPU computes in it, which is faster and as accurate
if grep -qsw avx512_bf16 /proc/cpuinfo; then precision=bf16; fi
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
  --num_test $(((takes + 3) / 4))
made "$root/takes/*/frame_aligned_videos/*.mp4" "$root/annotations/relations_{train,val,test}.json" "$root/contact_sheet.jpg"

step "3/7 Frames and masks"
run python data/process_data.py --takepath "$root/takes" --split_path "$root/split.json" --outputpath "$data"
made "$data/<take_uid>/<camera>/<frame>.jpg" "$data/<take_uid>/annotation.json"

step "4/7 Pairs"
run python data/create_pairs.py --data_dir "$data"
made "$data"/{train,val,test}_pairs.npz

step "5/7 Training, short and small: one network for both settings, 192-pixel input, ImageNet features"
train() { # name of the checkpoint folder, further flags
  run bash train/run_both.sh --train-dir "$data" --out-dir "$out/checkpoints/$1" --resume-pth auto --seed "$seed" \
    --backbone efficientnet_lite0 --mode tiny --input_size 192 --batch-pos 8 --lr 5e-4 --iter-epoch "$steps" \
    --lr-schedule 3 --val_size 0 --cache_features 2 --num_workers 0 --log_every 50 --precision $precision "${@:2}"
}
train untrained --warmUpIter 1 --n-epoch 0 # one step at rate 0, to have something to compare with
train trained --warmUpIter $(((steps + 5) / 6)) --n-epoch 4
made "$out/checkpoints/trained/netBest.pth" "$out/checkpoints/trained/log.jsonl"

step "6/7 Inference, both settings, before and after training"
predict() { # setting, name of the checkpoint folder, checkpoint
  run python eval_segswap.py --setting "$1" --split test --data_path "$data" --ckpt_path "$out/checkpoints/$2/$3" \
    --out_path "$out/results/$2"
}
for setting in ego-exo exo-ego; do
  predict $setting untrained netLast.pth
  predict $setting trained netBest.pth
done
made "$out"/results/{untrained,trained}/{ego-exo,exo-ego}_test_results.json

step "7/7 Score, comparison, pictures, report"
for setting in ego-exo exo-ego; do
  flags=(--setting $setting --split test --data_path "$data")
  untrained=$out/results/untrained/${setting}_test_results.json
  trained=$out/results/trained/${setting}_test_results.json
  run python evaluation/evaluate.py "${flags[@]}" --pred_file "$trained" --out "$out/${setting}_evaluation"
  run python evaluation/evaluate.py "${flags[@]}" --pred_file "$untrained" "$trained" --names untrained trained \
    --out "$out/${setting}_comparison"
  run python evaluation/visualize.py "${flags[@]}" --pred_file "$trained" --order random --num 6 --out "$out/$setting.jpg"
  run python evaluation/report.py "${flags[@]}" --pred_file "$trained" --out "$out/${setting}_report"
done
made "$out"/{ego-exo,exo-ego}.jpg "$out"/{ego-exo,exo-ego}_{comparison,report}/index.html

printf '\nDone. %s/ego-exo.jpg shows six test cases, chosen at random: query with mask, prediction, truth.\n' "$out"
printf 'The report, with all of them: %s/ego-exo_report/index.html\n' "$out"
