"""A question that takes several requests: tools are run, misfits are asked again, limits hold, all of it watched."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support.told import Told

from agentflow import END, AsyncFlow, node
from agentflow.clock import VirtualClock
from agentflow.core.limits import Limits
from agentflow.core.observability.events import ExecutionEvent
from agentflow.core.observability.scope import Channel, Scope, current_scope
from agentflow.errors import (
    ConfigurationError,
    ContentFilterError,
    LimitExceededError,
    ModelTimeoutError,
    NodeError,
    OutputError,
    ProtocolError,
    ToolError,
    UnsupportedError,
)
from agentflow.llm.agentflow import AgentFlow
from agentflow.llm.builder import LLMClientBuilder
from agentflow.llm.config.registry import ModelRegistry
from agentflow.llm.content import Image, Raw, Reasoning, Text, ToolCall, ToolResult
from agentflow.llm.messages import (
    EmbeddingRequest,
    Embeddings,
    Message,
    Request,
    Response,
    StreamChunk,
    Tool,
    Usage,
)
from agentflow.llm.providers.scripted import ScriptedAnswer, ScriptedProvider

Ask = Callable[..., tuple[LLMClientBuilder, ScriptedProvider]]


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    """A builder whose model gives these answers, and the provider that remembers what it was asked."""

    def make(
        *answers: ScriptedAnswer, schemas: bool = True, clock: VirtualClock | None = None
    ) -> tuple[LLMClientBuilder, ScriptedProvider]:
        provider = ScriptedProvider(list(answers), name="toy", schemas=schemas)
        registry = ModelRegistry.load(environ={}, cwd=tmp_path, home=tmp_path, clock=clock)
        registry.register_provider("toy", lambda _: provider)
        registry.register_model("toy/m", provider="toy", model_id="m", price={"input": 1e6, "output": 0})
        return AgentFlow.model("toy/m", registry=registry).prompt("Hi"), provider

    return make


def calling(*calls: ToolCall, text: str = "") -> Response:
    said = (Text(text),) if text else ()
    return Response((*said, *calls), "m", "toy", usage=Usage(1, 1), finish_reason="tool_calls")


def results(request: Request) -> list[ToolResult]:
    return [part for turn in request.messages for part in turn.parts if isinstance(part, ToolResult)]


def weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


OSLO = ToolCall.parse("c1", "weather", '{"city": "Oslo"}')
ROME = ToolCall.parse("c2", "weather", '{"city": "Rome"}')

# ---- tools ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_tool_is_run_and_its_result_goes_back(ask: Ask, streaming: bool) -> None:
    """The model gets the schema; the history holds the call and the result; the answer is the last one."""
    model, provider = ask(calling(OSLO, text="Let me look."), "It is sunny.")
    reply = await model.tools(weather).streaming(streaming).execute_full()
    first, second = provider.requests
    assert [tool.name for tool in first.tools if isinstance(tool, Tool)] == ["weather"]
    assert [turn.role for turn in second.messages] == ["user", "assistant", "tool"]
    assert results(second) == [ToolResult("c1", "sunny in Oslo", "weather")]
    assert reply.text == "It is sunny."
    assert reply.turns == second.messages[1:]
    assert reply.messages[-1] == Message("assistant", "It is sunny.")


@pytest.mark.parametrize("streaming", [False, True])
async def test_usage_and_cost_are_those_of_all_requests(ask: Ask, streaming: bool) -> None:
    model, _ = ask(calling(OSLO), calling(ROME), Response("done", "m", "toy", usage=Usage(2, 3)))
    reply = await model.tools(weather).streaming(streaming).execute_full()
    assert (reply.usage, reply.cost) == (Usage(4, 5), pytest.approx(4.0))


async def test_the_turns_of_a_whole_answer_and_of_a_stream_are_the_same(ask: Ask) -> None:
    script = (calling(OSLO, ROME, text="Let me look."), "It is sunny.")
    whole = await ask(*script)[0].tools(weather).execute_full()
    streamed = await ask(*script)[0].tools(weather).execute_streaming().collect()
    assert (whole.turns, whole.content, whole.usage) == (streamed.turns, streamed.content, streamed.usage)


async def test_calls_of_one_answer_run_at_the_same_time(ask: Ask) -> None:
    """Each waits for the other, so one after the other would never end."""
    both = asyncio.Barrier(2)

    async def meet(who: str) -> str:
        """Meet somebody."""
        await both.wait()
        return who

    model, provider = ask(calling(ToolCall("1", "meet", {"who": "a"}), ToolCall("2", "meet", {"who": "b"})), "done")
    await model.tools(meet).execute()
    assert [result.content for result in results(provider.requests[1])] == ["a", "b"]


async def test_a_sync_function_runs_in_a_thread(ask: Ask) -> None:
    def where() -> bool:
        """Tell where this runs."""
        return threading.current_thread() is threading.main_thread()

    model, provider = ask(calling(ToolCall("1", "where")), "done")
    await model.tools(where).execute()
    assert results(provider.requests[1])[0].content == "false"


async def test_what_a_tool_raises_goes_to_the_model(ask: Ask) -> None:
    def fail() -> str:
        """Fail."""
        raise OSError("no network")

    model, provider = ask(calling(ToolCall("1", "fail")), "I could not.")
    assert await model.tools(fail).execute() == "I could not."
    assert results(provider.requests[1]) == [ToolResult("1", "OSError: no network", "fail", is_error=True)]


async def test_what_a_tool_raises_can_be_raised(ask: Ask) -> None:
    async def fail() -> str:
        """Fail."""
        raise OSError("no network")

    model, provider = ask(calling(ToolCall("1", "fail")), "never asked")
    with pytest.raises(ToolError, match="no network") as caught:
        await model.tools(fail, on_error="raise").execute()
    assert isinstance(caught.value.__cause__, OSError)
    assert len(provider.requests) == 1


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (ToolCall("1", "wether", {"city": "Oslo"}), "there is no tool 'wether'; known are: weather"),
        (ToolCall("1", "weather", {"town": "Oslo"}), "town"),
        (ToolCall("1", "weather", {"city": 3}), "city"),
        (ToolCall.parse("1", "weather", '{"city": '), "no JSON"),
    ],
)
async def test_a_call_that_cannot_be_made_is_told_to_the_model(ask: Ask, call: ToolCall, told: str) -> None:
    model, provider = ask(calling(call), "Sorry.")
    assert await model.tools(weather).execute() == "Sorry."
    [result] = results(provider.requests[1])
    assert result.is_error
    assert told in result.text


async def test_rounds_are_bounded(ask: Ask) -> None:
    """A model that never stops calling tools is stopped, by default after ten rounds."""
    model, provider = ask(*[calling(OSLO)] * 20)
    with pytest.raises(LimitExceededError, match="10 tool rounds"):
        await model.tools(weather).execute()
    assert len(provider.requests) == 11
    model, provider = ask(*[calling(OSLO)] * 20)
    with pytest.raises(LimitExceededError):
        await model.tools(weather).limits(tool_rounds=2).execute()
    assert len(provider.requests) == 3


@pytest.mark.parametrize(("said", "content"), [(False, "did not allow weather"), ("not on Sundays", "not on Sundays")])
async def test_a_refused_call_is_not_made_and_the_model_hears_why(ask: Ask, said: bool | str, content: str) -> None:
    model, provider = ask(calling(OSLO), "Then not.")
    asked: list[ToolCall] = []

    def approve(call: ToolCall) -> bool | str:
        asked.append(call)
        return said

    assert await model.tools(weather, approve=approve).execute() == "Then not."
    [result] = results(provider.requests[1])
    assert result.is_error
    assert content in result.text
    assert asked == [OSLO]


async def test_an_approval_may_be_awaited(ask: Ask) -> None:
    async def approve(_: ToolCall) -> bool:
        await asyncio.sleep(0)
        return True

    model, provider = ask(calling(OSLO), "done")
    await model.tools(weather, approve=approve).execute()
    assert results(provider.requests[1])[0].content == "sunny in Oslo"


async def test_a_declared_tool_without_a_function_is_the_callers_to_run(ask: Ask) -> None:
    """An answer that calls it comes back, also where it calls a function beside it."""
    model, provider = ask(calling(OSLO, ToolCall("2", "search", {"q": "x"})))
    reply = await model.tools(weather, Tool("search", "Search.", {"type": "object"})).execute_full()
    assert [call.name for call in reply.tool_calls] == ["weather", "search"]
    assert len(provider.requests) == 1


async def test_a_hosted_tool_goes_to_its_provider_as_it_is(ask: Ask) -> None:
    model, provider = ask("done")
    search = Raw("openai", {"type": "web_search"})
    await model.tools(search).execute()
    assert provider.requests[0].tools == (search,)


async def test_a_forced_choice_holds_for_the_first_round_alone(ask: Ask) -> None:
    """Forced again, the model could never answer."""
    model, provider = ask(calling(OSLO), "done")
    await model.tools(weather).tool_choice("weather").execute()
    assert [request.tool_choice for request in provider.requests] == ["weather", "auto"]


async def test_a_tool_may_return_an_image(ask: Ask) -> None:
    def look() -> Image:
        """Look around."""
        return Image("https://example.org/a.png")

    model, provider = ask(calling(ToolCall("1", "look")), "A cat.")
    await model.tools(look).execute()
    assert results(provider.requests[1])[0].content == (Image("https://example.org/a.png"),)


async def test_opaque_data_goes_back_with_the_call(ask: Ask) -> None:
    """Thought signatures and reasoning that came with a call stand in the next request, untouched."""
    thought = Reasoning("hm", opaque={"google": {"thoughtSignature": "s"}})
    call = ToolCall.parse("c1", "weather", "{}", opaque={"google": {"thoughtSignature": "t"}})
    for streaming in (False, True):
        answer = Response((thought, call), "m", "toy", finish_reason="tool_calls", opaque={"google": {"x": 1}})
        model, provider = ask(answer, "done")
        await model.tools(weather).streaming(streaming).execute()
        turn = provider.requests[1].messages[1]
        assert (turn.content, turn.opaque) == (answer.content, answer.opaque)


def test_two_tools_of_one_name_are_refused(ask: Ask) -> None:
    with pytest.raises(ConfigurationError, match="two of them are called 'weather'"):
        ask()[0].tools(weather, Tool("weather"))


async def test_cancelling_while_tools_run_leaves_no_task_behind(ask: Ask) -> None:
    """Both calls are under way; the caller goes; both are cancelled before the caller's own cancellation ends."""
    started, ended = asyncio.Semaphore(0), []

    async def hang() -> str:
        """Hang."""
        started.release()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(1)
        return "never"

    model, _ = ask(calling(ToolCall("1", "hang"), ToolCall("2", "hang")))
    task = asyncio.create_task(model.tools(hang).execute())
    await started.acquire()
    await started.acquire()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [1, 1]


