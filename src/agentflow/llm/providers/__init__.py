"""Providers: `base` is the protocol, `http` speaks HTTP, and each other file is one kind of provider."""
