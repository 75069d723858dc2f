"""What is told of a model call: its span, its attempts, its tools, and where each second of it went."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.llm.conftest import Exchange, LoopbackServer, Serve
from tests.support.bench import Bench, Slow

from agentflow.clock import VirtualClock
from agentflow.core import AsyncFlow, ExecutionEvent, Parallel, SharedState, node, observe
from agentflow.core.robustness.attempt import note_connecting, note_pool_wait
from agentflow.core.robustness.retry import RetryPolicy
from agentflow.errors import ModelError, ServerError
from agentflow.llm.builder import LLMClientBuilder
from agentflow.llm.client import Call
from agentflow.llm.config.registry import ModelRegistry
from agentflow.llm.content import Image, ToolCall
from agentflow.llm.messages import Message, Request, Response, StreamChunk, Usage
from agentflow.llm.providers.scripted import ScriptedAnswer, ScriptedProvider


@dataclass
class Age:
    years: int


EVEN = RetryPolicy(max_attempts=3, base_delay=1.0, jitter="none")


class Seen:
    """Keeps all that is told."""

    inline = True

    def __init__(self, *, chunks: bool = False, content: bool = False) -> None:
        self.chunks = chunks
        self.content = content
        self.events: list[ExecutionEvent] = []

    def observe(self, event: ExecutionEvent) -> None:
        self.events.append(event)

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    def one(self, kind: str) -> ExecutionEvent:
        (found,) = [event for event in self.events if event.kind == kind]
        return found

    def parts(self, kind: str) -> Mapping[str, float]:
        return self.one(kind).data["breakdown"]  # type: ignore[return-value]


class Carrying(Seen):
    """Says what requests to other systems carry along."""

    def headers(self, run_id: str, span: int) -> Mapping[str, str]:
        return {"traceparent": f"00-{run_id}-{span}"}


def watched(bench: Bench, make: Callable[[], Awaitable[object]], seen: Seen) -> Seen:
    async def main() -> None:
        with observe(seen):
            await make()

    bench.run(main())
    return seen


def bench_of(tmp_path: Path, *answers: ScriptedAnswer, yml: str = "") -> Bench:
    return Bench(tmp_path, {"toy": ScriptedProvider(list(answers), name="toy")}, yml)


# ---- where the time went -------------------------------------------------------------------------------------


class Bumpy(Slow):
    """Waits three seconds for a connection and two until it is open, then fails after two, and then answers."""

    async def _wait(self) -> None:
        await asyncio.sleep(3.0)
        note_pool_wait(3.0)
        await asyncio.sleep(2.0)
        note_connecting(2.0)
        if not self.calls:
            self.calls += 1
            await asyncio.sleep(2.0)
            raise ServerError("bump")
        await super()._wait()


@pytest.mark.parametrize("streaming", [False, True])
def test_each_wait_of_a_call_is_found_in_the_call_the_node_and_the_flow(tmp_path: Path, streaming: bool) -> None:
    """Queue 7, limiter 11, pool 3 twice, connecting 2 twice, a failed attempt 2, back-off 1, first token 5, rest 8; and
    4 seconds of the node's own, 6 of a tool."""
    yml = "models: {m: {provider: toy, shedder: {algorithm: fixed, maximum: 1}, timeout: 600}}"
    bench = Bench(tmp_path, {"toy": Bumpy(5.0, gap=4.0)}, yml)

    @node
    async def ask(state: SharedState) -> None:
        await asyncio.sleep(4.0)
        await bench.ask("m").retry(EVEN).streaming(streaming).execute()

    async def main() -> None:
        ticket = bench.shedder("m").try_admit()
        assert ticket is not None
        task = asyncio.create_task(AsyncFlow(ask, name="flow", clock=bench.clock).run())
        await asyncio.sleep(11.0)
        ticket.drop()
        bench.limiter("m").drain(11.0)
        await task

    seen = watched(bench, main, Seen())
    generation = {"first_token": 5.0, "generation": 8.0} if streaming else {"generation": 5.0}
    call = {"queue": 7.0, "limiter": 11.0, "pool": 6.0, "connect": 4.0, "backoff": 1.0, "failed": 2.0, **generation}
    assert seen.parts("model_success") == pytest.approx(call, abs=1e-3)
    assert seen.parts("node_success") == pytest.approx({**call, "own": 4.0}, abs=1e-3)
    assert seen.parts("flow_success") == pytest.approx({**call, "own": 4.0}, abs=1e-3)


