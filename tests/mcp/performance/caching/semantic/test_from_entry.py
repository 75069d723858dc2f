"""The semantic tier from models.yml: what a user writes, and what he is told where it cannot be."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tests.support.bench import Bench
from tests.support.event_schema import misfits

from agentflow.errors import ConfigurationError, MissingExtraError
from agentflow.llm.messages import Response
from agentflow.llm.providers.scripted import ScriptedProvider

TEXT = """
models:
  letters: {{provider: vectors, model_id: e}}
  sky: {{provider: toy, temperature: 0, cache: {{ttl: 60, file: cache.db, semantic: {semantic}}}}}
"""
WAYS = [
    "what is the colour of the sky",
    "the sky, what is its colour",
    "of what colour is the sky",
    "tell me the colour of the sky",
    "the colour of the sky is what",
    "is it known what the colour of the sky is",
    "so the colour of the sky, what is it",
]


def bench(folder: Path, semantic: str) -> Bench:
    providers = {
        "toy": ScriptedProvider(lambda request: "It is blue.", name="toy"),
        "vectors": ScriptedProvider([], name="vectors"),
    }
    return Bench(folder, providers, TEXT.format(semantic=semantic))


def test_an_embedding_model_of_the_registry_and_no_code(tmp_path: Path) -> None:
    made = bench(tmp_path, "{embedding: letters, delta: 0.4, audit: 0.001}")

    async def all_ways() -> list[Response]:
        answers = [await made.ask("sky", f"{hi} {way}").execute_full() for hi in ("hi", "hello", "hey") for way in WAYS]
        await made.registry.aclose()
        return answers

    answers = made.run_watched(all_ways)
    assert {answer.text for answer in answers} == {"It is blue."}
    assert answers[0].cache_hit is None
    assert (answers[-1].cache_hit, answers[-1].cost) == ("semantic", 0.0)
    reasons = [facts["reason"] for facts in made.of("cache_miss")]
    assert reasons[0] == "nothing_similar"
    assert "exploring" in reasons
    assert made.of("cache_hit")[-1]["tier"] == "semantic"
    assert misfits(made.events) == []


@pytest.mark.parametrize(
    ("semantic", "complaint"),
    [
        ("{delta: 0.1}", "say one of embedding and local_model"),
        ("{embedding: letters, local_model: x}", "say one of embedding and local_model"),
        ("{embedding: letters, delta: 1.5}", "delta"),
        ("{embedding: letters, alike: 0.9}", "say same: embedding"),
        ("{embedding: letters, vetoes: [colour]}", "there is no veto 'colour'"),
        ("{embedding: nobody}", "nobody"),
        ("{local_model: nowhere}", "no model.safetensors"),
    ],
)
def test_what_cannot_be_is_said(tmp_path: Path, semantic: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        made = bench(tmp_path, semantic)
        made.run(made.ask("sky").execute())


def test_without_numpy_the_message_is_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    from agentflow.mcp.performance.caching import semantic

    for name in [name for name in sys.modules if name.split(".")[0] == "numpy" or name.startswith(semantic.__name__)]:
        if name != semantic.__name__:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "numpy", None)
    monkeypatch.delitem(vars(semantic), "VerifiedTier", raising=False)
    with pytest.raises(MissingExtraError, match=r"pip install 'agentflow-engine\[learn\]'"):
        _ = semantic.VerifiedTier
