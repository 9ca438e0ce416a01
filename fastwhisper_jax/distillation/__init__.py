"""What a run is: a recipe's models, data and schedules, joined into a task."""
