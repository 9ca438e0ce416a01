"""What a program costs on a TPU slice: flops, bytes, memory and the least time."""
