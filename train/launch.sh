# Sourced by run_ego.sh and its like: `launch` starts train.py with the arguments given.
#   PYTHON  the interpreter; by default python3 if it has PyTorch, else the repository's .venv
#   NPROC   number of processes; by default one for each GPU that --gpu lists, else one
#   NNODES, NODE_RANK, MASTER_ADDR, MASTER_PORT  for several machines, as torchrun names them

train_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [ -z "${PYTHON:-}" ]; then
    PYTHON=python3
    if ! python3 -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("torch") is None)' 2>/dev/null; then
        PYTHON="$train_dir/../.venv/bin/python"
    fi
fi

launch() {
    local commas= where=(--standalone)
    if [[ " $*" =~ " --gpu"[=\ ]([0-9,]+) ]]; then commas=${BASH_REMATCH[1]//[0-9]/}; fi
    local count=${NPROC:-$((${#commas} + 1))}
    if [ "${NNODES:-1}" != 1 ]; then
        where=(--nnodes "$NNODES" --node_rank "${NODE_RANK:-0}" --master_addr "${MASTER_ADDR:?is the first machine}")
        where+=(--master_port "${MASTER_PORT:-29500}")
    elif [ "$count" = 1 ]; then
        exec "$PYTHON" "$train_dir/train.py" "$@"
    fi
    export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # as torchrun does, with a warning
    export PET_SIGNALS_TO_HANDLE=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1 # all but the last it passes on anyway
    exec "$PYTHON" -m torch.distributed.run --nproc_per_node "$count" "${where[@]}" "$train_dir/train.py" "$@"
}
