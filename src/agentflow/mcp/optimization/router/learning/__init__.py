"""What a router learns from outcomes: tables in, a policy out, and the proof that it is worth having."""
