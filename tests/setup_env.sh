# quickstart.sh and tests/run.sh source this file in the repository root. `setup_env FILE...` makes .venv, installs the
# requirement files that are new or have changed, and puts .venv first on the PATH. If PYTHON names an interpreter, or
# the active environment (venv or conda) has what the files require, this comes first on the PATH instead, and nothing is
# made or installed. uv installs, in a fraction of pip's time; where it cannot be had or fails, pip does.
setup_env() {
  local active=${VIRTUAL_ENV:-${CONDA_PREFIX:-}}
  if [ -z "${PYTHON:-}" ] && [ -n "$active" ]; then
    # pip may not look into an index or, as clusters configure it, into a folder of wheels: only at what is installed.
    if env PIP_CONFIG_FILE=/dev/null PIP_{FIND_LINKS,TARGET,PREFIX,ROOT,USER}= "$active/bin/python" -m pip install \
      --dry-run --no-index --quiet "${@/#/--requirement=}" >/dev/null 2>&1; then
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
  if [ -L .venv ] && ! [ -e .venv ]; then
    echo "error: .venv is a link to $(readlink .venv), which is not there; delete the link and run this again" >&2
    return 1
  elif [ -e .venv ] && ! [ -d .venv ]; then
    echo "error: .venv is a file, and the requirements go into a folder of this name; move it away and run this again" >&2
    return 1
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
      installs_into_venv || return 1
      echo "installing $file: 6.0 GB in all with CUDA, 1.8 GB without, which takes minutes at the first time"
      install_by_uv "$file" || install_by_pip "$file" || return 1
      rm .venv/.installing
      cp "$file" "$copy"
    fi
  done
  local cuda=without
  if grep -qs "^cuda.*= '" .venv/lib/python3*/site-packages/torch/version.py; then cuda=with; fi
  echo "using .venv: PyTorch $cuda CUDA"
  PATH="$PWD/.venv/bin:$PATH"
}

installs_into_venv() {
  local elsewhere
  if elsewhere=$(.venv/bin/python -m pip config list | grep -E '\.(target|prefix|root|user)='); then
    elsewhere=$(sed -E "s/:env:\.([a-z]+)/PIP_\U\1/; s/$/,/" <<<"$elsewhere" | tr '\n' ' ')
    echo "error: pip is set to install elsewhere than into .venv (${elsewhere%, }); unset this and run this again" >&2
    return 1
  fi
}

# Install a requirement file into .venv by uv: the one on the PATH, or one that pip puts into .venv.
install_by_uv() {
  local name value key uv cache compile="" settings=("UV_PYTHON=.venv/bin/python")
  # uv is told in its own words what pip is configured with. Where these words say less, pip installs.
  while IFS='=' read -r name value; do
    value=${value#\'} value=${value%\'}
    case $value in
      '') continue ;;              # pip ignores it, too
      *' '* | *'\n'*) return 1 ;; # several
    esac
    case ${name/#:env:/global} in
      global.index-url) key=UV_DEFAULT_INDEX ;;
      global.find-links) key=UV_FIND_LINKS ;;
      global.constraint) key=UV_CONSTRAINT ;;
      global.cert) key=SSL_CERT_FILE ;;
      global.timeout | global.default-timeout) key=UV_HTTP_TIMEOUT ;;
      global.config-file | global.disable-pip-version-check | global.require-virtualenv) continue ;;
      *) return 1 ;;
    esac
    settings=("$key=$value" "${settings[@]}") # pip lists the strongest first; env takes the last
  done < <(.venv/bin/python -m pip config list)
  if ! uv=$(PATH="$PATH:$PWD/.venv/bin" command -v uv); then
    .venv/bin/python -m pip install --quiet --retries 1 uv >/dev/null 2>&1 || return 1
    uv=.venv/bin/uv
  fi
  # uv links the files of its cache. It would copy them from another disk, which may be a small home: no cache stays then.
  cache=$("$uv" cache dir 2>/dev/null || echo .venv/.cache)
  { mkdir -p "$cache" && touch "$cache/.here" && ln -f "$cache/.here" .venv; } 2>/dev/null || cache=.venv/.cache
  local show=/dev/stderr
  if ! [ -t 2 ]; then show=/dev/null; fi # in a terminal, uv shows its progress
  # It compiles no modules, which takes longer than the rest: Python compiles those it imports, if it may write them.
  if [ -n "${PYTHONDONTWRITEBYTECODE:-}" ]; then compile=--compile-bytecode; fi
  echo "+ uv pip install -r $1"
  begin_installing
  env -u UV_SYSTEM_PYTHON "UV_CACHE_DIR=$cache" "${settings[@]}" "$uv" pip install $compile -r "$1" 2>$show || return 1
  rm -rf .venv/.cache
}

install_by_pip() {
  local options=--quiet
  if [ -t 1 ]; then options=; fi # in a terminal, pip shows its progress
  if [ -z "${PYTHONDONTWRITEBYTECODE:-}" ]; then options+=" --no-compile"; fi # else half of pip's time
  echo "+ pip install -r $1"
  begin_installing
  .venv/bin/python -m pip install $options --disable-pip-version-check -r "$1" 2>.venv/.errors && return
  if grep -qE 'NewConnectionError|NameResolutionError|ConnectTimeoutError|ProxyError' .venv/.errors; then
    echo "error: no network: pip cannot reach its package index; connect, and run this again" >&2
  else
    cat .venv/.errors >&2
    echo "error: pip could not install $1" >&2
  fi
  return 1
}

# If an installation was killed, a package may be there in part: without its record, it is installed again.
begin_installing() {
  if [ -e .venv/.installing ]; then
    .venv/bin/python - <<'END'
import glob, importlib.metadata, shutil

def is_whole(package):
    files = [(file.locate(), file.size) for file in package.files or ()]
    here = all(path.exists() and size in (None, path.stat().st_size) for path, size in files)
    return here and package.read_text("INSTALLER")  # which is written when all else is there

for package in importlib.metadata.distributions(path=glob.glob(".venv/lib/python3*/site-packages")):
    if not is_whole(package):
        shutil.rmtree(package._path, ignore_errors=True)
END
  fi
  touch .venv/.installing
}
