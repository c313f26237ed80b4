#!/usr/bin/env bash
# From nothing to the policy that ships and its success rate: demonstrations → training → corrections → training → evaluation → report.
#
#   bash scripts/reproduce_spatial.sh                     # everything, into runs/reproduce
#   bash scripts/reproduce_spatial.sh --stage collect     # one stage: collect, draw, train, correct, finish, evaluate, report
#
# Every stage goes on where it was interrupted: repeat the command. The variables below may be set from outside; the tests run a miniature
# (SUITE, TASKS, DEMOS, … of a few minutes on a CPU). On one H100 or H200 with 16 cores the whole takes about a quarter of an hour.
set -euo pipefail
cd "$(dirname "$0")/.."

: "${OUTPUT:=runs/reproduce}" "${SUITE:=libero_spatial}" "${TASKS:=}" "${WORKERS:=auto}"
: "${DEMOS:=50}"              # demonstrations per task, disturbed
: "${CORRECTED:=20}" "${KEEP:=successes}"   # episodes per task driven by the policy, with the expert's answers (DAgger)
: "${IMAGE_EVERY:=2}"         # draw every second step
: "${SIZE:=256}"              # pixels, as evaluations render
: "${PRESET:=compact}" "${BATCH:=256}" "${LR:=8e-4}" "${STEPS:=6000}"
: "${FINISH_LR:=3e-4}" "${FINISH_STEPS:=3000}"   # after the corrections
: "${EPISODES:=50}" "${VIDEOS:=some}"   # per task, official init states
: "${EXECUTE:=8}"             # actions of a chunk before the next query
: "${LANGUAGE:=vla_vggt/pretrained/instructions.safetensors}"   # features of the instructions: no language model is needed
stage=all
[ "${1:-}" = --stage ] && stage=$2

if [ -z "${PYTHON:-}" ]; then . scripts/setup_environment.sh; PYTHON=$PY; fi
export PYTHONPATH=.${PYTHONPATH:+:$PYTHONPATH}
tasks=(); [ -n "$TASKS" ] && read -ra tasks <<< "--tasks $TASKS"
first=$OUTPUT/demonstrations corrections=$OUTPUT/corrections

run() {  # run NAME COMMAND…: one stage, timed
  local name=$1 started=$SECONDS; shift
  [ "$stage" = all ] || [ "$stage" = "$name" ] || return 0
  printf '\n== %s\n' "$name"
  "$@"
  printf '== %s: %d s\n' "$name" $((SECONDS - started)) | tee -a "$OUTPUT/times.txt"
}

collect() { "$PYTHON" -m harness.collecting.cli --suite "$SUITE" "${tasks[@]}" --workers "$WORKERS" --size "$SIZE" --format cache \
  --image-every "$IMAGE_EVERY" "$@"; }
train() { "$PYTHON" -m vla_vggt.cli --language-model "$LANGUAGE" --batch-size "$BATCH" --execute-steps "$EXECUTE" "$@"; }

collect_traces() { collect --demos-per-task "$DEMOS" --noise 1 --first-seed 20000 --stage traces --output "$first"; }
draw() { "$PYTHON" -m harness.collecting.cli --stage images --output "$first" --workers "$WORKERS" --size "$SIZE" --format cache \
  --image-every "$IMAGE_EVERY"; }
train_first() { train --preset "$PRESET" --lr "$LR" --max-steps "$STEPS" --data-path "$first/${SUITE}_cache" --log-dir "$OUTPUT/first"; }
correct() { collect --demos-per-task "$CORRECTED" --first-seed 30000 --checkpoint "$OUTPUT/first/checkpoints/last" --relabel expert \
  --expert-share 0.3 --keep "$KEEP" --output "$corrections"; }
finish() { train --init-from "$OUTPUT/first/checkpoints/last" --lr "$FINISH_LR" --max-steps "$FINISH_STEPS" \
  --data-path "$first/${SUITE}_cache" "$corrections/${SUITE}_cache" --log-dir "$OUTPUT/final"; }
evaluate() { "$PYTHON" -m harness --suite "$SUITE" "${tasks[@]}" --episodes "$EPISODES" --workers "$WORKERS" --videos "$VIDEOS" \
  --checkpoint "$OUTPUT/final/checkpoints/last" --output-dir "$OUTPUT/evaluation"; }
report() { "$PYTHON" -m results.cli "$OUTPUT/evaluation"; }

mkdir -p "$OUTPUT"
run collect collect_traces
run draw draw
run train train_first
run correct correct
run finish finish
run evaluate evaluate
run report report
