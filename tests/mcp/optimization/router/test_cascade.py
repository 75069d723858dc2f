"""The cascade: cheap first, dearer where that will not do; what it costs to the cent; and what a stream shows of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.support.routing import CHEAP, DEAR, PERSON, Known, Watched, answer, ask, priced, says

from agentflow.errors import BadRequestError, ModelConnectionError, OverloadedError, StreamInterruptedError
from agentflow.llm.caller import Caller, asking_as
from agentflow.llm.config.prices import Price, Rates
from agentflow.llm.messages import Request, Response, StreamChunk, TokenLogprob, Usage
from agentflow.llm.providers.scripted import ScriptedProvider
from agentflow.llm.streaming.join import join
from agentflow.mcp.optimization.router import Accept, Canary, Candidate, Cascade, ModelRouter, Rule
from agentflow.mcp.optimization.router.learning.policy import Forecast

MIDDLE = Price.flat(Rates.stated(0.5, 2.0))


def cascade(small: Any, large: Any, accept: Accept | None = None, **more: Any) -> ModelRouter:
    models = {"large": priced(large, DEAR, quality=0.9), "small": priced(small, CHEAP, quality=0.7)}
    return ModelRouter(models, cascade=Cascade(accept=accept or Accept()), name="auto", **more)


async def streamed(router: ModelRouter, request: Request) -> tuple[list[StreamChunk], Response]:
    chunks = [chunk async for chunk in router.execute_streaming(request)]
    return chunks, join(chunks, provider="", model="")


# ---- who answers ---------------------------------------------------------------------------------------------


async def test_the_cheapest_answers_where_that_will_do_and_nobody_else_is_asked() -> None:
    large = says("large")
    models = {"large": Candidate(large, price=DEAR), "small": priced('{"age": 1}', CHEAP)}
    reply = await ModelRouter(models, cascade=Cascade()).execute(ask(output=PERSON))
    assert (reply.text, large.requests) == ('{"age": 1}', [])


async def test_an_answer_that_will_not_do_goes_up_and_the_last_is_not_judged() -> None:
    assert (await cascade("no json", '{"age": 2}').execute(ask(output=PERSON))).text == '{"age": 2}'
    assert (await cascade("no json", "none either").execute(ask(output=PERSON))).text == "none either"


async def test_stages_have_the_order_of_their_prices_or_the_one_that_is_said() -> None:
    models = {"large": priced("l", DEAR), "small": priced("s", CHEAP), "middle": priced("m", MIDDLE)}
    by_price = ModelRouter({**models, "free?": Candidate(says("?"))}, cascade=Cascade())
    assert by_price.explain(ask()).stages == ("small", "middle", "large", "free?")
    said = ModelRouter(models, cascade=Cascade(("middle", "large"))).explain(ask())
    assert (said.stages, said.chosen, said.by) == (("middle", "large"), "middle", "cascade")


async def test_a_policy_says_where_a_cascade_begins() -> None:
    forecasts = {
        "small": Forecast(0.2, 0.1, 0.3, 0.001),
        "middle": Forecast(0.8, 0.7, 0.9, 0.01),
        "large": Forecast(0.9, 0.8, 1.0, 0.9),
    }
    models = {"large": priced("l", DEAR), "small": priced("s", CHEAP), "middle": priced("m", MIDDLE)}
    found = ModelRouter(models, cascade=Cascade(), policy=Known(forecasts)).explain(ask())
    assert (found.chosen, found.stages, found.by) == ("middle", ("middle", "large"), "learned")


async def test_a_policy_on_trial_says_where_a_cascade_begins_too() -> None:
    forecasts = {"small": Forecast(0.2, 0.1, 0.3, 0.001), "large": Forecast(0.9, 0.8, 1.0, 0.01)}
    models = {"large": priced("l", DEAR), "small": priced("s", CHEAP)}
    router = ModelRouter(models, cascade=Cascade(), canary=Canary(Known(forecasts), 0.5))
    assert router.trial is not None
    for tenant in map("t{}".format, range(10)):
        with asking_as(Caller(tenant)):
            found = router.explain(ask())
        assert found.chosen == ("large" if router.trial.arm(tenant) == "canary" else "small")


async def test_a_rule_that_names_one_model_leaves_no_cascade() -> None:
    router = cascade("no json", '{"age": 2}', rules=[Rule("small")])
    assert router.explain(ask(output=PERSON)).stages == ()
    assert (await router.execute(ask(output=PERSON))).text == "no json"


async def test_a_stage_that_fails_goes_up_too_and_what_is_wrong_with_the_request_does_not() -> None:
    assert (await cascade(OverloadedError("busy"), "large").execute(ask())).text == "large"
    with pytest.raises(BadRequestError):
        await cascade(BadRequestError("no"), "large").execute(ask())


async def test_where_the_last_stage_fails_its_error_is_raised_and_no_answer_that_would_not_do_is_given() -> None:
    with pytest.raises(ModelConnectionError, match="down"):
        await cascade("no json", ModelConnectionError("down")).execute(ask(output=PERSON))


async def test_what_is_told_says_which_stage_it_is_and_why() -> None:
    watched = Watched()
    with watched.asking():
        await cascade("no json", '{"age": 2}').execute(ask(output=PERSON))
    told = [(route["from"], route["to"], route["stage"], route["reason"]) for route in watched.routes]
    assert told == [
        ("auto", "small", 0, "it is the first stage that may answer"),
        ("small", "large", 1, "it is no JSON of Person"),
    ]
    assert watched.routes[0]["choice"] == watched.routes[1]["choice"]


# ---- what it costs -------------------------------------------------------------------------------------------


async def test_costs_and_usage_of_all_stages_add_up() -> None:
    small, large = answer("no json", 10, cost=0.25), answer('{"age": 2}', 20, cost=0.5)
    reply = await cascade(small, large).execute(ask(output=PERSON))
    assert (reply.cost, reply.usage) == (0.75, Usage(200, 30))


async def test_an_unknown_cost_of_any_stage_makes_the_whole_unknown() -> None:
    models = {"unknown": Candidate(says("no json")), "large": priced(answer('{"age": 2}', cost=0.5), DEAR)}
    router = ModelRouter(models, cascade=Cascade(("unknown", "large")))
    assert (await router.execute(ask(output=PERSON))).cost is None


_stage = st.tuples(st.booleans(), st.integers(0, 1000), st.sampled_from([0.25, 0.5, 1.0, 4.0, None]))


@settings(max_examples=60)
@given(st.lists(_stage, min_size=1, max_size=5), st.integers(1, 3), st.booleans())
def test_the_cost_is_the_sum_of_what_every_stage_asked_for(
    stages: list[tuple[bool, int, float | None]], samples: int, streaming: bool
) -> None:
    """Whatever will do or not, asked at once or streamed, sampled or not: nothing is lost and nothing counts twice."""
    asked: list[tuple[int, float | None]] = []

    def model(good: bool, tokens: int, cost: float | None) -> Candidate:
        reply = answer("yes" if good else "no", tokens, cost=cost)

        def say(request: Request) -> Response:
            asked.append((tokens, cost))
            return reply

        return Candidate(ScriptedProvider(say))

    models = {f"m{number}": model(*stage) for number, stage in enumerate(stages)}
    accept = Accept(check=lambda request, response: response.text == "yes", samples=samples)
    router = ModelRouter(models, cascade=Cascade(tuple(models), accept))

    async def main() -> Response:
        return (await streamed(router, ask()))[1] if streaming else await router.execute(ask())

    reply = asyncio.run(main())
    first_good = next((number for number, (good, _, _) in enumerate(stages) if good), len(stages) - 1)
    assert reply.opaque["router"] == {"router": f"m{first_good}"}
    assert reply.usage == Usage(100 * len(asked), sum(tokens for tokens, _ in asked))
    costs = [cost for _, cost in asked]
    assert reply.cost == (None if None in costs else sum(cost for cost in costs if cost is not None))
    assert len(asked) == samples * min(first_good + 1, len(stages) - 1) + (first_good == len(stages) - 1)


# ---- samples and log-probabilities ---------------------------------------------------------------------------


async def test_the_most_frequent_of_several_answers_is_given_where_enough_agree() -> None:
    said = iter(["42", "41", " 42 "])
    small = ScriptedProvider(lambda request: next(said))
    models = {"small": Candidate(small, price=CHEAP), "large": priced("large", DEAR)}
    router = ModelRouter(models, cascade=Cascade(accept=Accept(samples=3, agreement=0.6)))
    reply = await router.execute(ask(temperature=0.0, seed=7))
    assert (reply.text, reply.cost) == ("42", pytest.approx(3 * (5 * 0.1 + 1 * 0.4) / 1e6))
    assert sorted((each.temperature, each.seed) for each in small.requests) == [(0.0, 7), (0.7, 8), (0.7, 9)]


async def test_where_too_few_agree_the_next_stage_is_asked_once() -> None:
    said = iter(['{"a": 1, "b": 2}', '{"b":2,"a":1}', "other", "another"])
    large = says("large")
    models = {
        "small": Candidate(ScriptedProvider(lambda r: next(said)), price=CHEAP),
        "large": Candidate(large, price=DEAR),
    }
    watched = Watched()
    with watched.asking():
        router = ModelRouter(models, cascade=Cascade(accept=Accept(samples=4, agreement=0.75)))
        assert (await router.execute(ask())).text == "large"
    assert len(large.requests) == 1
    assert watched.routes[1]["reason"] == "2 of 4 samples agree"


async def test_samples_that_fail_agree_with_nobody_and_all_failing_is_a_failure() -> None:
    said = iter(["42", OverloadedError("busy"), "42"])
    models = {"small": Candidate(ScriptedProvider(lambda r: next(said)), price=CHEAP), "large": priced("large", DEAR)}  # type: ignore[arg-type]
    accept = Accept(samples=3, agreement=0.6)
    assert (await ModelRouter(models, cascade=Cascade(accept=accept)).execute(ask())).text == "42"
    models = {"small": priced(OverloadedError("busy"), CHEAP), "large": priced("large", DEAR)}
    assert (await ModelRouter(models, cascade=Cascade(accept=accept)).execute(ask())).text == "large"


async def test_log_probabilities_are_asked_for_and_not_handed_on_unless_they_were_wanted() -> None:
    sure = answer("yes", logprobs=(TokenLogprob("yes", -0.1, (("yes", -0.1), ("no", -3.0))),))
    small = says(sure)
    models = {"small": Candidate(small, price=CHEAP), "large": priced("large", DEAR)}
    router = ModelRouter(models, cascade=Cascade(accept=Accept(mean_logprob=-0.5)))
    assert (await router.execute(ask())).logprobs == ()
    assert small.requests[-1].logprobs == 0
    assert (await router.execute(ask(logprobs=1))).logprobs == sure.logprobs
    margin = ModelRouter(models, cascade=Cascade(accept=Accept(min_margin=1.0)))
    assert (await margin.execute(ask())).text == "yes"
    assert small.requests[-1].logprobs == 2


# ---- streams -------------------------------------------------------------------------------------------------


async def test_a_stage_is_judged_before_anything_of_it_is_told_and_the_last_streams() -> None:
    order: list[str] = []

    def seen(name: str, text: str) -> ScriptedProvider:
        async def say(request: Request) -> str:
            order.append(name)
            return text

        return ScriptedProvider(say, name=name)

    models = {
        "small": Candidate(seen("small", "not good"), price=CHEAP),
        "large": Candidate(seen("large", "a b c"), price=DEAR),
    }
    accept = Accept(check=lambda request, response: "not" not in response.text)
    router = ModelRouter(models, cascade=Cascade(accept=accept), name="auto")
    chunks, whole = await streamed(router, ask())
    assert order == ["small", "large"]
    assert [chunk.content for chunk in chunks if chunk.content] == ["a ", "b ", "c"]
    assert whole.opaque == {"router": {"auto": "large"}}


async def test_a_stream_adds_up_to_what_is_answered_at_once() -> None:
    router = cascade("no json", '{"age": 2}')
    _, whole = await streamed(router, ask(output=PERSON))
    at_once = await router.execute(ask(output=PERSON))
    assert replace(whole, request_id=None, provider="") == replace(at_once, request_id=None, provider="")


async def test_another_model_takes_over_a_stream_only_before_its_first_piece() -> None:
    broken = StreamInterruptedError("broke", partial="")
    models = {"small": priced(OverloadedError("busy"), CHEAP), "large": priced("large", DEAR)}
    assert (await streamed(ModelRouter(models), ask()))[1].text == "large"
    models = {"small": priced(["half ", broken], CHEAP), "large": priced("large", DEAR)}
    got = []
    with pytest.raises(StreamInterruptedError):
        async for chunk in ModelRouter(models).execute_streaming(ask()):
            got.append(chunk.content)
    assert got == ["half "]


@pytest.mark.parametrize("leave", ["break", "aclose"])
async def test_a_stream_that_is_left_closes_the_one_behind_it(leave: str) -> None:
    closed = []

    class Endless:
        name = "endless"

        async def execute(self, request: Request) -> Response:
            raise AssertionError("it is streamed")

        async def execute_streaming(self, request: Request) -> Any:
            try:
                while True:
                    yield StreamChunk("word ")
            finally:
                closed.append(True)

        async def aclose(self) -> None: ...

    stream: Any = ModelRouter({"endless": Endless()}).execute_streaming(ask())
    async for _ in stream:
        break
    if leave == "aclose":
        await anext(stream)
    await stream.aclose()
    assert closed == [True]


async def test_a_stream_that_does_not_say_why_it_ended_is_marked_all_the_same() -> None:
    class Bare:
        name = "bare"

        async def execute(self, request: Request) -> Response:
            raise AssertionError("it is streamed")

        async def execute_streaming(self, request: Request) -> Any:
            yield StreamChunk("word")

        async def aclose(self) -> None: ...

    _, whole = await streamed(ModelRouter({"bare": Bare()}, name="auto"), ask())
    assert (whole.text, whole.opaque) == ("word", {"router": {"auto": "bare"}})


async def test_cancelling_while_a_stage_is_sampled_ends_all_its_samples() -> None:
    waiting, ended = 0, 0
    all_there = asyncio.Event()

    async def wait(request: Request) -> str:
        nonlocal waiting, ended
        waiting += 1
        if waiting == 3:
            all_there.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended += 1
        return "never"

    models = {"small": Candidate(ScriptedProvider(wait), price=CHEAP), "large": priced("large", DEAR)}
    router = ModelRouter(models, cascade=Cascade(accept=Accept(samples=3)))
    task = asyncio.create_task(router.execute(ask()))
    await all_there.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == 3
