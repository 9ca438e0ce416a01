"""The ASKD objective: its definition, its schedules, and its sums in chunks."""