# ---- typed answers -------------------------------------------------------------------------------------------


@dataclass
class Person:
    name: str
    age: int


ADA = '{"name": "Ada", "age": 36}'


async def test_a_typed_answer_is_asked_for_by_a_schema(ask: Ask) -> None:
    model, provider = ask(ADA)
    assert await model.output(Person).execute() == Person("Ada", 36)
    wanted = provider.requests[0].output
    assert wanted is not None
    assert wanted.name == "Person"
    assert set((wanted.schema or {})["properties"]) == {"name", "age"}  # type: ignore[call-overload]


async def test_value_and_response_come_together(ask: Ask) -> None:
    value, reply = await ask(ADA)[0].output(Person).execute_both()
    assert (value.age, reply.text) == (36, ADA)


async def test_where_the_api_has_no_schemas_the_model_answers_through_a_tool(ask: Ask) -> None:
    model, provider = ask(calling(ToolCall.parse("1", "Person", ADA)), schemas=False)
    assert await model.output(Person).execute() == Person("Ada", 36)
    [request] = provider.requests
    assert request.output is None
    assert [tool.name for tool in request.tools if isinstance(tool, Tool)] == ["Person"]
    assert request.tool_choice == "Person"


async def test_a_model_that_thinks_is_not_forced_to_call_the_answers_tool(ask: Ask) -> None:
    """Those refuse to be; if it answers in text after all, that is read too."""
    model, provider = ask(f"Here you are: {ADA}", schemas=False)
    assert await model.thinking("high").output(Person).execute() == Person("Ada", 36)
    assert provider.requests[0].tool_choice is None


