"""The command line, one file a command: `agentflow run`, `ask`, `runs`, `trace`, `top`, `cost`, `models`, `graph`, …"""
