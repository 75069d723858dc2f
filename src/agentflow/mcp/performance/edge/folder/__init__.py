"""A model with all that it needs to run on another machine, in one folder."""

from agentflow.mcp.performance.edge.folder.deployed import DeployedFolder, deploy
from agentflow.mcp.performance.edge.folder.verifying import Check, verify

__all__ = ["Check", "DeployedFolder", "deploy", "verify"]
