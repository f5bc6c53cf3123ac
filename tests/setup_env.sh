# quickstart.sh and tests/run.sh source this file in the repository root. `setup_env FILE...` makes .venv, installs the
# requirement files that are new or have changed, and puts .venv first on the PATH. If PYTHON names an interpreter, or
# the active environment (venv or conda) has what the files require, this comes first on the PATH instead, and nothing is
# made or installed.
setup_env() {
  local active=${VIRTUAL_ENV:-${CONDA_PREFIX:-}}
  if [ -z "${PYTHON:-}" ] && [ -n "$active" ]; then
    # pip may not look into an index or, as clusters configure it, into a folder of wheels: only at what is installed.
    if PIP_CONFIG_FILE=/dev/null PIP_FIND_LINKS='' "$active/bin/python" -m pip install --dry-run --no-index --quiet \
      "${@/#/--requirement=}" >/dev/null 2>&1; then
      echo "using the active environment $active"
      PYTHON=$active/bin/python
    elif ! [ "$active" -ef .venv ]; then
      echo "the active environment $active does not have all of $*; using .venv"
    fi
  fi
  if [ -n "${PYTHON:-}" ]; then
    if ! "$PYTHON" -c 'import torch' 2>/dev/null; then
      echo "error: PYTHON=$PYTHON is no interpreter with PyTorch; install requirements.txt there, or unset PYTHON" >&2
      return 1
    fi
    PATH="$(cd "$(dirname "$(command -v "$PYTHON")")" && pwd):$PATH"
    PYTHON=$(command -v "$(basename "$PYTHON")")
    export PYTHON
    python() { "$PYTHON" "$@"; } # in its folder, `python` may be missing or another interpreter
    return
  fi
  local stamp=.venv/.installed
  # It is missing, or was not finished. One without pip (of uv, for example) gets pip, and keeps what it holds.
  if ! { .venv/bin/python -m pip --version || .venv/bin/python -m ensurepip; } >/dev/null 2>&1; then
    local python
    python="$(command -v python3 || command -v python || true)"
    if [ -z "$python" ] || ! "$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2])'; then
      echo "error: needs Python 3.10 or newer, found ${python:-none}; install one and run this again" >&2
      return 1
    fi
    echo "+ $python -m venv .venv"
    "$python" -m venv --clear .venv || {
      echo "error: could not make .venv; on Debian and Ubuntu: apt install python3-venv" >&2
      return 1
    }
  fi
  local file
  for file in "$@"; do
    local copy="$stamp.$(echo "$file" | tr / -)"
    if ! cmp -s "$file" "$copy"; then
      echo "+ pip install -r $file    # minutes at the first time: 6.0 GB in all with CUDA, 1.8 GB without"
      local options=--quiet
      if [ -t 1 ]; then options=; fi # in a terminal, show pip's progress
      # pip would compile all modules, half of its time; Python compiles those it imports, if it may write them.
      if [ -z "${PYTHONDONTWRITEBYTECODE:-}" ]; then options+=" --no-compile"; fi
      .venv/bin/python -m pip install $options --disable-pip-version-check -r "$file" || {
        echo "error: pip could not install $file" >&2
        return 1
      }
      cp "$file" "$copy"
    fi
  done
  local cuda=without
  if grep -qs "^cuda.*= '" .venv/lib/python3*/site-packages/torch/version.py; then cuda=with; fi
  echo "using .venv: PyTorch $cuda CUDA"
  PATH="$PWD/.venv/bin:$PATH"
}
