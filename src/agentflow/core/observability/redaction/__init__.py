"""What is taken out before anything is written down: keys, addresses, card numbers, and what is known to be secret.

Names alone: each is resolved when first used, because a program that writes nothing down needs none of the patterns.
"""

from importlib import import_module

TYPE_CHECKING = False  # as in the face of the package
if TYPE_CHECKING:
    from agentflow.core.observability.redaction.known_secrets import know_secret
    from agentflow.core.observability.redaction.redactor import Redactor, redact

__all__ = ["Redactor", "know_secret", "redact"]

_HOME_OF = {"Redactor": "redactor", "know_secret": "known_secrets", "redact": "redactor"}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
        globals()[name] = value
        return value
