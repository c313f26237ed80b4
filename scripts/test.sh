#!/usr/bin/env bash
# Sets everything up as quickstart.sh does, then runs the linter, the type checker and all tests.
# Arguments are passed on to pytest, such as `bash scripts/test.sh -m "not sim"`. Two processes share the test files (`-n 0`: none).
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/setup_environment.sh
# The review page is tested in a browser, where one is there or may be installed; without one those tests are skipped.
command -v chromium >/dev/null || command -v google-chrome >/dev/null || apt_install chromium || say "test: no Chromium: the page's tests are skipped"
"$PY" -m ruff check .
"$PY" -m ruff format --check .
"$PY" -m mypy
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}  # one thread in each of them: more would only wait for each other
"$PY" -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 25 --durations-min 15 "$@"
