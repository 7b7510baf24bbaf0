"""The training loop: stages, checkpoints, schedules, logs, several processes."""