def test_time_in_tools_is_theirs_and_what_they_ask_of_models_is_the_models(tmp_path: Path) -> None:
    bench = bench_of(tmp_path, Response((ToolCall("c1", "look", {}),), "m", "toy", finish_reason="tool_calls"), "done")
    bench.add("slow", Slow(9.0))

    async def look() -> str:
        """Look."""
        await asyncio.sleep(6.0)
        return await bench.ask("slow/m").execute()

    @node
    async def ask(state: SharedState) -> None:
        await bench.ask().tools(look).execute()

    seen = watched(bench, AsyncFlow(ask, name="flow", clock=bench.clock).run, Seen())
    assert seen.parts("tool_success") == {"tools": 6.0, "generation": 9.0}
    assert seen.parts("node_success") == {"tools": 6.0, "generation": 9.0}
    tool = seen.one("tool_start")
    inner = next(event for event in seen.events if event.kind == "model_start" and event.data["provider"] == "slow")
    assert (inner.parent, tool.parent) == (tool.span, seen.one("node_start").span)


def test_calls_side_by_side_cost_as_much_as_the_longest(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {"toy": Slow(9.0), "quick": Slow(2.0)})

    @node
    async def long(state: SharedState) -> None:
        await bench.ask().execute()

    @node
    async def short(state: SharedState) -> None:
        await bench.ask("quick/m").execute()

    flow = AsyncFlow(Parallel(long, short), name="flow", clock=bench.clock)
    assert watched(bench, flow.run, Seen()).parts("flow_success") == {"generation": 9.0}


def test_calls_gathered_in_one_node_are_told_apart(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {"toy": Slow(1.0)})

    @node
    async def ask(state: SharedState) -> None:
        await asyncio.gather(*[bench.ask(prompt=f"{number}").execute() for number in range(3)])

    seen = watched(bench, AsyncFlow(ask, clock=bench.clock).run, Seen())
    starts = {event.span for event in seen.events if event.kind == "model_start"}
    assert len(starts) == 3
    assert starts == {event.span for event in seen.events if event.kind == "model_success"}


# ---- attempts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streaming", [False, True])
def test_each_attempt_is_a_span_within_its_call(tmp_path: Path, streaming: bool) -> None:
    bench = bench_of(tmp_path, ServerError("bump", status=502, request_id="r0"), "done")
    ask = bench.ask().retry(EVEN).streaming(streaming)
    seen = watched(bench, ask.execute, Seen())
    call = seen.one("model_start").span
    attempts = [event for event in seen.events if event.kind.startswith("attempt")]
    assert [(event.kind, event.attempt, event.parent) for event in attempts] == [
        ("attempt_start", 1, call),
        ("attempt_error", 1, call),
        ("attempt_start", 2, call),
        ("attempt_success", 2, call),
    ]
    assert attempts[0].span == attempts[1].span != attempts[2].span == attempts[3].span
    error = attempts[1].data
    assert (error["status"], error["request_id"], error["error_type"]) == (502, "r0", "ServerError")


def registry_at(server: LoopbackServer, tmp_path: Path) -> ModelRegistry:
    lab = f"{{kind: openai, base_url: '{server.url}', api_key_env: OPENAI_API_KEY}}"
    (tmp_path / "models.yml").write_text(f"providers: {{lab: {lab}}}\n")
    return ModelRegistry.load(environ={"OPENAI_API_KEY": "sk-not-to-be-seen"}, cwd=tmp_path, home=tmp_path)


