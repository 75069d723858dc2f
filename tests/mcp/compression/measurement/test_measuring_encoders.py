"""Real classifiers and embedding models, beside the ones they were made from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BertModel

from agentflow.errors import ArtifactError, CompressionError
from agentflow.mcp.compression.artifact.manifest import Speed
from agentflow.mcp.compression.measurement import measure_classifier, measure_embedder, measuring
from agentflow.mcp.compression.measurement.speed import SpeedPlan, Trial

CONFIG = {
    "vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 32, "num_labels": 3,
}  # fmt: skip
ROWS = [[2, *np.random.default_rng(seed).integers(5, 60, 4 + seed % 5).tolist(), 3] for seed in range(24)]
SPEED = Speed(
    tokens_per_second=1.0, time_to_first_token=1.0, cold_start=1.0, resident_bytes=1, prompt_tokens=1, output_tokens=0
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """How speeds would have been measured; test_speed.py does it in earnest."""
    found: list[dict[str, object]] = []

    def play(folder: Path, **order: object) -> Trial:
        found.append(order)
        return Trial(runtime="transformers", runtime_version="5", tokens=(), speed=SPEED)

    monkeypatch.setattr(measuring, "try_out", play)
    return found


def _saved(kind: type, folder: Path, noise: float) -> Path:
    torch.manual_seed(0)
    model = kind(BertConfig(**CONFIG)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(8).add_(torch.randn_like(weight) * noise)
    model.save_pretrained(folder)
    return folder


def _labels(folder: Path) -> np.ndarray:
    model = BertForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        return np.array([int(model(torch.tensor([row])).logits[0].argmax()) for row in ROWS])


def test_a_classifier_s_accuracy_and_agreement_are_those_of_its_labels(tmp_path: Path, asked: list[object]) -> None:
    source = _saved(BertForSequenceClassification, tmp_path / "source", 0.0)
    worse = _saved(BertForSequenceClassification, tmp_path / "worse", 0.6)
    said, teacher = _labels(worse), _labels(source)
    truth = np.arange(len(ROWS)) % 3
    found = measure_classifier(worse, ROWS, expected=truth, reference=teacher, kind="transformers")
    assert found.accuracy == pytest.approx((said == truth).mean())
    assert found.agreement == pytest.approx((said == teacher).mean())
    assert 0 < found.agreement < 1
    assert (found.texts, found.runtime, found.speed) == (len(ROWS), "transformers", SPEED)
    assert measure_classifier(source, ROWS, reference=teacher, kind="transformers").agreement == 1.0
    [order, _] = asked
    assert (order["task"], len(order["prompt"])) == ("classify", 8)  # type: ignore[index] # of middling length


def test_an_embedding_model_keeps_its_vectors_and_their_order_or_does_not(tmp_path: Path, asked: list[object]) -> None:
    from agentflow.mcp.compression.measurement import vectors_said
    from agentflow.mcp.performance.edge.opening import open_embedder

    source = _saved(BertModel, tmp_path / "source", 0.0)
    vectors = vectors_said(open_embedder(source), ROWS)
    same = measure_embedder(source, ROWS, reference=vectors)
    assert (same.cosine, same.spearman) == pytest.approx((1.0, 1.0))
    worse = measure_embedder(_saved(BertModel, tmp_path / "worse", 0.4), ROWS, reference=vectors)
    assert worse.cosine is not None
    assert worse.spearman is not None
    assert worse.cosine < 0.9999
    assert worse.spearman < 0.9999
    assert asked[0]["task"] == "embed"  # type: ignore[index]


def test_labels_for_other_texts_are_an_error_of_that_artifact(tmp_path: Path, asked: list[object]) -> None:
    folder = _saved(BertForSequenceClassification, tmp_path / "source", 0.0)
    with pytest.raises(ArtifactError, match=r"\(24,\) were said and \(7,\) are expected"):
        measure_classifier(folder, ROWS, expected=np.zeros(7, np.int64), plan=SpeedPlan())
    with pytest.raises(CompressionError, match="no texts"):
        measure_classifier(folder, [])