async def test_other_tools_may_be_called_before_the_typed_answer(ask: Ask) -> None:
    for schemas in (True, False):
        last = ADA if schemas else calling(ToolCall.parse("2", "Person", ADA))
        model, provider = ask(calling(OSLO), last, schemas=schemas)
        assert await model.tools(weather).output(Person).execute() == Person("Ada", 36)
        assert results(provider.requests[1])[0].content == "sunny in Oslo"


@pytest.mark.parametrize("streaming", [False, True])
async def test_an_answer_that_does_not_fit_is_asked_again_with_the_reason(ask: Ask, streaming: bool) -> None:
    model, provider = ask('{"name": "Ada"}', ADA)
    assert await model.output(Person).streaming(streaming).execute() == Person("Ada", 36)
    again = provider.requests[1].messages[-1]
    assert again.role == "user"
    assert "age" in again.text


async def test_a_misfit_through_the_tool_is_told_as_its_result(ask: Ask) -> None:
    """A call without a result would be refused by every API."""
    bad, good = ToolCall.parse("1", "Person", '{"name": "Ada"}'), ToolCall.parse("2", "Person", ADA)
    model, provider = ask(calling(bad), calling(good), schemas=False)
    assert await model.output(Person).execute() == Person("Ada", 36)
    [result] = results(provider.requests[1])
    assert (result.id, result.is_error) == ("1", True)


