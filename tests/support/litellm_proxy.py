"""The litellm proxy, a server that somebody else wrote, in front of aimock: two programs between a question and us.

    our client ──chat, responses, messages, generateContent──▶ litellm ──the API of the model's provider──▶ aimock

Which API litellm speaks to aimock follows from the model, not from the API it is asked by: it translates.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from tests.support.aimock import MODELS, Aimock, client
from tests.support.programs import free_port, python_of, started, surroundings

from agentflow.llm.providers.api import HTTPProvider

__all__ = ["Proxy", "proxying"]

_KEY = "sk-of-nobody-0123456789-0123456789-0123456789"  # litellm insists on one that cannot be guessed
_PATIENCE = 110  # seconds: it imports half of PyPI, which takes a minute on a busy machine


@dataclass(frozen=True)
class Proxy:
    """A running litellm."""

    root: str

    def client(self, api: str) -> HTTPProvider:
        return client(api, self.root, key=_KEY)


@contextmanager
def proxying(server: Aimock, folder: Path) -> Iterator[Proxy]:
    """litellm from its start to its end; its configuration and what it says lie in `folder`."""
    python, port, config = python_of("litellm"), free_port(), folder / "config.yaml"
    config.write_text(yaml.safe_dump(_config(server.root)))
    command = [python.with_name("litellm"), "--config", config, "--host", "127.0.0.1", "--port", str(port)]
    environ = surroundings(LITELLM_LOCAL_MODEL_COST_MAP="True", LITELLM_LOCAL_BLOG_POSTS="True", HOME=str(folder))
    with started(command, port, folder / "log", environ=environ, patience=_PATIENCE):
        yield Proxy(f"http://127.0.0.1:{port}")


def _config(aimock: str) -> dict[str, object]:
    """No retries and no pauses of its own: what aimock says is to come through."""
    models = {
        MODELS["chat"]: (f"openai/{MODELS['chat']}", f"{aimock}/v1"),
        MODELS["messages"]: (f"anthropic/{MODELS['messages']}", aimock),
        MODELS["generate"]: (f"gemini/{MODELS['generate']}", f"{aimock}/v1beta"),
        "text-embedding-3-small": ("openai/text-embedding-3-small", f"{aimock}/v1"),
    }
    return {
        "model_list": [
            {"model_name": name, "litellm_params": {"model": model, "api_base": base, "api_key": "key-of-nobody"}}
            for name, (model, base) in models.items()
        ],
        "litellm_settings": {"num_retries": 0, "request_timeout": 30, "telemetry": False},
        "router_settings": {"num_retries": 0, "disable_cooldowns": True},
        "general_settings": {"master_key": _KEY},
    }
