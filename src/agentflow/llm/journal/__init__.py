"""What a durable step keeps of the models and tools that it asks, so that nothing is asked twice that was answered."""
