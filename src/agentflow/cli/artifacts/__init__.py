"""Artifacts on a terminal."""
