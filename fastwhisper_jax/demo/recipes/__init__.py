"""Recipes of the demo: its teacher, and the two students."""
