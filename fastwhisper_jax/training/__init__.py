"""The loop, the update, the state and its checkpoints, for any task."""