async def test_after_a_few_misfits_the_raw_text_is_handed_over(ask: Ask) -> None:
    model, provider = ask(*["no idea"] * 9)
    with pytest.raises(OutputError) as caught:
        await model.output(Person, retries=1).execute()
    assert caught.value.raw == "no idea"
    assert len(provider.requests) == 2


async def test_what_was_cut_off_is_not_asked_again(ask: Ask) -> None:
    model, provider = ask(Response('{"name": "A', "m", "toy", finish_reason="length"))
    with pytest.raises(OutputError, match="cut off at max_tokens"):
        await model.output(Person).execute()
    assert len(provider.requests) == 1


async def test_a_blocked_typed_answer_is_a_content_filter_error(ask: Ask) -> None:
    model, _ = ask(Response("", "m", "toy", finish_reason="content_filter"))
    with pytest.raises(ContentFilterError):
        await model.output(Person).execute()


async def test_partial_objects_grow_while_they_stream(ask: Ask) -> None:
    model, _ = ask(['{"name": "A', 'da", "age"', ": 3", "6}"])
    async with model.output(Person).execute_streaming() as stream:
        seen = [partial async for partial in stream.partials()]
        assert await stream.value() == Person("Ada", 36)
    assert seen[0] == {"name": "A"}
    assert seen[-1] == {"name": "Ada", "age": 36}


