"""Streams: `sse` turns bytes into events without I/O, `stream` is what the caller iterates."""
