"""The manifest: what is written is read again, and what was changed on the way is found."""

from __future__ import annotations

import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.made_artifacts import manifest, measures, speed

from agentflow.errors import ArtifactError
from agentflow.mcp.compression.artifact.manifest import (
    FileFacts,
    GateRecord,
    Manifest,
    Measures,
    Source,
    Speed,
    StageRecord,
    TensorRecord,
)

NUMBER = st.floats(allow_nan=False, allow_infinity=False)
COUNT = st.integers(0, 2**53)
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
PLAIN: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
FACTS = st.dictionaries(TEXT, PLAIN, max_size=4)
SPEED = st.builds(
    Speed,
    tokens_per_second=NUMBER,
    time_to_first_token=NUMBER,
    cold_start=NUMBER,
    resident_bytes=st.none() | COUNT,
    prompt_tokens=COUNT,
    output_tokens=COUNT,
    repeats=COUNT,
    threads=st.none() | COUNT,
)
MAYBE = st.none() | NUMBER
MEASURES = st.builds(
    Measures,
    runtime=TEXT,
    runtime_version=TEXT,
    tokens=COUNT,
    perplexity=MAYBE,
    kl=MAYBE,
    top1=MAYBE,
    greedy=MAYBE,
    cosine=MAYBE,
    task=MAYBE,
    task_name=st.none() | TEXT,
    speed=st.none() | SPEED,
)
MANIFESTS = st.builds(
    Manifest,
    name=TEXT,
    task=st.sampled_from(["generate", "classify", "embed"]),
    format=TEXT,
    source=st.builds(
        Source, name=TEXT, sha256=TEXT, architecture=TEXT, parameters=COUNT, bytes=COUNT, licence=st.none() | TEXT
    ),
    recipe=st.lists(
        st.builds(
            StageRecord, kind=TEXT, settings=FACTS, seconds=NUMBER, parameters=COUNT, facts=FACTS,
            notes=st.lists(TEXT, max_size=2).map(tuple),
        ),
        max_size=3,
    ).map(tuple),
    recipe_sha256=TEXT,
    files=st.lists(st.builds(FileFacts, path=TEXT, bytes=COUNT, sha256=TEXT), max_size=3).map(tuple),
    tensors=st.lists(
        st.builds(
            TensorRecord, name=TEXT, shape=st.lists(COUNT, max_size=3).map(tuple), type=TEXT, bits=NUMBER,
            stored_bits=NUMBER, sparsity=NUMBER,
        ),
        max_size=3,
    ).map(tuple),
    parameters=COUNT,
    bytes=COUNT,
    before=st.none() | MEASURES,
    after=st.lists(MEASURES, max_size=2).map(tuple),
    loaded_by=st.dictionaries(TEXT, TEXT, max_size=2),
    labels=st.lists(TEXT, max_size=3).map(tuple),
    machine=FACTS,
    gate=st.none() | st.builds(
        GateRecord, limits=st.dictionaries(TEXT, NUMBER, max_size=3), failures=st.lists(TEXT, max_size=2).map(tuple)
    ),
    created=TEXT,
)  # fmt: skip


@given(MANIFESTS)
@settings(max_examples=25)
def test_what_is_written_is_read_again(one: Manifest) -> None:
    with TemporaryDirectory() as folder:
        one.write(folder)
        assert Manifest.read(folder) == one


@given(st.integers(0, 10**9), st.integers(0, 7))
@settings(max_examples=100)
def test_a_flipped_bit_in_the_manifest_is_found(place: int, bit: int) -> None:
    """Wherever it is: in a number, a name, a space, the checksum itself."""
    with TemporaryDirectory() as folder:
        manifest().write(folder)
        path = Path(folder) / "manifest.json"
        text = bytearray(path.read_bytes())
        text[place % len(text)] ^= 1 << bit
        path.write_bytes(text)
        with pytest.raises(ArtifactError, match=r"manifest\.json|of version"):
            Manifest.read(folder)


@pytest.mark.parametrize("kept", [0, 1, 100, -1, -2, -70])
def test_a_manifest_that_was_cut_off_is_found(kept: int, tmp_path: Path) -> None:
    manifest().write(tmp_path)
    path = tmp_path / "manifest.json"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ArtifactError, match=r"manifest\.json"):
        Manifest.read(tmp_path)


def test_a_manifest_of_a_newer_version_is_refused_by_its_version_even_if_its_fields_are_others(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"version": 99, "name": ["no", "text"]}', encoding="utf-8")
    with pytest.raises(ArtifactError, match="it is of version 99, and this package knows 1"):
        Manifest.read(tmp_path)


def test_a_folder_without_one_says_so(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"it has no manifest\.json"):
        Manifest.read(tmp_path)


def test_a_speed_that_is_not_a_number_is_refused_when_it_is_written(tmp_path: Path) -> None:
    """JSON has no NaN; a manifest that nobody can read again must not be left behind."""
    wrong = manifest(after=(measures(speed=speed(tokens_per_second=math.nan)),))
    with pytest.raises(ArtifactError, match="cannot be written"):
        wrong.write(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_no_text_is_refused_when_it_is_written(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot be written"):
        msgspec.structs.replace(manifest(), name="\ud800").write(tmp_path)


def test_a_measure_that_is_not_a_number_is_none_when_it_is_read(tmp_path: Path) -> None:
    """So that a gate finds it missing, and refuses it."""
    manifest(after=(measures(kl=math.nan),)).write(tmp_path)
    assert Manifest.read(tmp_path).after[0].kl is None