async def test_partial_objects_come_through_the_tool_too(ask: Ask) -> None:
    model, _ = ask(calling(ToolCall.parse("1", "Person", ADA)), schemas=False)
    async with model.output(Person).execute_streaming() as stream:
        seen = [partial async for partial in stream.partials()]
        assert await stream.value() == Person("Ada", 36)
    assert seen[-1] == {"name": "Ada", "age": 36}


async def test_a_plain_type_is_unwrapped(ask: Ask) -> None:
    assert await ask('{"value": ["a", "b"]}')[0].output(list[str]).execute() == ["a", "b"]


# ---- limits --------------------------------------------------------------------------------------------------


async def test_limits_hold_over_all_requests_of_one_question(ask: Ask) -> None:
    for limits in ({"requests": 2}, {"tokens": 4}, {"dollars": 2.0}):
        model, provider = ask(*[calling(OSLO)] * 9)
        with pytest.raises(LimitExceededError, match=next(iter(limits))):
            await model.tools(weather).limits(**limits).execute()  # type: ignore[arg-type]
        assert len(provider.requests) == 2


async def test_each_question_has_its_limits_for_itself(ask: Ask) -> None:
    model, _ = ask("one", "two")
    limited = model.limits(requests=1)
    assert [await limited.execute(), await limited.execute()] == ["one", "two"]


async def test_a_limit_in_dollars_needs_a_price(ask: Ask, tmp_path: Path) -> None:
    """What costs nobody knows how much cannot be bounded, so it is not begun."""
    registry = ModelRegistry.load(environ={}, cwd=tmp_path, home=tmp_path)
    registry.register_provider("toy", lambda _: ScriptedProvider(["x"]))
    with pytest.raises(ConfigurationError, match="price"):
        await AgentFlow.model("toy/unknown", registry=registry).prompt("Hi").limits(dollars=1.0).execute()


async def test_a_run_bounds_the_calls_of_all_its_nodes(ask: Ask) -> None:
    model, provider = ask(*["x"] * 9)

    @node
    async def first(state: Any) -> None:
        await model.execute()
        await model.execute()

    @node
    async def second(state: Any) -> None:
        await model.execute()

    flow = AsyncFlow(first >> second)
    with pytest.raises(NodeError) as caught:
        await flow.run({}, limits=Limits(requests=2))
    assert isinstance(caught.value.__cause__, LimitExceededError)
    assert len(provider.requests) == 2
    await flow.run({}, limits=Limits(requests=3))


# ---- watching ------------------------------------------------------------------------------------------------


def watched(run: Callable[[], Any]) -> list[ExecutionEvent]:
    clock, events = VirtualClock(), []

    async def sink(event: ExecutionEvent) -> None:
        events.append(event)

    async def main() -> None:
        token = current_scope.set(Scope(Channel("run", clock, Told(sink)), "flow/ask#1", "ask", 1))
        try:
            await run()
        finally:
            current_scope.reset(token)

    clock.run(main())
    return events


def test_every_step_of_a_question_is_an_event(ask: Ask) -> None:
    def broken() -> str:
        """Break."""
        raise ValueError("no")

    def approve(call: ToolCall) -> bool:
        return call.id != "c2"

    model, _ = ask(calling(OSLO), calling(ROME), calling(ToolCall("c3", "broken")), "{}", ADA)
    events = watched(lambda: model.tools(weather, broken, approve=approve).output(Person).execute())
    assert [event.kind for event in events] == [
        *("model_start", "model_success", "tool_start", "tool_success"),
        *("model_start", "model_success", "tool_refused"),
        *("model_start", "model_success", "tool_start", "tool_error"),
        *("model_start", "model_success", "output_retry"),
        *("model_start", "model_success"),
    ]
    started = events[2].data
    assert (started["tool"], started["call_id"], started["arguments"]) == ("weather", "c1", {"city": "Oslo"})


