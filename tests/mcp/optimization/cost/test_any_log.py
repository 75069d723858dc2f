"""Whatever a log holds, it gets findings, a page and a patch that loads."""

from __future__ import annotations

import math

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentflow.llm.config.loader import read_layer
from agentflow.mcp.optimization.cost import Call, CostOptimizer, UsageLog
from agentflow.mcp.optimization.cost.page import page_of
from agentflow.mcp.optimization.cost.patch import patch_of

TEXTS = st.sampled_from(["", "a", "b/c", "# no: comment", '"', "\u2028", "\ud800", "ключ: {}", "*", "a" * 300])
TOKENS = st.integers(0, 300_000)


@st.composite
def calls(draw: st.DrawFn) -> list[Call]:
    """A few shapes of calls, each made some dozens of times, so that proposals have something to go by."""
    shapes = draw(
        st.lists(
            st.fixed_dictionaries(
                {"model": st.sampled_from(["gpt-4o", "gpt-4o-mini", "claude-sonnet-4-5", "own", "", "x: y"])},
                optional={
                    "provider": st.sampled_from(["openai", "anthropic", "", "nobody"]),
                    "run": TEXTS, "tenant": TEXTS, "flow": TEXTS, "step": TEXTS, "input_tokens": TOKENS,
                    "output_tokens": TOKENS, "cached_tokens": TOKENS, "cost": st.sampled_from([0.0, 1e-9, 0.5, 1e6]),
                    "failed": st.booleans(), "finish_reason": st.sampled_from(["stop", "length", "other"]),
                    "temperature": st.sampled_from([0.0, 1.0]), "max_tokens": st.integers(1, 10**6),
                    "fingerprint": TEXTS, "prefix": TEXTS, "prefix_tokens": TOKENS, "slack": st.floats(0, 1e7),
                    "embedding": st.sampled_from([(), (0.0, 0.0), (1.0, 2.0), (1.0,)]), "context": TEXTS,
                    "score": st.sampled_from([0.0, 0.5, 1.0]), "propensity": st.sampled_from([0.0, 0.01, 1.0]),
                    "duration": st.floats(0, 1e5),
                },
            ),
            max_size=5,
        )
    )  # fmt: skip
    many, step = draw(st.integers(1, 60)), draw(st.sampled_from([0.0, 1e-6, 60.0, 1e6]))
    alone = draw(st.booleans())
    made = []
    for number in range(many):
        for shape in shapes:
            facts = {**shape, **({"run": f"{shape.get('run', '')}{number}"} if alone else {})}
            made.append(Call(at=1e9 + number * step, **facts))
    return made


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(calls())
def test_it_is_looked_at_without_a_fault(made: list[Call]) -> None:
    found = CostOptimizer(UsageLog(made, source="\ud800#\n")).propose(patient=["b*"], cache_all=True)
    for proposal in found.proposals:
        amounts = [proposal.saves.value, proposal.saves.low, proposal.saves.high]
        assert all(math.isfinite(amount) for amount in amounts if amount is not None), proposal.title
        assert proposal.means != "spent" or proposal.saves.value <= found.a_day * (1 + 1e-9)
    if found.together is not None:
        assert found.together.value <= found.a_day * (1 + 1e-9)
    page = page_of(found)
    page.encode()
    patch = patch_of(found)
    patch.encode()
    read_layer("patch.yml", patch)
