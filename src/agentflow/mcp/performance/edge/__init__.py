"""A model on this machine, called like any other."""
