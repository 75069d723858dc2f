"""Whether an answer is good enough: each signal by itself."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.routing import PERSON, answer, ask

from agentflow.errors import ConfigurationError
from agentflow.llm.content import Text, ToolCall
from agentflow.llm.messages import OutputFormat, Request, Response, TokenLogprob, Tool
from agentflow.llm.output.output_type import OutputType
from agentflow.mcp.optimization.router.judge import Accept

TOOL = Tool("weather", "", {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]})


def sure(*logprobs: float, next_best: float | None = None) -> Response:
    others = () if next_best is None else (("other", next_best),)
    return answer("words", logprobs=tuple(TokenLogprob("w", each, (("w", each), *others)) for each in logprobs))


def calling(**arguments: Any) -> Response:
    return Response((ToolCall("1", "weather", arguments),), "m", "p", finish_reason="tool_calls")


CASES: list[tuple[Accept, Request, Response, str | None]] = [
    (Accept(), ask(), answer("fine"), None),
    (Accept(), ask(), Response("", "m", "p", finish_reason="stop"), "it says nothing"),
    (Accept(), ask(), Response("half a", "m", "p", finish_reason="length"), "it ended with length"),
    (Accept(), ask(), Response("", "m", "p", finish_reason="content_filter"), "it ended with content_filter"),
    (Accept(finish=False), ask(), Response("half a", "m", "p", finish_reason="length"), None),
    (Accept(), ask(output=PERSON), answer('{"age": 36}'), None),
    (Accept(), ask(output=PERSON), answer('Here it is:\n```json\n{"age": 36}\n```'), None),
    (Accept(), ask(output=PERSON), answer('{"age": "old"}'), "it does not fit Person: $.age: it is no integer"),
    (Accept(), ask(output=PERSON), answer('{"age": 3'), "it is no JSON of Person"),
    (Accept(), ask(output=PERSON), answer("about 36"), "it is no JSON of Person"),
    (Accept(), ask(output=PERSON), answer("[36]"), "it does not fit Person: $: it is no object"),
    (Accept(schema=False), ask(output=PERSON), answer("about 36"), None),
    (Accept(), ask(output=OutputFormat("any")), answer("{}"), None),
    (Accept(), ask(output=OutputFormat("any")), answer("[]"), "it does not fit any: $: it is no object"),
    (Accept(), ask(output=OutputType.of(int).format), answer("36"), None),
    (Accept(), ask(output=OutputType.of(int).format), answer('{"value": 36}'), None),
    (Accept(), ask(tools=(TOOL,)), calling(city="Oslo"), None),
    (Accept(), ask(tools=(TOOL,)), calling(town="Oslo"), "it calls weather with what does not fit: $: it lacks 'city'"),
    (Accept(), ask(tools=(TOOL,)), answer("It rains."), None),
    (Accept(), ask(tools=(TOOL,), tool_choice="required"), answer("It rains."), "it calls no tool, and had to"),
    (Accept(), ask(tools=(TOOL,), tool_choice="weather"), answer("It rains."), "it calls no tool, and had to"),
    (Accept(), ask(tools=(TOOL,), tool_choice="weather"), answer('{"city": "Oslo"}'), None),
    (Accept(mean_logprob=-0.5), ask(), sure(-0.1, -0.2), None),
    (Accept(mean_logprob=-0.5), ask(), sure(-0.1, -2.0), "its mean log-probability is -1.050, below -0.5"),
    (Accept(min_logprob=-1), ask(), sure(-0.1, -2.0), "its least log-probability is -2.000, below -1"),
    (Accept(min_margin=1.0), ask(), sure(-0.1, next_best=-3.0), None),
    (Accept(min_margin=1.0), ask(), sure(-0.6, next_best=-0.9), "its least margin is 0.300"),
    (Accept(mean_logprob=-0.5), ask(), answer("words"), "it has no log-probabilities"),
    (
        Accept(min_margin=1.0),
        ask(),
        answer("w", logprobs=(TokenLogprob("w", -0.1),)),
        "it has no log-probabilities of alternatives",
    ),
    (Accept(check=lambda request, response: True), ask(), answer("x"), None),
    (Accept(check=lambda request, response: False), ask(), answer("x"), "the checker refuses it"),
    (Accept(check=lambda request, response: 0.5), ask(), answer("x"), None),
    (Accept(check=lambda request, response: 0.49), ask(), answer("x"), "the checker gives it 0.49, below 0.5"),
    (
        Accept(check=lambda request, response: 0.7, enough=0.8),
        ask(),
        answer("x"),
        "the checker gives it 0.7, below 0.8",
    ),
]


@pytest.mark.parametrize(("accept", "request_", "response", "why"), CASES)
async def test_the_first_signal_that_is_missing_is_the_reason(
    accept: Accept, request_: Request, response: Response, why: str | None
) -> None:
    assert await accept.unlike(request_, response) == why


async def test_a_checker_may_wait_and_sees_request_and_answer() -> None:
    seen = []

    async def check(request: Request, response: Response) -> float:
        seen.append((request.prompt, response.text))
        return 0.9

    assert await Accept(check=check).unlike(ask("Hi"), answer("Ho")) is None
    assert seen == [("Hi", "Ho")]


async def test_what_a_checker_raises_is_not_swallowed() -> None:
    def broken(request: Request, response: Response) -> bool:
        raise KeyError("bug")

    with pytest.raises(KeyError):
        await Accept(check=broken).unlike(ask(), answer("x"))


async def test_a_call_whose_arguments_are_no_json_will_not_do() -> None:
    broken = Response((Text(text="a"), ToolCall.parse("1", "weather", '{"city": ')), "m", "p")
    assert await Accept().unlike(ask(tools=(TOOL,)), broken) == "it calls weather with what is no JSON"


@pytest.mark.parametrize("options", [{"samples": 0}, {"samples": 33}, {"agreement": 0.0}, {"agreement": 1.1}])
def test_numbers_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Accept(**options)
