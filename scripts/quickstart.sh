#!/usr/bin/env bash
# Sets everything up on a fresh Debian or Ubuntu machine and evaluates libero_spatial for real: a few episodes of each
# task. Arguments are passed on to vla-eval, such as `bash scripts/quickstart.sh --episodes 10`.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/setup_environment.sh
run_dir=runs/quickstart-$(date +%Y%m%d-%H%M%S)
"$PY" -m harness --suite libero_spatial --episodes 3 --output-dir "$run_dir" "$@"
printf '\nLook at it: %s/.venv/bin/vla-review %s\n' "$PWD" "$run_dir"
printf 'Your own policy: vla-eval --suite libero_spatial --policy module:factory (see README.md). Activate the environment\nwith: source .venv/bin/activate\n'
