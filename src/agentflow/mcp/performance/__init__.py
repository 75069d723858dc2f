"""What answers without asking, or asks for many at once: caching, batching."""
