#!/usr/bin/env bash
# Run the whole test suite in the environment that quickstart.sh also uses: bash tests/run.sh [pytest arguments]
# Run golden numbers, answers and units alone, in 45 seconds: bash tests/run.sh --quick
set -euo pipefail
case ${1:-} in -h | --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" && exit ;; esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tests/setup_env.sh
setup_env requirements.txt tests/requirements.txt
exec "${PYTHON:-python}" -m pytest "$@"
