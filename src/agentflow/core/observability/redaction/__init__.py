"""What is taken out before anything is written down: keys, addresses, card numbers, and what is known to be secret."""

from agentflow.core.observability.redaction.known_secrets import know_secret
from agentflow.core.observability.redaction.redactor import Redactor, redact

__all__ = ["Redactor", "know_secret", "redact"]
