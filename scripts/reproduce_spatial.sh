#!/usr/bin/env bash
# From nothing to a trained policy and its success rate: demonstrations → images → training → evaluation → report.
#
#   bash scripts/reproduce_spatial.sh                     # everything, into runs/reproduce
#   bash scripts/reproduce_spatial.sh --stage collect     # one stage: collect, draw, train, correct, finish, evaluate, report
#
# Every stage goes on where it was interrupted: repeat the command. All of the variables below may be set from outside; the tests run a
# miniature on a CPU. What came out, on which machine and how long it took: docs/results.md.
set -euo pipefail
cd "$(dirname "$0")/.."

: "${OUTPUT:=runs/reproduce}" "${SUITE:=libero_spatial}" "${TASKS:=}" "${WORKERS:=auto}"
: "${DEMOS:=80}" "${SPREAD:=3}" "${WIDE_SHARE:=0.6}" # demonstrations per task, disturbed; of WIDE_SHARE of them things stand SPREAD times as wide
: "${MISPLACED:=0}"                               # part of them in which the bowl is put down beside the plate at first
: "${SIZE:=256}" "${IMAGE_EVERY:=3}"              # pixels, as evaluations render; of every third step
: "${PRESET:=compact}" "${STEM:=convolutions}" "${BATCH:=256}" "${STEPS:=11000}" "${LR:=8e-4}" "${DECAY:=0.1}"
: "${SHIFT:=0.01}"                                # of pictures in training; a larger one teaches not to mind where in them something is
: "${IMAGE_PX:=128}" "${SAVE_EVERY:=4000}"         # pixels, as the policy sees them; steps between validations, with a checkpoint each
: "${MORE:=--data-on-device}"                     # more arguments for vla-train; libero_goal did better with --no-proprioception
: "${CORRECTED:=0}" "${KEEP:=successes}"          # episodes per task, LIBERO's starts, driven by the policy, with the expert's answers (DAgger); 0: none,
: "${FINISH_STEPS:=4500}" "${FINISH_LR:=4e-4}"    # and training that goes on with them
: "${EXECUTE:=4}"                                 # actions of a chunk before the next query; 8 did worse in libero_spatial
: "${EPISODES:=50}" "${VIDEOS:=some}"             # per task, official init states
: "${LANGUAGE:=vla_vggt/pretrained/instructions.safetensors}"   # features of the instructions: no language model is needed
stage=all
[ "${1:-}" = --stage ] && stage=$2

if [ -z "${PYTHON:-}" ]; then . scripts/setup_environment.sh; PYTHON=$PY; fi
export PYTHONPATH=.${PYTHONPATH:+:$PYTHONPATH}
tasks=(); [ -n "$TASKS" ] && read -ra tasks <<< "--tasks $TASKS"
demonstrations=$OUTPUT/demonstrations corrections=$OUTPUT/corrections
drawn=$demonstrations/${SUITE}_cache
policy=$OUTPUT/first; [ "$CORRECTED" -gt 0 ] && policy=$OUTPUT/final
drawing=(--workers "$WORKERS" --size "$SIZE" --format cache --image-every "$IMAGE_EVERY")
learning=(--language-model "$LANGUAGE" --batch-size "$BATCH" --weight-decay "$DECAY" --augment-shift "$SHIFT"
  --execute-steps "$EXECUTE" --save-every "$SAVE_EVERY")
read -ra more <<< "$MORE"

run() {  # run NAME COMMAND…: one stage, timed
  local name=$1 started=$SECONDS; shift
  [ "$stage" = all ] || [ "$stage" = "$name" ] || return 0
  printf '\n== %s\n' "$name"
  "$@"
  printf '== %s: %d s\n' "$name" $((SECONDS - started)) | tee -a "$OUTPUT/times.txt"
}

collect() { "$PYTHON" -m harness.collecting.cli --suite "$SUITE" "${tasks[@]}" --demos-per-task "$DEMOS" --noise 1 --misplaced "$MISPLACED" \
  --spread "$SPREAD" --wide-share "$WIDE_SHARE" --first-seed 20000 --stage traces --workers "$WORKERS" --output "$demonstrations"; }
draw() { "$PYTHON" -m harness.collecting.cli --stage images "${drawing[@]}" --output "$demonstrations"; }
train() { "$PYTHON" -m vla_vggt.cli --preset "$PRESET" --stem "$STEM" "${learning[@]}" --lr "$LR" --max-steps "$STEPS" \
  --image-px "$IMAGE_PX" "${more[@]}" --data-path "$drawn" --log-dir "$OUTPUT/first"; }
correct() { "$PYTHON" -m harness.collecting.cli --suite "$SUITE" "${tasks[@]}" --demos-per-task "$CORRECTED" --first-seed 30000 \
  --checkpoint "$OUTPUT/first/checkpoints/last" --relabel expert --expert-share 0.3 --keep "$KEEP" "${drawing[@]}" \
  --output "$corrections"; }
finish() { "$PYTHON" -m vla_vggt.cli --init-from "$OUTPUT/first/checkpoints/last" "${learning[@]}" --lr "$FINISH_LR" \
  --max-steps "$FINISH_STEPS" --data-path "$drawn" "$corrections/${SUITE}_cache" --log-dir "$OUTPUT/final"; }
evaluate() { "$PYTHON" -m harness --suite "$SUITE" "${tasks[@]}" --episodes "$EPISODES" --workers "$WORKERS" --videos "$VIDEOS" \
  --checkpoint "$policy/checkpoints/last" --output-dir "$OUTPUT/evaluation"; }
report() { "$PYTHON" -m results.cli "$OUTPUT/evaluation"; }

mkdir -p "$OUTPUT"
run collect collect
run draw draw
run train train
if [ "$CORRECTED" -gt 0 ]; then
  run correct correct
  run finish finish
fi
run evaluate evaluate
run report report