# ---- what must not happen ------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["length", "content_filter"])
@pytest.mark.parametrize("streaming", [False, True])
async def test_a_call_that_was_cut_off_is_not_made(ask: Ask, reason: str, streaming: bool) -> None:
    """Half a call is no call, and an empty one is not one without arguments."""
    ran: list[str] = []

    def clean(path: str = "/everything") -> str:
        """Clean up."""
        ran.append(path)
        return "done"

    model, provider = ask(Response((ToolCall.parse("1", "clean", ""),), "m", "toy", finish_reason=reason))
    reply = await model.tools(clean).streaming(streaming).execute_full()
    assert (ran, reply.finish_reason, len(provider.requests)) == ([], reason, 1)


async def test_a_typed_answer_through_a_tool_leaves_a_history_that_can_be_gone_on_with(ask: Ask) -> None:
    """No call without a result: the answer is the text that it is, whole and streamed."""
    for streaming in (False, True):
        model, _ = ask(calling(ToolCall.parse("1", "Person", ADA)), schemas=False)
        value, reply = await model.output(Person).streaming(streaming).execute_both()
        assert value == Person("Ada", 36)
        assert (reply.content, reply.finish_reason, reply.turns) == (ADA, "stop", ())
        assert reply.usage == Usage(1, 1)


@pytest.mark.parametrize("streaming", [False, True])
async def test_what_is_called_beside_the_typed_answer_is_run(ask: Ask, streaming: bool) -> None:
    model, _ = ask(calling(OSLO, ToolCall.parse("2", "Person", ADA)), schemas=False)
    value, reply = await model.tools(weather).output(Person).streaming(streaming).execute_both()
    assert value == Person("Ada", 36)
    assert [turn.role for turn in reply.turns] == ["assistant", "tool"]
    told = [part for part in reply.turns[1].parts if isinstance(part, ToolResult)]
    assert [(result.id, result.text) for result in told] == [("c1", "sunny in Oslo"), ("2", "Received.")]


async def test_a_forced_tool_gives_way_to_the_answers_tool(ask: Ask) -> None:
    script = (calling(OSLO), calling(ToolCall.parse("2", "Person", ADA)))
    model, provider = ask(*script, schemas=False)
    await model.tools(weather).tool_choice("weather").output(Person).execute()
    assert [request.tool_choice for request in provider.requests] == ["weather", "required"]


async def test_a_call_of_no_tool_at_all_is_asked_again(ask: Ask) -> None:
    """Where only the answer's tool was offered, another call is a misfit like any other."""
    script = (calling(ToolCall("1", "lookup")), calling(ToolCall.parse("2", "Person", ADA)))
    model, provider = ask(*script, schemas=False)
    assert await model.output(Person).execute() == Person("Ada", 36)
    assert [result.is_error for result in results(provider.requests[1])] == [True]


# ---- time ----------------------------------------------------------------------------------------------------


def timed(ask: Ask, *answers: ScriptedAnswer) -> tuple[VirtualClock, LLMClientBuilder]:
    clock = VirtualClock()
    model, _ = ask(*answers, clock=clock)
    return clock, model


@pytest.mark.parametrize("streaming", [False, True])
def test_the_time_limit_spans_the_tools(ask: Ask, streaming: bool) -> None:
    """A tool that hangs ends with it, cancelled."""
    ended: list[int] = []

    async def hang() -> str:
        """Hang."""
        try:
            await asyncio.sleep(1000)
        finally:
            ended.append(1)
        return "never"

    clock, model = timed(ask, calling(ToolCall("1", "hang")), "never asked")
    with pytest.raises(ModelTimeoutError, match="total"):
        clock.run(model.tools(hang).timeout(5.0).streaming(streaming).execute())
    assert ended == [1]
    assert clock.monotonic() < 10


