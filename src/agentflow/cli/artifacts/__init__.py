"""Artifacts on a terminal and as JSON."""
