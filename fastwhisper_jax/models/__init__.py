"""Layers of a transformer, how they are divided over a mesh, and model families."""
