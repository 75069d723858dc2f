"""Batch jobs: many requests at half the price, durable from the first intent to the last answer."""
