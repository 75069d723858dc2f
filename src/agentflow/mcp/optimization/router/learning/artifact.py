"""A policy on disk: numbers in one .npz, everything else in a manifest of JSON beside it. No pickle, no text, no code.

    policies/support/
        manifest.json    version, models, objective, verdict, calibrations, what it was learned from, SHA-256 of:
        arrays.npz       vocabulary hashes, weights, vectors, forecasts and outcomes of validation

    save_policy(policy, "policies/support")
    policy = load_policy("policies/support")          the same forecasts to the bit

A manifest of another version, or one whose arrays have another hash, is refused. What an embedder computes is not in
the file: whoever trained with one loads with the same one.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from agentflow.errors import ConfigurationError, describe
from agentflow.mcp.optimization.router.learning.calibration import Calibration
from agentflow.mcp.optimization.router.learning.curve import Aim
from agentflow.mcp.optimization.router.learning.experience import Validated
from agentflow.mcp.optimization.router.learning.gate import Verdict
from agentflow.mcp.optimization.router.learning.hull_policy import HullPolicy
from agentflow.mcp.optimization.router.learning.knowledge import Blend, Head, Knowledge, Neighbours
from agentflow.mcp.optimization.router.learning.learned import LearnedPolicy
from agentflow.mcp.optimization.router.learning.lengths import Lengths
from agentflow.mcp.optimization.router.learning.policy import Objective
from agentflow.mcp.optimization.router.learning.space import Embedder, TextSpace

__all__ = ["VERSION", "load_policy", "read_manifest", "save_policy"]

VERSION: Final = 1
_FORMAT: Final = "agentflow-router-policy"
_MANIFEST: Final = "manifest.json"
_ARRAYS: Final = "arrays.npz"

Arrays = dict[str, NDArray[Any]]


def save_policy(
    policy: LearnedPolicy, folder: str | os.PathLike[str], *, evaluation: Mapping[str, object] | None = None
) -> Path:
    """Writes both files, the manifest last: a folder without one holds no policy. `evaluation` is kept as it is."""
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    packed = io.BytesIO()
    np.savez_compressed(packed, allow_pickle=False, **_arrays(policy))
    _replace(place / _ARRAYS, packed.getvalue())
    facts = {**_facts(policy), "arrays": hashlib.sha256(packed.getvalue()).hexdigest(), "evaluation": evaluation or {}}
    _replace(place / _MANIFEST, json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=True).encode() + b"\n")
    return place


def _replace(path: Path, data: bytes) -> None:
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.write_bytes(data)
    fresh.replace(path)


def read_manifest(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """What the manifest says. Raises ConfigurationError where there is none that this version reads."""
    path = Path(folder) / _MANIFEST
    try:
        facts = json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(
            f"{folder} holds no router policy ({_MANIFEST}: {error.strerror}): `agentflow router train` writes one"
        ) from error
    except ValueError as error:
        raise ConfigurationError(f"{path} is no manifest of a router policy: {error}") from error
    if not isinstance(facts, dict) or facts.get("format") != _FORMAT:
        raise ConfigurationError(f"{path} is no manifest of a router policy")
    if facts.get("version") != VERSION:
        raise ConfigurationError(
            f"{path} has version {facts.get('version')!r}, and this AgentFlow reads {VERSION}: train the policy anew"
        )
    return facts


def load_policy(folder: str | os.PathLike[str], *, embed: Embedder | None = None) -> LearnedPolicy:
    """Raises ConfigurationError for a folder without a policy, damaged arrays, or an embedder too many or too few."""
    facts = read_manifest(folder)
    if facts.get("embedded", False) != (embed is not None):
        wanted = "the embedder it was trained with" if facts.get("embedded") else "no embedder"
        raise ConfigurationError(f"the router policy {folder} needs {wanted}")
    try:
        data = (Path(folder) / _ARRAYS).read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"the arrays of the router policy {folder} cannot be read: {error.strerror}"
        ) from error
    if hashlib.sha256(data).hexdigest() != facts.get("arrays"):
        raise ConfigurationError(f"the arrays of the router policy {folder} are not those of its manifest")
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return _policy(facts, dict(arrays), embed)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ConfigurationError(
            f"the router policy {folder} lacks something, or is damaged ({describe(error)}): train it anew"
        ) from error


# ---- to files --------------------------------------------------------------------------------------------------


def _arrays(policy: LearnedPolicy) -> Arrays:
    known, seen = policy.knowledge, policy.validated
    space = known.space
    return {
        **{f"space.{name}": getattr(space, name) for name in _SPACE},
        **{f"{head}.{name}": getattr(getattr(known, head), name) for head in _HEADS for name in ("weights", "bias")},
        **{f"neighbours.{name}": getattr(known.neighbours, name) for name in _NEIGHBOURS},
        **{f"{kind}.{name}": getattr(getattr(known, kind), name) for kind in _AMOUNTS for name in _LENGTHS},
        **{f"validated.{name}": getattr(seen, name) for name in _VALIDATED},
        "base": known.base,
        **{f"blend.{name}": getattr(known.blend, name) for name in ("common", "apart", "axes")},
    }


_SPACE: Final = ("ids", "idf", "basis", "centre", "scale", "least", "most")
_HEADS: Final = ("words", "shape", "place")
_NEIGHBOURS: Final = ("vectors", "gains", "known")
_AMOUNTS: Final = ("tokens", "costs")
_LENGTHS: Final = ("weights", "smear", "high", "mean", "most")
_VALIDATED: Final = (
    "forecast", "quality", "tokens", "said_tokens", "costs", "said_costs", "input_tokens", "blocks",
)  # fmt: skip


def _facts(policy: LearnedPolicy) -> dict[str, object]:
    known, objective = policy.knowledge, policy.objective
    return {
        "format": _FORMAT,
        "version": VERSION,
        "models": list(policy.models),
        "source": policy.source,
        "embedded": known.space.embed is not None,
        "rows": len(policy.validated.forecast),
        "objective": {name: getattr(objective, name) for name in ("quality_floor", "budget_usd", "value_usd")},
        "aim": {name: getattr(policy.aim, name) for name in ("low", "high", "share", "cost", "quality")},
        "verdict": {name: getattr(policy.verdict, name) for name in _VERDICT},
        "hull": {
            "quality": list(policy.hull.quality),
            "cost": list(policy.hull.cost),
            "tokens": [list(pair) for pair in policy.hull.tokens],
        },
        "calibrations": [
            {"kind": each.kind, "offset": each.offset, "slope": each.slope, "xs": list(each.xs), "ys": list(each.ys)}
            for each in known.calibrations
        ],
        "neighbours": known.neighbours.count,
        "least_alike": known.least_alike,
        "scales": {"tokens": known.tokens.scale, "costs": known.costs.scale},
        "explored": policy.validated.explored,
    }


_VERDICT: Final = ("deployed", "gain", "gain_bound", "area", "area_bound", "confidence", "reason")


# ---- from files ------------------------------------------------------------------------------------------------


def _policy(facts: dict[str, Any], arrays: Arrays, embed: Embedder | None) -> LearnedPolicy:
    models = tuple(facts["models"])
    objective = Objective(**facts["objective"])
    hull = HullPolicy(
        models,
        tuple(facts["hull"]["quality"]),
        tuple(facts["hull"]["cost"]),
        tuple((each[0], each[1]) for each in facts["hull"]["tokens"]),
        objective,
    )
    return LearnedPolicy(
        _knowledge(facts, models, arrays, embed),
        Validated(**_of(arrays, "validated"), explored=facts["explored"]),
        hull,
        objective,
        Aim(**facts["aim"]),
        Verdict(**facts["verdict"]),
        facts["source"],
    )


def _knowledge(facts: dict[str, Any], models: tuple[str, ...], arrays: Arrays, embed: Embedder | None) -> Knowledge:
    return Knowledge(
        models,
        TextSpace(**_of(arrays, "space"), embed=embed),
        arrays["base"],
        Head(**_of(arrays, "words")),
        Head(**_of(arrays, "shape")),
        Head(**_of(arrays, "place")),
        Neighbours(**_of(arrays, "neighbours"), count=facts["neighbours"]),
        Blend(**_of(arrays, "blend")),
        tuple(
            Calibration(each["kind"], each["offset"], each["slope"], tuple(each["xs"]), tuple(each["ys"]))
            for each in facts["calibrations"]
        ),
        facts["least_alike"],
        Lengths(**_of(arrays, "tokens"), scale=facts["scales"]["tokens"]),
        Lengths(**_of(arrays, "costs"), scale=facts["scales"]["costs"]),
    )


def _of(arrays: Arrays, part: str) -> dict[str, Any]:
    return {name.partition(".")[2]: values for name, values in arrays.items() if name.partition(".")[0] == part}
