"""What decides who answers, what it may cost, and whether it was worth it: router, budget, cost, benchmark."""
