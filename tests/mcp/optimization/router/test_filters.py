"""Who may not answer: each filter by itself, as a table, and what it says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.routing import CHEAP, DEAR, PERSON, ask

from agentflow.core.limits import Ledger, Limits
from agentflow.errors import UnsupportedError
from agentflow.llm.config.capabilities import check
from agentflow.llm.config.model import ModelConfig
from agentflow.llm.config.schema import CAPABILITIES
from agentflow.llm.content import Audio, Document, Image, Text, ToolResult
from agentflow.llm.messages import Message, OutputFormat, Request, Thinking, Tool
from agentflow.mcp.optimization.router.demands import Demands, demands
from agentflow.mcp.optimization.router.filters import Excluded, Means, exclusion, means

PIXEL = "data:image/png;base64,AAAA"
TOOL = Tool("weather")


def excluded(
    config: ModelConfig,
    request: Request,
    *,
    residency: frozenset[str] | None = None,
    may: Means | None = None,
    healthy: bool = True,
    expected: float | None = 0.001,
) -> str | None:
    why = exclusion(config, demands(request, residency), may or Means(), healthy=healthy, expected=expected)
    return None if why is None else str(why)


def model(**facts: object) -> ModelConfig:
    return ModelConfig("small", "lab", "small-1", **facts)  # type: ignore[arg-type]


# ---- capability ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "lacking"),
    [
        (Request("auto", (Message("user", (Text(text="see"), Image(PIXEL))),)), "image"),
        (Request("auto", (Message("user", (Document(b"%PDF-1.4"),)),)), "document"),
        (Request("auto", (Message("user", (Audio(b"RIFF"),)),)), "audio"),
        (Request("auto", (Message("tool", (ToolResult("1", (Image(PIXEL),)),)),)), "image"),
        (ask(tools=(TOOL,)), "tools"),
        (ask(output=PERSON), "schema"),
        (ask(thinking=Thinking(effort="high")), "thinking"),
        (ask(thinking=Thinking(budget=100)), "thinking"),
    ],
)
def test_a_model_that_is_known_not_to_be_able_is_excluded(request_: Request, lacking: str) -> None:
    others = frozenset(each for each in CAPABILITIES if each not in (lacking, "embed"))
    assert excluded(model(capabilities=others), request_) == f"capability: it has no {lacking}"
    assert excluded(model(capabilities=others | {lacking}), request_) is None
    assert excluded(model(), request_) is None  # nobody knows, so nothing is checked


@pytest.mark.parametrize(
    "request_",
    [ask(), ask(thinking=Thinking(effort="none")), ask(thinking=Thinking(budget=0)), ask(output=OutputFormat("any"))],
)
def test_what_every_model_can_do_needs_no_ability(request_: Request) -> None:
    assert excluded(model(capabilities=frozenset()), request_) is None


def test_a_model_for_embeddings_answers_no_prompt() -> None:
    assert excluded(model(capabilities=frozenset({"embed"})), ask()) == "capability: it is a model for embeddings"


def _parts() -> st.SearchStrategy[object]:
    media = st.sampled_from([Image(PIXEL), Document(b"%PDF-1.4"), Audio(b"RIFF"), Text(text="words")])
    return st.one_of(media, media.map(lambda part: ToolResult("1", (part,))))


@given(
    st.lists(_parts(), max_size=3),
    st.sampled_from([(), (TOOL,)]),
    st.sampled_from([None, PERSON, OutputFormat("any")]),
    st.sampled_from([None, Thinking("none"), Thinking("low"), Thinking(budget=0), Thinking(show=True)]),
    st.frozensets(st.sampled_from(CAPABILITIES)),
    st.one_of(st.none(), st.integers(1, 100)),
)
def test_whoever_is_let_through_is_let_through_by_the_client_too(
    parts: list[object], tools: tuple[Tool, ...], output: object, thinking: object, can: frozenset[str], most: object
) -> None:
    """The filter agrees with the check that a model's own calls pass, so that no choice is refused afterwards."""
    content = tuple(parts) or "words"
    request = Request(
        "auto", (Message("user", content),), 0.5, max_tokens=50, tools=tools, output=output, thinking=thinking
    )  # type: ignore[arg-type]
    config = model(capabilities=can, max_output=most)
    try:
        check(request, config)
        refused = False
    except UnsupportedError:
        refused = True
    assert (excluded(config, request) is not None) == refused


