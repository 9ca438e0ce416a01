"""Reads a compiled program (HLO) and counts its work."""
