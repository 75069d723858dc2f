"""OpenAI's API as values: requests read, answers, chunks and errors written, without a network."""