# ---- context, residency, health ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "more", "why"),
    [
        ({"context": 1000}, {}, None),
        ({"context": 20}, {}, None),
        ({"context": 9}, {}, "context: about 9 tokens in a context of 9"),
        ({"context": 100}, {"max_tokens": 92}, "context: about 9 tokens and 92 for the answer in a context of 100"),
        ({"context": 101}, {"max_tokens": 92}, None),
        ({"context": 101, "max_tokens": 93}, {}, "context: about 9 tokens and 93 for the answer in a context of 101"),
        ({"max_output": 50}, {"max_tokens": 51}, "context: it answers with at most 50 tokens, asked for are 51"),
        ({"max_output": 50}, {"max_tokens": 50}, None),
    ],
)
def test_prompt_and_answer_have_room_in_the_context(
    facts: dict[str, int], more: dict[str, int], why: str | None
) -> None:
    assert demands(ask(**more)).input_tokens == 9
    assert excluded(model(**facts), ask(**more)) == why


def test_tools_and_schemas_are_part_of_the_prompt() -> None:
    tool = Tool("weather", "The weather in a city.", {"type": "object", "properties": {"city": {"type": "string"}}})
    plain, with_tool = demands(ask()), demands(ask(tools=(tool,)))
    assert with_tool.input_tokens > plain.input_tokens + 15
    assert demands(ask(output=PERSON)).input_tokens > plain.input_tokens + 20


@pytest.mark.parametrize(
    ("regions", "router", "call", "why"),
    [
        ((), None, None, None),
        (("us",), None, None, None),
        (("eu",), ("eu",), None, None),
        (("eu",), ("eu", "ch"), None, None),
        (("us",), ("eu",), None, "it may work in us, allowed is eu"),
        (("eu", "us"), ("eu",), None, "it may work in us, allowed is eu"),
        ((), ("eu",), None, "nobody says where it works (`regions` of its entry)"),
        (("eu",), None, "eu", None),
        (("us",), None, "eu, ch", "it may work in us, allowed is ch, eu"),
        (("ch",), ("eu", "ch"), "eu", "it may work in ch, allowed is eu"),
        (("eu",), ("eu",), "eu,us", None),
        (("us",), ("eu",), "us", "it may work in us, allowed is nowhere"),
        (("eu",), None, "", "it may work in eu, allowed is nowhere"),
    ],
)
def test_residency_is_kept_and_a_call_can_only_narrow_it(
    regions: tuple[str, ...], router: tuple[str, ...] | None, call: str | None, why: str | None
) -> None:
    request = ask(metadata={} if call is None else {"residency": call})
    found = excluded(model(regions=regions), request, residency=None if router is None else frozenset(router))
    assert found == (None if why is None else f"residency: {why}")


def test_an_open_breaker_excludes_for_now() -> None:
    why = exclusion(model(), Demands(), Means(), healthy=False, expected=None)
    assert why == Excluded("health", "its circuit breaker is open", unwell=True)


# ---- budget --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "expected", "why"),
    [
        (None, None, None),
        (1.0, 0.5, None),
        (0.5, 0.5, None),
        (0.4, 0.5, "budget: it would cost about $0.5, and $0.4 is left"),
        (-0.1, 0.0001, "budget: it would cost about $0.0001, and $0 is left"),
        (1.0, None, "budget: its price is unknown, and there is a limit in dollars"),
    ],
)
def test_what_is_left_is_not_overspent(left: float | None, expected: float | None, why: str | None) -> None:
    assert excluded(model(price=CHEAP), ask(), may=Means(left=left), expected=expected) == why


@pytest.mark.parametrize(
    ("facts", "more", "why"),
    [
        ({"price": CHEAP}, {"max_tokens": 1000}, None),
        ({"price": DEAR}, {"max_tokens": 1000}, "budget: it may cost $0.008018, and a call at most $0.005"),
        ({"price": DEAR, "max_tokens": 100}, {}, None),
        ({"price": DEAR, "max_output": 1000}, {}, "budget: it may cost $0.008018, and a call at most $0.005"),
        ({"price": CHEAP}, {}, "budget: nobody can say what it costs at most: state its price, and max_tokens"),
        ({}, {"max_tokens": 10}, "budget: nobody can say what it costs at most: state its price, and max_tokens"),
    ],
)
def test_a_call_costs_no_more_than_it_may(facts: dict[str, object], more: dict[str, int], why: str | None) -> None:
    assert excluded(model(**facts), ask(**more), may=Means(per_call=0.005)) == why


def test_the_narrowest_ledger_counts() -> None:
    spent = Ledger(Limits(dollars=1.0))
    spent.spend(100, 0.7)
    assert means(None, [Ledger(Limits(dollars=0.5)), spent, Ledger(Limits(tokens=10))]).left == pytest.approx(0.3)
    assert means(0.1, [Ledger(Limits(tokens=10))]) == Means(0.1, None)


def test_the_first_filter_that_applies_is_the_reason() -> None:
    config = model(capabilities=frozenset(), context=1)
    assert excluded(config, ask(tools=(TOOL,)), healthy=False) == "capability: it has no tools"
    assert excluded(config, ask(), healthy=False) == "context: about 9 tokens in a context of 1"
