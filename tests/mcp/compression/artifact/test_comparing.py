"""Which artifact is better, in what, and when that cannot be said."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.made_artifacts import MACHINE, SOURCE, manifest, measures, speed

from agentflow.errors import CompressionError
from agentflow.mcp.compression.artifact import Artifact, compare
from agentflow.mcp.compression.artifact.comparing import bits_of
from agentflow.mcp.compression.artifact.manifest import GateRecord, Manifest


def _artifact(name: str, **changes: object) -> Artifact:
    return Artifact(Path(name), manifest(name=name, **changes))


def _of(name: str, size: int, kl: float, rate: float) -> Artifact:
    return _artifact(name, bytes=size, after=(measures(kl=kl, speed=speed(tokens_per_second=rate)),))


SMALL, GOOD = _of("small", 10, 0.5, 50), _of("good", 90, 0.0, 20)
FAST, BEATEN = _of("fast", 50, 0.3, 99), _of("beaten", 60, 0.4, 50)


def test_the_front_holds_what_nobody_beats_in_size_quality_and_speed_at_once() -> None:
    found = compare([SMALL, GOOD, FAST, BEATEN])
    assert [found.rows[index].name for index in found.front] == ["small", "good", "fast"]
    assert found.quality is not None
    assert found.quality.name == "kl"
    assert found.speed is not None
    assert (found.best("bytes"), found.best("kl"), found.best("tokens_per_second")) == ((0,), (1,), (2,))
    assert found.best("perplexity") == ()  # all alike


@given(
    st.lists(st.tuples(st.integers(1, 3), st.sampled_from([0.0, 0.1, 0.2]), st.integers(1, 3)), min_size=1, max_size=6)
)
@settings(max_examples=60)
def test_the_front_is_never_empty_and_what_is_not_on_it_is_beaten_by_something_on_it(
    triples: list[tuple[int, float, int]],
) -> None:
    front = compare([_of(str(number), *triple) for number, triple in enumerate(triples)]).front
    assert front
    for index, (size, kl, rate) in enumerate(triples):
        beaten = any(
            triples[other][0] <= size and triples[other][1] <= kl and triples[other][2] >= rate
            and triples[other] != (size, kl, rate)
            for other in front
        )  # fmt: skip
        assert (index in front) != beaten


def test_an_artifact_has_a_row_for_each_runtime_that_it_was_measured_in() -> None:
    both = (measures(), measures(runtime="onnxruntime-genai"))
    rows = compare([_artifact("a", after=both), _artifact("b", after=())]).rows
    assert [(row.name, row.runtime) for row in rows] == [("a", "onnxruntime"), ("a", "onnxruntime-genai"), ("b", "")]


def test_what_was_not_measured_for_all_takes_no_part_in_the_front() -> None:
    found = compare([_artifact("a", after=(measures(kl=None, speed=None),)), _artifact("b")])
    assert found.quality is not None
    assert found.quality.name == "perplexity_rise"
    assert found.speed is None
    nothing = compare([_artifact("a", after=()), _artifact("b", after=(), bytes=1)])
    assert (nothing.quality, nothing.speed, nothing.front) == (None, None, (1,))


def test_names_that_are_the_same_are_told_apart_by_their_folders() -> None:
    one, other = _artifact("w4"), Artifact(Path("elsewhere"), manifest(name="w4"))
    assert [row.name for row in compare([one, other]).rows] == ["w4 (w4)", "w4 (elsewhere)"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"source": msgspec.structs.replace(SOURCE, sha256="6" * 64)}, "not made from the same source"),
        ({"source": msgspec.structs.replace(SOURCE, data_sha256="6" * 64)}, "not measured with the same texts"),
        ({"machine": {**MACHINE, "processor": "Another"}}, "not measured on the same processor"),
        ({"after": (measures(speed=speed(threads=1)),)}, "not measured with as many threads"),
    ],
)
def test_what_cannot_be_compared_is_said(changes: dict[str, object], words: str) -> None:
    [note] = compare([_artifact("a"), _artifact("b", **changes)]).notes
    assert words in note


def test_the_source_stands_beside_them_where_they_have_the_same() -> None:
    source = compare([_artifact("a"), _artifact("b")]).source
    assert source is not None
    assert (source.name, source.values["bytes"], source.values["bits"]) == ("teacher", 13_440_000, 32.0)
    other = msgspec.structs.replace(SOURCE, sha256="6" * 64)
    assert compare([_artifact("a"), _artifact("b", source=other)]).source is None
    assert compare([_artifact("a", before=None)]).source is None


def test_gates_are_told() -> None:
    records = (None, GateRecord(limits={"kl": 1.0}), GateRecord(limits={"kl": 0.0}, failures=("kl 1 is above 0",)))
    rows = compare([_artifact(str(number), gate=record) for number, record in enumerate(records)]).rows
    assert [row.passed for row in rows] == [None, True, False]


def test_bits_a_weight_are_those_found_in_the_file_and_large_tensors_count_for_more() -> None:
    expected = (2048 * 256 * 32 + 256 * 256 * 4.25) / (2048 * 256 + 256 * 256)
    assert bits_of(manifest()) == pytest.approx(expected)
    assert bits_of(manifest(tensors=())) is None


def test_different_tasks_and_nothing_are_refused() -> None:
    other: Manifest = msgspec.structs.replace(manifest(), task="embed")
    with pytest.raises(CompressionError, match="embed and generate cannot be compared"):
        compare([_artifact("a"), Artifact(Path("b"), other)])
    with pytest.raises(CompressionError, match="nothing to compare"):
        compare([])
