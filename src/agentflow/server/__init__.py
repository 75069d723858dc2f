"""An HTTP server that answers OpenAI's API with the models of the registry."""

from agentflow.server.app import app
from agentflow.server.serving import serve

__all__ = ["app", "serve"]