def test_the_time_limit_spans_all_rounds_together(ask: Ask) -> None:
    async def slow() -> str:
        """Take a while."""
        await asyncio.sleep(2)
        return "ok"

    clock, model = timed(ask, *[calling(ToolCall("1", "slow"))] * 9)
    with pytest.raises(ModelTimeoutError):
        clock.run(model.tools(slow).timeout(5.0).execute())
    assert clock.monotonic() <= 5.1


def test_a_person_may_take_longer_than_the_time_limit(ask: Ask) -> None:
    async def approve(_: ToolCall) -> bool:
        await asyncio.sleep(3600)
        return True

    clock, model = timed(ask, calling(OSLO), "done")
    assert clock.run(model.tools(weather, approve=approve).timeout(5.0).execute()) == "done"


def test_a_tool_that_loses_what_it_waited_for_has_failed(ask: Ask) -> None:
    """A stray cancellation is a failure of the tool, alone or beside others, and not the end of the call."""

    async def lost() -> str:
        """Wait for something that somebody else cancels."""
        waiting = asyncio.get_running_loop().create_future()
        waiting.cancel()
        await waiting
        return "never"

    for calls in ((ToolCall("1", "lost"),), (ToolCall("1", "lost"), OSLO)):
        clock, model = timed(ask, calling(*calls), "done")
        assert clock.run(model.tools(lost, weather).execute()) == "done"


async def test_at_most_64_calls_run_at_the_same_time(ask: Ask) -> None:
    """How many an answer has is the model's to choose."""
    now = most = 0

    async def count() -> str:
        """Count."""
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0)
        now -= 1
        return "ok"

    model, _ = ask(calling(*[ToolCall(str(number), "count") for number in range(500)]), "done")
    await model.tools(count).execute()
    assert most == 64


# ---- what was paid -------------------------------------------------------------------------------------------


async def test_an_error_knows_what_was_paid_before_it(ask: Ask) -> None:
    def fail() -> str:
        """Fail."""
        raise OSError("no")

    model, _ = ask(calling(OSLO), calling(ToolCall("2", "fail")))
    with pytest.raises(ToolError) as tool:
        await model.tools(weather, fail, on_error="raise").execute()
    model, _ = ask(*[calling(OSLO)] * 9)
    with pytest.raises(LimitExceededError) as limit:
        await model.tools(weather).limits(tool_rounds=1).execute()
    model, _ = ask(*[Response("no idea", "m", "toy", usage=Usage(1, 1))] * 9)
    with pytest.raises(OutputError) as output:
        await model.output(Person, retries=1).execute()
    for error in (tool.value, limit.value, output.value):
        assert isinstance(error.response, Response)
        assert error.response.usage == Usage(2, 2)


async def test_no_tool_runs_for_an_answer_that_could_not_be_asked_for(ask: Ask) -> None:
    """The limit is looked at before a side effect, not after it."""
    ran: list[str] = []

    def act() -> str:
        """Act."""
        ran.append("now")
        return "done"

    model, _ = ask(calling(ToolCall("1", "act")), "never asked")
    with pytest.raises(LimitExceededError):
        await model.tools(act).limits(requests=1).execute()
    assert ran == []


async def test_an_answer_whose_cost_is_unknown_uses_a_limit_in_dollars_up(ask: Ask, tmp_path: Path) -> None:
    unpriced = Response((OSLO,), "m", "toy", usage=Usage(1, 1), finish_reason="tool_calls", service_tier="scale")
    model, provider = ask(*[unpriced] * 9)
    with pytest.raises(LimitExceededError, match="cost is unknown"):
        await model.tools(weather).limits(dollars=5.0).execute()
    assert len(provider.requests) == 1


async def test_a_stream_that_is_left_counts_what_had_come(ask: Ask) -> None:
    """Usage comes with the last chunk; who leaves before has paid all the same."""
    limits = Limits(tokens=10)
    pieces = ["word " * 20, "more", StreamChunk(usage=Usage(5, 50))]

    @node
    async def leave(state: Any) -> None:
        model, _ = ask(pieces, pieces)
        async with model.execute_streaming() as stream:
            await anext(stream)
        await model.execute()

    with pytest.raises(NodeError) as caught:
        await AsyncFlow(leave >> END).run({}, limits=limits)
    assert isinstance(caught.value.__cause__, LimitExceededError)


