"""What `agentflow bench` shows: how a run goes on, and what was found."""
