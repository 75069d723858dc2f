"""What there is to propose, one sort a file: each takes a log's table and the terms, and returns proposals."""
