#!/usr/bin/env bash
# Run the whole test suite in the environment that quickstart.sh also uses: bash tests/run.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tests/setup_env.sh
setup_env requirements.txt tests/requirements.txt
exec "${PYTHON:-python}" -m pytest "$@"
