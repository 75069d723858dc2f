"""A store from what a configuration file says: the entry point `valkey` of the group `agentflow.integrations`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

from agentflow.core.robustness.decision import Listener
from agentflow.errors import ConfigurationError
from agentflow.integrations.valkey.store import ValkeyStore

__all__ = ["from_settings"]

_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "prefix": (str,),
    "replicas": (int,),
    "timeout": (float, int),
    "lease": (float, int),
    "cluster": (bool,),
}


def from_settings(settings: Mapping[str, object], *, listener: Listener | None = None) -> ValkeyStore:
    """`url` or `url_env`, and `prefix`, `replicas`, `timeout`, `lease`, `cluster` if wanted.

    `url_env` names an environment variable that holds the URL: one with a password does not belong in a file. Raises
    ConfigurationError, which never repeats a URL, and MissingExtraError.
    """
    given: dict[str, Any] = dict(settings)
    url = _url(given)
    for name, value in given.items():
        if name not in _TYPES:
            raise ConfigurationError(
                f"valkey: no setting is named {name!r}, only {', '.join(('url', 'url_env', *_TYPES))}"
            )
        if not isinstance(value, _TYPES[name]) or (isinstance(value, bool) and name != "cluster"):
            raise ConfigurationError(f"valkey: {name} must be {_TYPES[name][0].__name__}, not {type(value).__name__}")
    try:
        return ValkeyStore(url, listener=listener, **given)
    except ValueError as error:
        raise ConfigurationError(f"valkey: {error}") from None


def _url(given: dict[str, Any]) -> str:
    variable = given.pop("url_env", None)
    url = given.pop("url", None)
    if (variable is None) == (url is None):
        raise ConfigurationError("valkey: one of url and url_env is needed")
    if variable is not None:
        url = os.environ.get(str(variable))
        if not url:
            raise ConfigurationError(f"valkey: the environment variable {variable} (url_env) is not set")
    if not isinstance(url, str):
        raise ConfigurationError(f"valkey: url must be str, not {type(url).__name__}")
    return url
