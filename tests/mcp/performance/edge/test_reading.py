"""Classifiers and models of vectors: exported ones in ONNX Runtime, and Hugging Face folders in the fallback."""

from __future__ import annotations

import asyncio
import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.support.edge_models import tiny_folder

from agentflow.errors import ArtifactError, BadRequestError, ModelError, ServerError, UnsupportedError
from agentflow.llm.messages import EmbeddingRequest, Message, Request, Tool
from agentflow.mcp.compression.export.encoder_card import EncoderCard
from agentflow.mcp.performance.edge.opening import open_embedder, open_labeller
from agentflow.mcp.performance.edge.passes import Passes
from agentflow.mcp.performance.edge.provider import EdgeProvider
from agentflow.mcp.performance.edge.tokenizer import EdgeTokenizer

LABELS = ("bug", "wish", "praise")
TABLE = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)


def encoder(folder: Path, task: str, **facts: object) -> Path:
    """A graph that adds up a number of each token: as small as an encoder can be."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    output = "logits" if task == "classify" else "embedding"
    shown = helper.make_node("Cast", ["attention_mask"], ["shown"], to=TensorProto.FLOAT)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["each"]),
        shown,
        helper.make_node("Unsqueeze", ["shown", "last"], ["wide"]),
        helper.make_node("Mul", ["each", "wide"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "middle"], [output], keepdims=0),
    ]
    tokens = [
        helper.make_tensor_value_info(n, TensorProto.INT64, ["rows", "n"]) for n in ("input_ids", "attention_mask")
    ]
    graph = helper.make_graph(
        nodes,
        "encoder",
        tokens,
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["rows", 3])],
        [
            numpy_helper.from_array(TABLE, "table"),
            numpy_helper.from_array(np.array([2]), "last"),
            numpy_helper.from_array(np.array([1]), "middle"),
        ],
    )
    folder.mkdir()
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(folder / "model.onnx"))
    shutil.copy(tiny_folder() / "tokenizer.json", folder)
    card = {"inputs": ("input_ids", "attention_mask"), "max_length": 16, "pad_token_id": 0, "output": output, **facts}
    if task == "classify":
        card.setdefault("labels", LABELS)
    else:
        card["dimensions"] = 3
    EncoderCard(task=task, **card).write(folder)  # type: ignore[arg-type]
    return folder


def sums(text: str) -> NDArray[np.float32]:
    return TABLE[EdgeTokenizer(tiny_folder()).encode(text)[:16]].sum(axis=0)


def ask(text: str, **wishes: object) -> Request:
    return Request("m", (Message("system", "Classify."), Message("user", text)), **wishes)  # type: ignore[arg-type]


async def test_a_classifier_answers_with_its_label_and_tells_how_sure_it_is(tmp_path: Path) -> None:
    provider = EdgeProvider(encoder(tmp_path / "m", "classify"), threads=1)
    texts = ["the tide", "rises", "the moon pulls the sea" * 3]
    for text, response in zip(texts, await asyncio.gather(*[provider.execute(ask(t)) for t in texts]), strict=True):
        scores = sums(text)
        [told] = response.logprobs
        assert response.text == told.token == LABELS[int(scores.argmax())]
        assert sum(math.exp(chance) for _, chance in told.alternatives) == pytest.approx(1)
        assert math.exp(told.logprob) == pytest.approx(float(1 / np.exp(scores - scores.max()).sum()))
        assert {label for label, _ in told.alternatives} == set(LABELS)
        assert response.cost == 0.0
    chunks = [chunk async for chunk in provider.execute_streaming(ask("rises"))]
    assert "".join(chunk.content for chunk in chunks) in LABELS
    assert await provider.count_tokens(ask("the tide")) == len(EdgeTokenizer(tiny_folder()).encode("the tide"))
    await provider.warm()
    await provider.aclose()


async def test_several_labels_may_hold_at_once(tmp_path: Path) -> None:
    provider = EdgeProvider(encoder(tmp_path / "m", "classify", multi_label=True), threads=1)
    for text in ("the tide", "sea", "moon moon"):
        response = await provider.execute(ask(text))
        assert (
            response.text.split("\n") == [n for n, s in zip(LABELS, sums(text), strict=True) if s > 0]
            or not response.text
        )
        for label, chance in response.logprobs[0].alternatives:
            assert math.exp(chance) == pytest.approx(1 / (1 + math.exp(-sums(text)[LABELS.index(label)])), rel=1e-4)
    await provider.aclose()


async def test_a_classifier_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    provider = EdgeProvider(encoder(tmp_path / "m", "classify"), threads=1)
    with pytest.raises(BadRequestError, match="empty"):
        await provider.execute(ask("  "))
    with pytest.raises(UnsupportedError, match="labels"):
        await provider.execute(ask("a", tools=(Tool("t"),)))
    with pytest.raises(UnsupportedError, match="classify"):
        await provider.embed(EmbeddingRequest("m", ("a",)))
    await provider.aclose()


async def test_vectors_are_those_of_each_text_alone(tmp_path: Path) -> None:
    provider = EdgeProvider(encoder(tmp_path / "m", "embed"), threads=1)
    texts = [f"{'the tide ' * (n % 9)}{n}" for n in range(80)]
    found = await asyncio.gather(*[provider.embed(EmbeddingRequest("m", tuple(texts[n::8]))) for n in range(8)])
    for n, embeddings in enumerate(found):
        for text, vector in zip(texts[n::8], embeddings.vectors, strict=True):
            assert vector == pytest.approx(sums(text), abs=1e-5)
    assert (await provider.embed(EmbeddingRequest("m", ()))).vectors == ()
    with pytest.raises(UnsupportedError, match="3 dimensions"):
        await provider.embed(EmbeddingRequest("m", ("a",), dimensions=2))
    with pytest.raises(UnsupportedError, match="embeddings"):
        await provider.execute(ask("a"))
    await provider.warm()
    await provider.aclose()
    with pytest.raises(ModelError, match="closed"):
        await provider.embed(EmbeddingRequest("m", ("a",)))


def test_a_text_that_is_too_long_is_cut_and_keeps_its_special_tokens(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, processors

    library = Tokenizer.from_file(str(tiny_folder() / "tokenizer.json"))
    library.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    library.save(str(tmp_path / "tokenizer.json"))
    tokenizer = EdgeTokenizer(tmp_path)
    whole = tokenizer.encode("the tide rises and the tide falls")
    assert tokenizer.encode_within("the tide rises and the tide falls", len(whole)) == whole
    assert tokenizer.encode_within("the tide rises and the tide falls", 6) == [*whole[:5], 1]


def test_the_fallback_runs_hugging_face_encoders(tmp_path: Path) -> None:
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=300, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32, id2label=dict(enumerate(LABELS)), label2id={n: i for i, n in enumerate(LABELS)},
        pad_token_id=0,
    )  # fmt: skip
    classifier = BertForSequenceClassification(config).eval()
    classifier.save_pretrained(tmp_path / "c")
    BertModel(config).save_pretrained(tmp_path / "e")
    (tmp_path / "e" / "modules.json").write_text('[{"type": "sentence_transformers.models.Normalize"}]')
    rows = [[5, 6, 7, 8], [9]]
    labeller, embedder = open_labeller(tmp_path / "c", threads=1), open_embedder(tmp_path / "e", threads=1)
    assert labeller.labels == LABELS
    with torch.no_grad():
        for row, scores in zip(rows, labeller.scores(rows), strict=True):
            assert scores == pytest.approx(classifier(input_ids=torch.tensor([row])).logits[0].numpy(), abs=1e-5)
    vectors = embedder.vectors(rows)
    assert vectors.shape == (2, embedder.dimensions)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1)
    assert vectors[1] == pytest.approx(embedder.vectors([[9]])[0], abs=1e-5)
    (tmp_path / "e" / "1_Pooling").mkdir()
    (tmp_path / "e" / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_weightedmean_tokens": True}))
    with pytest.raises(ArtifactError, match="weightedmean"):
        open_embedder(tmp_path / "e")


async def test_one_row_that_fails_fails_one_caller() -> None:
    calls: list[int] = []

    def run(rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        calls.append(len(rows))
        if any(row[0] == 13 for row in rows):
            raise ValueError("unlucky")
        return np.array([[row[0]] for row in rows], np.float32)

    passes = Passes(run, most=8)
    found = await asyncio.gather(*[passes.ask([[n]]) for n in range(20)], return_exceptions=True)
    assert isinstance(found[13], ServerError)
    assert [each[0, 0] for n, each in enumerate(found) if n != 13] == [n for n in range(20) if n != 13]  # type: ignore[index]
    assert max(calls) <= 8
    passes.close()
    with pytest.raises(ModelError, match="closed"):
        await passes.ask([[1]])


def test_an_encoder_of_another_task_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    folder = encoder(tmp_path / "m", "classify")
    with pytest.raises(ArtifactError, match="classify"):
        open_embedder(folder)
    (folder / "model.onnx").write_bytes(b"")
    with pytest.raises(ArtifactError):
        open_labeller(folder)
    (folder / "model.onnx").unlink()
    with pytest.raises(ArtifactError, match="missing"):
        open_labeller(folder)
