"""Training: loss, optimiser, schedule, checkpoints, logs."""
