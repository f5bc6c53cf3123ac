# Sourced by run_ego.sh and its like: `launch` starts train.py with the arguments given.
#   PYTHON  the interpreter; by default python3 if it has PyTorch, else the repository's .venv
#   NPROC   number of processes, by torchrun; by default one for each GPU that --gpu lists, else one

train_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [ -z "${PYTHON:-}" ]; then
    PYTHON=python3
    if ! python3 -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("torch") is None)' 2>/dev/null; then
        PYTHON="$train_dir/../.venv/bin/python"
    fi
fi

launch() {
    local commas= program=("$PYTHON")
    if [[ " $*" =~ " --gpu"[=\ ]([0-9,]+) ]]; then commas=${BASH_REMATCH[1]//[0-9]/}; fi
    local count=${NPROC:-$((${#commas} + 1))}
    if [ "$count" != 1 ]; then
        export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # as torchrun does, with a warning
        export PET_SIGNALS_TO_HANDLE=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1 # all but the last it passes on anyway
        program+=(-m torch.distributed.run --standalone --nproc_per_node "$count")
    fi
    exec "${program[@]}" "$train_dir/train.py" "$@"
}
