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

launch() { exec "$PYTHON" "$train_dir/train.py" "$@"; }
