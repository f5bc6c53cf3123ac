# Sourced by run_ego.sh and run_exo.sh: starts train.py with the arguments given.
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
    local gpus commas
    gpus=$(printf '%s\n' "$@" | grep -x -A1 -e --gpu | tail -n 1 || true) # 0,1
    commas=${gpus//[^,]/}
    NPROC=${NPROC:-$((${#commas} + 1))}
    if [ "${NNODES:-1}" -gt 1 ]; then
        exec "$PYTHON" -m torch.distributed.run --nnodes "$NNODES" --node_rank "${NODE_RANK:-0}" \
            --master_addr "$MASTER_ADDR" --master_port "${MASTER_PORT:-29500}" --nproc_per_node $NPROC \
            "$train_dir/train.py" "$@"
    elif [ $NPROC -gt 1 ]; then
        exec "$PYTHON" -m torch.distributed.run --standalone --nproc_per_node $NPROC "$train_dir/train.py" "$@"
    else
        exec "$PYTHON" "$train_dir/train.py" "$@"
    fi
}
