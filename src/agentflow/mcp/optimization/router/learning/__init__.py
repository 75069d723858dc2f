"""What a router learns from outcomes: tables in, a policy out, and the proof that it is worth having.

policy      what a router asks of whoever has learned; FixedPolicy, HullPolicy and LearnedPolicy answer
table       outcomes by text and model, read from files (`reading`) or from the run store (`recorded`)
training    train(table) → LearnedPolicy; artifact: save_policy, load_policy
"""