async def test_files_are_read_once_for_all_rounds(ask: Ask, tmp_path: Path) -> None:
    """What a tool does to a file in between does not change the question."""
    picture = tmp_path / "a.png"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(8))

    def remove() -> str:
        """Remove the picture."""
        picture.unlink()
        return "gone"

    model, provider = ask(calling(ToolCall("1", "remove")), "done")
    assert await model.prompt("What is this?", Image(picture)).tools(remove).execute() == "done"
    assert provider.requests[0].messages[0] == provider.requests[1].messages[0]


async def test_a_picture_from_a_tool_is_refused_where_one_in_the_prompt_would_be(tmp_path: Path) -> None:
    def look() -> Image:
        """Look."""
        return Image("https://example.org/a.png")

    provider = ScriptedProvider([calling(ToolCall("1", "look")), "never asked"])
    registry = ModelRegistry.load(environ={}, cwd=tmp_path, home=tmp_path)
    registry.register_provider("toy", lambda _: provider)
    registry.register_model("blind", provider="toy", capabilities=["tools"])
    with pytest.raises(UnsupportedError, match="image"):
        await AgentFlow.model("blind", registry=registry).prompt("Hi").tools(look).execute()
    assert len(provider.requests) == 1


async def test_too_few_vectors_are_no_answer(tmp_path: Path) -> None:
    class Short(ScriptedProvider):
        async def embed(self, request: EmbeddingRequest) -> Embeddings:
            return Embeddings(((1.0,),), request.model, "toy")

    registry = ModelRegistry.load(environ={}, cwd=tmp_path, home=tmp_path)
    registry.register_provider("toy", lambda _: Short([]))
    with pytest.raises(ProtocolError, match="1 vectors came for 2 texts"):
        await AgentFlow.model("toy/m", registry=registry).embed(["a", "b"])


async def test_any_number_of_texts_is_embedded_in_as_many_calls_as_it_takes(tmp_path: Path) -> None:
    provider = ScriptedProvider([], vector=lambda text: [float(len(text))])
    registry = ModelRegistry.load(environ={}, cwd=tmp_path, home=tmp_path)
    registry.register_provider("toy", lambda _: provider)
    texts = ["x" * (number % 7) for number in range(5000)]
    found = await AgentFlow.model("toy/m", registry=registry).embed(texts)
    assert found == [[float(len(text))] for text in texts]
    assert [len(part) for part in provider.embedded] == [2048, 2048, 904]
    long = ["y" * 400_000] * 3
    await AgentFlow.model("toy/m", registry=registry).embed(long)
    assert [len(part) for part in provider.embedded[3:]] == [1, 1, 1]


# ---- partial objects -----------------------------------------------------------------------------------------


async def test_words_before_the_call_that_answers_do_not_disturb_its_partials(ask: Ask) -> None:
    said = calling(ToolCall.parse("1", "Person", ADA), text="Let me fill in [the] form: ")
    model, _ = ask(said, schemas=False)
    async with model.output(Person).execute_streaming() as stream:
        seen = [partial async for partial in stream.partials()]
    assert seen[-1] == {"name": "Ada", "age": 36}


async def test_partials_are_those_of_the_first_of_several_answers(ask: Ask) -> None:
    pieces = [StreamChunk('{"name": "A', index=0), StreamChunk('{"name": "B', index=1), StreamChunk('da", "age": 36}')]
    model, _ = ask(pieces)
    async with model.output(Person).execute_streaming() as stream:
        seen = [partial async for partial in stream.partials()]
    assert seen == [{"name": "A"}, {"name": "Ada", "age": 36}]
