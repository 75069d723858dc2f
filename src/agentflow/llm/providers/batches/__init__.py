"""The providers' batch APIs: many requests go together, and the answers come hours later at half the price."""
