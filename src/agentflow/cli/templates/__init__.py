"""What `agentflow init` writes."""
