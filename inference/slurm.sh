#!/usr/bin/env bash
#SBATCH --job-name=xsegtx-predict
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
# Predict on a SLURM cluster: all GPUs of all machines share the takes. Adapt the lines above to your cluster, and submit
# from the repository root, because SLURM runs a copy of this file:
#   sbatch inference/slurm.sh [arguments of eval_segswap.py]
#   sbatch --nodes=4 inference/slurm.sh --setting ego-exo --split test     # four machines with the same disks
# A job that was preempted continues by itself. After the time limit, submit the same line again.
set -euo pipefail
source train/launch.sh # finds PYTHON

place=$(hostname):$((20000 + SLURM_JOB_ID % 10000)) # here the machines meet
program=("$PYTHON" -m torch.distributed.run --nnodes "$SLURM_JOB_NUM_NODES" --nproc_per_node "$SLURM_GPUS_ON_NODE")
program+=(--rdzv_backend c10d --rdzv_endpoint "$place" --rdzv_id "$SLURM_JOB_ID" eval_segswap.py)
exec srun --cpus-per-task="$SLURM_CPUS_PER_TASK" "${program[@]}" "$@"