async def answer(exchange: Exchange) -> None:
    await exchange.respond({"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]})


async def test_an_attempt_says_where_it_went_and_carries_what_watchers_want(serve: Serve, tmp_path: Path) -> None:
    server = await serve(answer)
    registry = registry_at(server, tmp_path)
    seen = Carrying()
    with observe(seen):
        reply = await LLMClientBuilder(lambda: registry, Call(model="lab/m")).prompt("Hi").execute_full()
    await registry.aclose()
    start, end = seen.one("attempt_start"), seen.one("attempt_success")
    assert server.requests[0].headers["traceparent"] == f"00-{start.run_id}-{start.span}"
    assert (end.data["method"], end.data["status"]) == ("POST", 200)
    assert end.data["url"] == f"{server.url}/chat/completions"
    assert (end.data["address"], end.data["port"]) == ("127.0.0.1", int(server.url.split(":")[2].split("/")[0]))
    assert isinstance(end.data["connect"], float)
    assert reply.run_id == start.run_id
    assert "sk-not-to-be-seen" not in repr(seen.events)


class Meddling(Seen):
    """Gives these as the headers of requests to other systems."""

    def __init__(self, given: object) -> None:
        super().__init__()
        self.given = given

    def headers(self, run_id: str, span: int) -> Mapping[str, str]:
        if isinstance(self.given, Exception):
            raise self.given
        return self.given  # type: ignore[return-value]


@pytest.mark.parametrize(
    "given",
    [
        {"traceparent": "00-1\r\nauthorization: mine"},
        {"trace\nparent": "00-1"},
        {"traceparent": "schön"},
        {"traceparent": 7},
        {7: "traceparent"},
        {"traceparent": "x" * 100_000},
        {"Authorization": "Bearer mine", "Host": "elsewhere", "Content-Length": "1", "Transfer-Encoding": "chunked"},
        {"user-agent": "mine"},
        ["traceparent"],
        None,
        ValueError("no headers today"),
    ],
    ids=["a line break", "a name that is none", "letters", "a number", "a number's", "endless", "what is ours",
         "what was asked for", "a list", "nothing", "an error"],
)  # fmt: skip
async def test_no_header_of_a_watcher_breaks_or_changes_a_request(serve: Serve, tmp_path: Path, given: object) -> None:
    server = await serve(answer)
    registry, seen = registry_at(server, tmp_path), Carrying()
    with observe(seen), observe(Meddling(given)):
        assert await LLMClientBuilder(lambda: registry, Call(model="lab/m")).prompt("Hi").execute() == "Hi"
    await registry.aclose()
    headers = server.requests[0].headers
    assert headers["traceparent"] == f"00-{seen.one('attempt_start').run_id}-{seen.one('attempt_start').span}"
    assert (headers["authorization"], headers["user-agent"]) == ("Bearer sk-not-to-be-seen", "agentflow")
    assert headers["host"] == server.url.split("/")[2]
    assert "mine" not in repr(headers)


async def test_each_attempt_carries_its_own_span(serve: Serve, tmp_path: Path) -> None:
    answers = iter([503, 200])

    async def bumpy(exchange: Exchange) -> None:
        status = next(answers)
        await (answer(exchange) if status == 200 else exchange.respond({"error": {"message": "busy"}}, status))

    server = await serve(bumpy)
    registry, seen = registry_at(server, tmp_path), Carrying()
    quick = RetryPolicy(max_attempts=2, base_delay=0.001)
    with observe(seen):
        await LLMClientBuilder(lambda: registry, Call(model="lab/m")).prompt("Hi").retry(quick).execute()
    await registry.aclose()
    spans = [event.span for event in seen.events if event.kind == "attempt_start"]
    assert len(spans) == 2
    told = [request.headers["traceparent"] for request in server.requests]
    assert told == [f"00-{seen.events[0].run_id}-{span}" for span in spans]


# ---- streams that are left early -----------------------------------------------------------------------------


def test_a_stream_that_is_left_is_told_with_what_it_has_used(tmp_path: Path) -> None:
    bench = bench_of(tmp_path, ["one ", StreamChunk(usage=Usage(7, 2)), "two ", "three"])

    async def leave() -> None:
        async with bench.ask().execute_streaming() as stream:
            async for chunk in stream:
                if chunk.usage is not None:
                    break

    seen = watched(bench, leave, Seen())
    left = seen.one("model_cancelled")
    assert (left.data["input_tokens"], left.data["output_tokens"]) == (7, 2)
    assert "estimated" not in left.data
    assert seen.kinds[-2:] == ["attempt_cancelled", "model_cancelled"]


def test_what_nobody_has_counted_is_estimated_and_said_to_be(tmp_path: Path) -> None:
    bench = bench_of(tmp_path, ["one ", "two ", ServerError("cut")])
    seen = Seen()
    with pytest.raises(ModelError):
        watched(bench, bench.ask().streaming().execute, seen)
    failed = seen.one("model_error")
    assert failed.data["estimated"] is True
    assert failed.data["output_tokens"] == 2


def test_a_call_that_is_cancelled_has_neither_succeeded_nor_failed(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {"toy": Slow(100.0)})

    async def cancel() -> None:
        task = asyncio.create_task(bench.ask().execute())
        await asyncio.sleep(3.0)
        task.cancel()
        await asyncio.wait([task])

    seen = watched(bench, cancel, Seen())
    assert seen.kinds == ["model_start", "attempt_start", "attempt_cancelled", "model_cancelled"]
    assert seen.one("model_cancelled").duration == 3.0


# ---- outside of any flow -------------------------------------------------------------------------------------


def test_a_call_outside_of_any_flow_is_a_run_of_its_own(tmp_path: Path) -> None:
    bench = bench_of(tmp_path, "one", "two")

    async def twice() -> None:
        await bench.ask().execute()
        await bench.ask().execute()

    seen = watched(bench, twice, Seen())
    starts = [event for event in seen.events if event.kind == "model_start"]
    assert [(event.path, event.node, event.parent, event.sequence) for event in starts] == [("toy/m", "", None, 1)] * 2
    assert len({event.run_id for event in starts}) == 2


def test_all_requests_of_one_question_are_one_run(tmp_path: Path) -> None:
    bench = bench_of(tmp_path, Response((ToolCall("c1", "add", {"a": 1}),), "m", "toy"), "done")

    async def add(a: int) -> int:
        """Add."""
        return a + 1

    seen = watched(bench, bench.ask().tools(add).execute, Seen())
    assert len({event.run_id for event in seen.events}) == 1
    assert [kind for kind in seen.kinds if not kind.startswith("attempt")] == [
        *("model_start", "model_success", "tool_start", "tool_success", "model_start", "model_success")
    ]


def test_a_stand_in_belongs_to_the_same_run(tmp_path: Path) -> None:
    bench = bench_of(tmp_path, ServerError("down"))
    bench.add("other", ScriptedProvider(["fine"], name="other"))
    ask = bench.ask().retry(RetryPolicy(max_attempts=1)).fallback("other/m")
    seen = watched(bench, ask.execute, Seen())
    assert len({event.run_id for event in seen.events}) == 1
    assert seen.one("fallback").data["to"] == "other/m"


@pytest.mark.parametrize("streaming", [False, True])
def test_an_answer_names_its_run(tmp_path: Path, streaming: bool) -> None:
    bench = bench_of(tmp_path, "one", "two")
    replies: list[Response] = []

    async def ask() -> None:
        replies.append(await bench.ask().streaming(streaming).execute_full())

    seen = watched(bench, ask, Seen())
    bench.run(ask())
    assert [reply.run_id for reply in replies] == [seen.events[0].run_id, None]


def test_a_stream_is_watched_that_was_made_before_there_was_a_loop(tmp_path: Path) -> None:
    bench = bench_of(tmp_path, ["one ", "two"])
    seen = Seen()
    with observe(seen):
        stream = bench.ask().execute_streaming()
        assert bench.run(stream.collect()).text == "one two"
    assert seen.kinds == ["model_start", "attempt_start", "attempt_success", "model_success"]


# ---- contents ------------------------------------------------------------------------------------------------


def test_prompts_and_answers_are_told_only_where_somebody_wants_them(tmp_path: Path) -> None:
    bench = bench_of(tmp_path, "secret answer", "secret answer")
    turns = [Message("user", ("secret prompt", Image(b"\x89PNG\r\n\x1a\n")))]  # type: ignore[arg-type]

    async def ask() -> None:
        await LLMClientBuilder(lambda: bench.registry, Call(model="toy/m")).messages(turns).execute()

    assert "secret" not in repr(watched(bench, ask, Seen()).events)
    seen = watched(bench, ask, Seen(content=True))
    assert seen.one("model_start").data["messages"] == [{"role": "user", "content": "secret prompt\n[image image/png]"}]
    assert seen.one("model_success").data["answer"] == "secret answer"


@pytest.mark.parametrize("wanted", [True, False])
def test_what_does_not_fit_is_quoted_only_where_contents_are_wanted(tmp_path: Path, wanted: bool) -> None:
    bench = bench_of(tmp_path, "a secret that is no JSON", '{"years": 7}')
    seen = watched(bench, bench.ask().output(Age).execute, Seen(content=wanted))
    told = seen.one("output_retry").data
    assert "secret" not in str(told["problem"])
    assert ("secret" in str(told.get("quote"))) is wanted


def test_pieces_are_told_only_where_somebody_wants_them(tmp_path: Path) -> None:
    bench = bench_of(tmp_path, ["a ", "b"], ["a ", "b"])
    ask = bench.ask().streaming().execute
    assert "chunk" not in watched(bench, ask, Seen()).kinds
    assert watched(bench, ask, Seen(chunks=True)).kinds.count("chunk") == 2


def test_a_node_that_asks_a_model_streams_only_where_somebody_wants_pieces(tmp_path: Path) -> None:
    from agentflow.llm.node import LLMNode

    asked: list[str] = []

    class Two(Slow):
        async def execute(self, request: Request) -> Response:
            asked.append("whole")
            return Response("x", "m", "toy")

        async def execute_streaming(self, request: Request) -> AsyncGenerator[StreamChunk, None]:
            asked.append("streamed")
            yield StreamChunk("x", finish_reason="stop")

    bench = Bench(tmp_path, {"toy": Two(0.0)})
    flow = AsyncFlow(LLMNode(bench.ask(), prompt="Hi", writes="out"), clock=bench.clock)
    watched(bench, flow.run, Seen())
    watched(bench, flow.run, Seen(chunks=True))
    assert asked == ["whole", "streamed"]


# ---- the architecture's own picture --------------------------------------------------------------------------


async def test_the_data_flow_diagram_can_be_read_off_a_trace(serve: Serve, tmp_path: Path) -> None:
    """User → AgentFlow → registry → request_start → provider → HTTP POST → response → request_complete → user."""

    async def answer(exchange: Exchange) -> None:
        await exchange.respond({"choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}]})

    server = await serve(answer)
    (tmp_path / "models.yml").write_text(
        f"providers: {{openai: {{base_url: '{server.url}'}}}}\nmodels: {{gpt-4o: {{provider: openai}}}}\n"
    )
    registry = ModelRegistry.load(environ={"OPENAI_API_KEY": "sk-x"}, cwd=tmp_path, home=tmp_path)
    seen = Seen()
    with observe(seen):
        assert await LLMClientBuilder(lambda: registry, Call(model="gpt-4o")).prompt("Hello").execute() == "Hello"
    await registry.aclose()
    request_start, post, response, request_complete = seen.events
    assert request_start.kind == "model_start"
    assert (request_start.data["model"], request_start.data["provider"]) == (
        "gpt-4o",
        "openai",
    )
    assert post.kind == "attempt_start"
    assert (response.kind, response.data["method"], response.data["status"]) == ("attempt_success", "POST", 200)
    assert str(response.data["url"]).endswith("/chat/completions")
    assert request_complete.kind == "model_success"
    assert request_start.at <= post.at <= response.at <= request_complete.at


def test_the_clock_of_a_call_is_the_registrys(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {"toy": Slow(30.0)})
    assert isinstance(bench.clock, VirtualClock)
    success = watched(bench, bench.ask().execute, Seen()).one("model_success")
    assert (success.at, success.duration) == (30.0, 30.0)
    assert success.data["timing"]["generation"] == 30.0  # type: ignore[index]


def test_a_beginning_that_broke_is_told_as_a_lost_request(tmp_path: Path) -> None:
    """It was paid for, though nobody said how much of it: what it may have cost stands beside the answer's cost."""
    price = "models: {m: {provider: toy, price: {input: 1.0, output: 1000000.0}}}"
    anew = RetryPolicy(max_attempts=2, base_delay=1.0, jitter="none", after_first_chunk=True)
    bench = bench_of(tmp_path, ["one two ", ServerError("cut")], ["all ", "of it"], yml=price)
    seen = watched(bench, bench.ask("m").retry(anew).streaming().execute, Seen())
    told = seen.one("model_success").data
    assert told["lost_requests"] == 1
    assert isinstance(told["lost_cost"], float)
    assert 1.0 < told["lost_cost"] < 4.0  # two or three tokens at a dollar each


@pytest.mark.parametrize("streaming", [False, True])
def test_what_a_call_cost_that_was_sent_and_never_answered_is_unknown_and_not_nothing(
    tmp_path: Path, streaming: bool
) -> None:
    bench = Bench(tmp_path, {"toy": Slow(100.0)})
    seen = Seen()

    async def late_and_left() -> None:
        with pytest.raises(ModelError):
            await bench.ask().timeout(5).streaming(streaming).execute()
        task = asyncio.create_task(bench.ask().streaming(streaming).execute())
        await asyncio.sleep(1.0)
        task.cancel()
        await asyncio.wait([task])

    watched(bench, late_and_left, seen)
    late, left = seen.one("model_error").data, seen.one("model_cancelled").data
    assert ("cost" in late, late.get("cost")) == (True, None)
    assert ("cost" in left, left.get("cost")) == (True, None)


def test_what_was_refused_cost_nothing(tmp_path: Path) -> None:
    bench = bench_of(tmp_path, ServerError("down", status=500))
    seen = Seen()
    with pytest.raises(ServerError):
        watched(bench, bench.ask().retry(RetryPolicy(max_attempts=1)).execute, seen)
    assert "cost" not in seen.one("model_error").data
