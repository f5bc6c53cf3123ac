#!/usr/bin/env bash
# Run XSegTx from videos to results on rendered takes, in three minutes on two CPU cores (needs Python 3.10+ and pip).
# Every command is printed before it runs; with your own data, run the same commands with your own paths.
# A second run reuses what the first one made, also its network; `rm -r quickstart` starts afresh, as it must if you
# change one of these environment variables:
#   QUICKSTART_DIR    where everything goes (default: quickstart)
#   QUICKSTART_TAKES  takes for training; an eighth as many for validation, a third for testing (default: 24)
#   QUICKSTART_STEPS  training steps per epoch, of two epochs (default: 30)
#   QUICKSTART_SEED   seed of the order of the samples (default: 0)
#   PYTHON            an interpreter that has the requirements; if it is set, nothing is installed
# If an environment (venv or conda) is active that has the requirements, it is used; otherwise .venv is made.
set -euo pipefail
case ${1:-} in -h | --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" && exit ;; esac
cd "$(dirname "${BASH_SOURCE[0]}")"
source tests/setup_env.sh

out=${QUICKSTART_DIR:-quickstart}
takes=${QUICKSTART_TAKES:-24}
steps=${QUICKSTART_STEPS:-30}
seed=${QUICKSTART_SEED:-0}
precision=fp32 # if the CPU computes in bfloat16, training with it is faster and as accurate
if grep -qsw avx512_bf16 /proc/cpuinfo; then precision=bf16; fi
root=$out/egoexo
data=$root/processed

step() {
  printf '\n== %s\n' "$1"
  begin=$SECONDS
}
run() {
  printf '+ %s\n' "$*"
  "$@"
}
made() {
  printf -- '-> %s\n' "$@"
  printf 'took %d s\n' $((SECONDS - begin))
}

step "1/7 Environment: Python with PyTorch and the other requirements"
setup_env requirements.txt
made "$(command -v "${PYTHON:-python}")"

step "2/7 Takes: rendered videos of one head-worn and two static cameras, with annotations, laid out as Ego-Exo4D is"
run python synthetic/make_takes.py --outputpath "$root" --num_train "$takes" --num_val $(((takes + 7) / 8)) \
  --num_test $(((takes + 2) / 3))
made "$root/takes/*/frame_aligned_videos/*.mp4" "$root/annotations/relations_{train,val,test}.json"

step "3/7 Frames: one picture per second and camera, and the objects' masks"
run python data/process_data.py --takepath "$root/takes" --split_path "$root/split.json" --outputpath "$data"
made "$data/<take_uid>/<camera>/<frame>.jpg" "$data/<take_uid>/annotation.json"

step "4/7 Pairs: each object in one camera, to be found in another at the same moment"
run python data/create_pairs.py --data_dir "$data"
made "$data"/{train,val,test}_pairs.npz

step "5/7 Training: the network of this repository goes on with these takes, for both settings"
network=model/pretrained/xsegtx_tiny.pth
run bash train/run_both.sh --init_weights $network --train-dir "$data" --out-dir "$out/checkpoints" --resume-pth auto \
  --seed "$seed" --batch-pos 8 --lr 1e-4 --warmUpIter $(((steps + 5) / 6)) --iter-epoch "$steps" --n-epoch 2 \
  --lr_falls 1 --existence_weight 0.05 --mine_epochs --fit_share 0 --val_size 0 --val_every 2 --num_workers 0 \
  --log_every 10 --precision $precision
made "$out/checkpoints/netBest.pth" "$out/checkpoints/log.jsonl"

step "6/7 Inference: the masks of the test takes, in both settings, before and after the training, and by color alone"
predict=(python eval_segswap.py --setting both --split test --data_path "$data")
run "${predict[@]}" --ckpt_path $network --out "$out/results/before"
run "${predict[@]}" --ckpt_path "$out/checkpoints/netBest.pth" --out "$out/results/after"
run "${predict[@]}" --predictor examples/own_method.py:ColorHistogram --out "$out/results/color"
made "$out"/results/{before,after,color}/{ego-exo,exo-ego}_test_results.json

step "7/7 Scores: all three compared in both settings, and a report with pictures"
echo 'So few takes show how training works, hardly what it brings: "uncertain" is what other test takes may reverse.'
for setting in ego-exo exo-ego; do
  run python evaluation/compare.py --setting $setting --split test --data_path "$data" --names before after color \
    --pred_file "$out"/results/{before,after,color}/${setting}_test_results.json --out "$out/${setting}_comparison"
done
run python evaluation/evaluate.py --setting ego-exo --split test --data_path "$data" \
  --pred_file "$out/results/after/ego-exo_test_results.json" --out "$out/ego-exo_report" --report --order random \
  --sheet "$out/ego-exo.jpg" --overwrite
made "$out"/{ego-exo,exo-ego}_comparison/index.html "$out/ego-exo_report/index.html" "$out/ego-exo.jpg"

printf '\nDone in %d s. Look at these first:\n' "$SECONDS"
printf '  %s/ego-exo.jpg: eight test cases, chosen at random: query with mask, prediction, truth\n' "$out"
printf '  %s/ego-exo_report/index.html: all cases, to sort and filter by score\n' "$out"
printf 'Then your own pictures: docs/own_data.md.\n'
