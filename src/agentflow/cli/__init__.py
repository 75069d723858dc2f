"""The command line: `agentflow run`, `ask`, `models`, `graph`, `doctor` and `init`, one file a command."""
