#!/usr/bin/env bash
#SBATCH --job-name=xsegtx
#SBATCH --nodes=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120
# Train on a SLURM cluster. Adapt the lines above to your cluster, and submit from the repository root, because SLURM
# runs a copy of this file:
#   sbatch train/slurm.sh [run_ego.sh | run_exo.sh | run_both.sh] [arguments of train.py]
#   sbatch --nodes=2 train/slurm.sh run_both.sh      # two machines with the same disks, as one run
# Two minutes before its time limit, the job saves, ends and is queued again; its command, the same as before, then
# continues the run. The same happens when the job is preempted; it then has 30 s, or more if slurm.conf has
# PreemptParameters=send_user_signal. With several processes and a PyTorch before 2.12, it always has 30 s.
set -uo pipefail
script=run_ego.sh
case ${1:-} in run_*.sh) script=$1 && shift ;; esac

export NPROC=${SLURM_GPUS_ON_NODE:-1}
start=(bash)
if [ "${SLURM_JOB_NUM_NODES:-1}" != 1 ]; then # torchrun reads flags from PET_...; the machines meet at this one
    place=$(hostname):$((20000 + SLURM_JOB_ID % 10000))
    export PET_NNODES=$SLURM_JOB_NUM_NODES PET_RDZV_BACKEND=c10d PET_RDZV_ENDPOINT=$place PET_RDZV_ID=$SLURM_JOB_ID
    start=(srun --ntasks-per-node=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" bash)
fi
"${start[@]}" "train/$script" "$@" &
child=$!
interrupted=0
pass_on() {
    interrupted=1
    kill -TERM "$child" # the child passes the signal on to its processes and waits for them
}
trap pass_on USR1 TERM
status=0
wait "$child" || status=$?
while kill -0 "$child" 2>/dev/null; do # `wait` returns early when a trap has run
    status=0
    wait "$child" || status=$?
done
if [ "$interrupted" = 1 ] && [ -n "${SLURM_JOB_ID:-}" ]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$status"
