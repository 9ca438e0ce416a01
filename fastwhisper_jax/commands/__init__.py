"""The commands of `fastwhisper`, one file each. Only they and `cli` may import every other part."""
