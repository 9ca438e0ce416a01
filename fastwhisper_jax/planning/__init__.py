"""What a recipe's steps cost on a TPU slice, compiled without one."""
