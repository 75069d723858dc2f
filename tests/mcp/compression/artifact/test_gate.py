"""A gate lets through what is known to be good enough, and nothing else."""

from __future__ import annotations

import math

import pytest
from tests.support.made_artifacts import BEFORE, manifest, measures, speed

from agentflow.errors import CompressionError, QualityGateError
from agentflow.mcp.compression.artifact.gate import Gate
from agentflow.mcp.compression.artifact.manifest import Manifest

RICH = measures(
    accuracy=0.9, agreement=0.92, cosine=0.98, spearman=0.97, task=0.8, perplexity=40.4, kl=0.02, top1=0.93, greedy=0.7
)
# limit → a value that passes it exactly, and the same limit a little too strict for RICH
LIMITS = {
    "perplexity_rise": (0.0101, 0.0099),
    "kl": (0.02, 0.0199),
    "top1": (0.93, 0.931),
    "greedy": (0.7, 0.71),
    "accuracy": (0.9, 0.91),
    "agreement": (0.92, 0.921),
    "cosine": (0.98, 0.981),
    "spearman": (0.97, 0.98),
    "task": (0.8, 0.81),
    "tokens_per_second": (300.0, 301.0),
    "time_to_first_token": (0.004, 0.0039),
    "cold_start": (0.22, 0.21),
    "resident_bytes": (90_000_000, 89_999_999),
    "bytes": (2_700_000, 2_699_999),
}


@pytest.mark.parametrize("name", LIMITS)
def test_each_limit_is_held_from_its_own_side(name: str) -> None:
    """What is just as good as the limit passes; what misses it by little does not."""
    passes, misses = LIMITS[name]
    one = manifest(after=(RICH,))
    assert Gate(**{name: passes}).failures(one) == ()
    assert [failure.split()[0] for failure in Gate(**{name: misses}).failures(one)] == [name]


@pytest.mark.parametrize("name", [each for each in LIMITS if each != "bytes"])
@pytest.mark.parametrize("after", [(), (measures(speed=None, perplexity=None, kl=None, top1=None, greedy=None),)])
def test_what_was_not_measured_misses_its_limit(name: str, after: tuple[object, ...]) -> None:
    [failure] = Gate(**{name: LIMITS[name][0]}).failures(manifest(after=after))
    assert failure == f"{name} was not measured"


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("kl", manifest(after=(measures(kl=math.nan),))),
        ("perplexity_rise", manifest(after=(measures(perplexity=math.nan),))),
        ("perplexity_rise", manifest(before=measures(perplexity=math.nan))),
        ("tokens_per_second", manifest(after=(measures(speed=speed(tokens_per_second=math.nan)),))),
    ],
)
def test_what_is_not_a_number_misses_its_limit(name: str, broken: Manifest) -> None:
    assert Gate(**{name: 0.5}).failures(broken) == (f"{name} is not a number",)


@pytest.mark.parametrize("before", [None, measures(perplexity=None), measures(perplexity=0.0)])
def test_a_rise_is_not_known_without_what_it_rose_from(before: object) -> None:
    assert Gate(perplexity_rise=9.0).failures(manifest(before=before)) == ("perplexity_rise was not measured",)


def test_infinite_perplexity_is_too_much(tmp_path: object) -> None:
    [failure] = Gate(perplexity_rise=0.01).failures(manifest(after=(measures(perplexity=math.inf),)))
    assert failure == "perplexity_rise inf is above 0.01"


def test_memory_that_the_system_does_not_tell_of_misses_its_limit() -> None:
    unknown = manifest(after=(measures(speed=speed(resident_bytes=None)),))
    assert Gate(resident_bytes=10**12).failures(unknown) == ("resident_bytes was not measured",)


def test_every_runtime_it_was_measured_in_must_pass_and_the_one_that_does_not_is_named() -> None:
    slow = measures(runtime="llama.cpp", speed=speed(tokens_per_second=5.0), kl=0.3)
    both = manifest(after=(measures(), slow))
    assert Gate(tokens_per_second=100.0, kl=0.1, bytes=1.0).failures(both) == (
        "bytes 2,700,000 is above 1",
        "kl 0.3 is above 0.1 in llama.cpp",
        "tokens_per_second 5 is below 100 in llama.cpp",
    )


def test_the_error_lists_each_limit_that_is_missed() -> None:
    gate = Gate(perplexity_rise=0.001, kl=0.001, top1=0.9, greedy=0.99, bytes=1)
    with pytest.raises(QualityGateError) as failure:
        gate.check(manifest())
    assert [words.split()[0] for words in failure.value.failures] == ["perplexity_rise", "kl", "greedy", "bytes"]
    assert str(failure.value).startswith("w4 is not let through: perplexity_rise 0.01 is above 0.001; kl 0.021 is")


def test_the_source_passes_the_strictest_gate_about_itself() -> None:
    Gate(perplexity_rise=0.0, kl=0.0, top1=1.0, greedy=1.0).check(manifest(after=(BEFORE,)))


def test_what_was_asked_and_found_is_written_into_the_manifest() -> None:
    judged = Gate(kl=0.001, top1=0.9).judged(manifest())
    assert judged.gate is not None
    assert judged.gate.limits == {"kl": 0.001, "top1": 0.9}
    assert judged.gate.failures == ("kl 0.021 is above 0.001",)
    assert Gate(kl=0.1).judged(manifest()).gate.failures == ()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({}, "without limits"),
        ({"kl": math.nan}, "from 0 on"),
        ({"kl": -0.1}, "from 0 on"),
        ({"bytes": math.inf}, "from 0 on"),
        ({"top1": 1.01}, "from 0 to 1"),
        ({"greedy": 95}, "from 0 to 1"),
    ],
)
def test_a_gate_that_asks_nothing_or_cannot_be_reached_is_refused(limits: dict[str, float], words: str) -> None:
    with pytest.raises(CompressionError, match=words):
        Gate(**limits)
