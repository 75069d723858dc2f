"""A small model that learns from a large one: from its logits, or from its recorded answers."""
