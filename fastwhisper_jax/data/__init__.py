"""From manifests and data sets to batch layouts and batches; no model's tokens."""
