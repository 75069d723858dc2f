"""The programs that run a model here: one file each."""
