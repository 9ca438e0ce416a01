"""Recipes of the demo, for its teacher and its two students."""
