# run_ego.sh, run_exo.sh and run_both.sh source this file. `launch` starts train.py with the arguments given.
#   PYTHON  the interpreter (default: the repository's .venv if only that has PyTorch, otherwise python3)
#   NPROC   number of processes; torchrun starts them if there are several (default: one for each GPU of --gpu, or one)

train_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [ -z "${PYTHON:-}" ]; then
    PYTHON=python3 has_torch='import importlib.util, sys; sys.exit(importlib.util.find_spec("torch") is None)'
    own="$train_dir/../.venv/bin/python"
    if ! python3 -c "$has_torch" 2>/dev/null && [ -x "$own" ]; then PYTHON=$own; fi
fi

launch() {
    local commas='' program=("$PYTHON")
    if [[ " $*" =~ " --gpu"[=\ ]([0-9,]+) ]]; then commas=${BASH_REMATCH[1]//[0-9]/}; fi
    local count=${NPROC:-$((${#commas} + 1))}
    if [ "$count" != 1 ] || [ -n "${PET_NNODES:-}" ]; then
        # train.py reads the options before torchrun starts, which would print a traceback of its own after a typo.
        "$PYTHON" "$train_dir/train.py" "$@" --help > /dev/null || exit
        export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # torchrun does the same, but warns of it
        export PET_SIGNALS_TO_HANDLE=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1 # adds SIGUSR1 to its default
        export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=120 # seconds for saving; by default, and before PyTorch 2.12, it is 30
        program+=(-m torch.distributed.run --nproc_per_node "$count")
        [ -n "${PET_NNODES:-}" ] || program+=(--standalone) # slurm.sh says where several machines meet
    fi
    exec "${program[@]}" "$train_dir/train.py" "$@"
}
