"""Fallbacks: which candidate answers for which error, and what is raised where none is left."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.support.sweep import sweep

from agentflow.clock import VirtualClock
from agentflow.core.robustness.decision import Decision
from agentflow.core.robustness.fallback import Candidate, Fallback, falls_back
from agentflow.errors import (
    AuthenticationError,
    BadRequestError,
    CircuitOpenError,
    ConfigurationError,
    ContentFilterError,
    ContextLengthError,
    LimiterError,
    LimitExceededError,
    LoadShedError,
    ModelConnectionError,
    ModelTimeoutError,
    NotFoundError,
    OperationTimeoutError,
    OutputError,
    OverloadedError,
    PermissionDeniedError,
    ProtocolError,
    QuotaExceededError,
    RateLimitError,
    ServerError,
)


def candidate(name: str, outcome: object = None, **options: Any) -> Candidate[[str], str]:
    """Answers with its name and the question, after a moment, or raises the outcome."""

    async def ask(question: str) -> str:
        await asyncio.sleep(1)
        if isinstance(outcome, BaseException):
            raise outcome
        return f"{name}: {question}"

    return Candidate(name, ask, **options)


def run(*candidates: Candidate[[str], str], **options: Any) -> str:
    return VirtualClock().run(Fallback(*candidates, **options).run("why?"))


def test_the_first_answers_where_it_can() -> None:
    assert run(candidate("large"), candidate("small")) == "large: why?"


def test_the_next_answers_where_it_cannot() -> None:
    assert run(candidate("a", ServerError("1")), candidate("b", RateLimitError("2")), candidate("c")) == "c: why?"


@pytest.mark.parametrize(
    "error",
    [
        AuthenticationError("key"),
        PermissionDeniedError("key"),
        NotFoundError("model"),
        ContextLengthError("long"),
        RateLimitError("slow"),
        QuotaExceededError("money"),
        OverloadedError("busy"),
        ServerError("down"),
        ModelTimeoutError("total", 3),
        OperationTimeoutError("total", 3),
        ModelConnectionError("lost"),
        ProtocolError("html"),
        CircuitOpenError("breaker", "open"),
        LoadShedError("shedder", "full"),
        LimiterError("limiter", "too long"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_another_model_may_not_have_that(error: Exception) -> None:
    assert falls_back(error)
    assert run(candidate("a", error), candidate("b")) == "b: why?"


@pytest.mark.parametrize(
    "error",
    [
        BadRequestError("wrong"),
        ContentFilterError("blocked"),
        ConfigurationError("models.yml"),
        LimitExceededError("tokens", 1, 2),
        OutputError("no", raw=""),
        ValueError("mine"),
        TimeoutError("mine"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_is_wrong_with_the_request_or_elsewhere_is_raised_at_once(error: Exception) -> None:
    assert not falls_back(error)
    with pytest.raises(type(error)) as caught:
        run(candidate("a", error), candidate("b"))
    assert caught.value is error
    assert not hasattr(error, "__notes__")


def test_a_candidate_that_does_not_answer_for_an_error_is_passed_over() -> None:
    longer = candidate("longer", when=(ContextLengthError,))
    local = candidate("local", when=lambda error: isinstance(error, ServerError))
    assert run(candidate("a", ContextLengthError("long")), longer, local) == "longer: why?"
    assert run(candidate("a", ServerError("down")), longer, local) == "local: why?"
    with pytest.raises(RateLimitError):
        run(candidate("a", RateLimitError("slow")), longer, local)


def test_a_condition_is_asked_of_the_error_right_before_it() -> None:
    longer = candidate("longer", when=(ContextLengthError,))
    assert run(candidate("a", ServerError("1")), candidate("b", ContextLengthError("2")), longer) == "longer: why?"


def test_the_last_error_itself_is_raised_with_the_earlier_ones_as_notes() -> None:
    last = OverloadedError("busy")
    for _ in range(2):  # the same object once more
        with pytest.raises(OverloadedError) as caught:
            run(candidate("a", ServerError("down")), candidate("b", RateLimitError("slow\ndown")), candidate("c", last))
        assert caught.value is last
    assert last.__notes__ == ["a failed before: ServerError: down", "b failed before: RateLimitError: slow down"]


def test_it_decorates_the_function_that_comes_first() -> None:
    calls: list[str] = []

    @Fallback(candidate("small"))
    async def ask(question: str) -> str:
        """Ask the large one."""
        calls.append(question)
        raise ServerError("down")

    assert (ask.__name__, ask.__doc__) == ("ask", "Ask the large one.")
    assert VirtualClock().run(ask("why?")) == "small: why?"
    assert calls == ["why?"]


def test_each_is_called_with_all_arguments_also_those_by_name() -> None:
    async def fails(question: str, *, words: int) -> str:
        raise ServerError("down")

    async def answers(question: str, *, words: int) -> str:
        return f"{question} in {words} words"

    steps = Fallback(Candidate("a", fails), Candidate("b", answers))
    assert VirtualClock().run(steps.run("why?", words=5)) == "why? in 5 words"
    assert VirtualClock().run(Fallback(Candidate("b", answers))(fails)("why?", words=7)) == "why? in 7 words"


def test_a_decorated_function_is_told_of_by_its_name_where_it_has_one() -> None:
    heard: list[Decision] = []

    class Nameless:
        async def __call__(self, question: str) -> str:
            raise ServerError("down")

    async def large(question: str) -> str:
        raise ServerError("down")

    for first in (large, Nameless()):
        VirtualClock().run(Fallback(candidate("small"), listener=heard.append)(first)("why?"))
    assert [each.data["source"] for each in heard] == ["large", "function"]


def test_the_listener_hears_of_each_step_and_may_fail() -> None:
    heard: list[Decision] = []

    def listen(decision: Decision) -> None:
        heard.append(decision)
        raise RuntimeError("listener")

    run(candidate("a", ServerError("1")), candidate("b"), name="answer", listener=listen)
    assert heard == [Decision("fallback", "answer", {"source": "a", "target": "b", "error": "ServerError"})]


def test_what_makes_no_sense_is_refused() -> None:
    async def stream(question: str) -> Any:
        yield question

    with pytest.raises(ValueError, match="at least one Candidate"):
        Fallback()
    with pytest.raises(TypeError, match="function of candidate 'a'"):
        Candidate("a", 3)  # type: ignore[arg-type]
    for when in (ValueError, (ValueError, 3), "ValueError", None):
        with pytest.raises(TypeError, match="when of candidate 'a'"):
            candidate("a", when=when)
    with pytest.raises(TypeError, match="async generator"):
        Fallback(candidate("a"))(stream)


# ---- the caller leaves ---------------------------------------------------------------------------------------


def test_the_callers_cancellation_passes_through_at_once() -> None:
    clock = VirtualClock()

    async def main() -> None:
        async with asyncio.timeout(0.5):
            await Fallback(candidate("a"), candidate("b")).run("why?")

    with pytest.raises(TimeoutError):
        clock.run(main())
    assert clock.monotonic() == 0.5


def test_an_error_that_somebody_made_of_a_cancellation_does_not_go_on() -> None:
    """Some libraries do; nobody would cancel a second time."""
    clock = VirtualClock()

    async def deaf(question: str, /) -> str:
        try:
            return await asyncio.sleep(60, question)
        except asyncio.CancelledError:
            raise ModelConnectionError("lost") from None

    async def main() -> None:
        async with asyncio.timeout(0.5):
            await Fallback(Candidate("deaf", deaf), candidate("b")).run("why?")

    with pytest.raises(ModelConnectionError):
        clock.run(main())
    assert clock.monotonic() == 0.5


def test_cancelled_at_any_wait_nobody_else_is_asked() -> None:
    asked: list[str] = []

    def note(name: str, error: Exception | None) -> Candidate[[], str]:
        async def ask() -> str:
            asked.append(name)
            await asyncio.sleep(1)
            if error is not None:
                raise error
            return name

        return Candidate(name, ask)

    async def operation(clock: VirtualClock) -> None:
        asked.clear()
        steps = Fallback(note("a", ServerError("1")), note("b", ServerError("2")), note("c", None))
        try:
            await steps.run()
        except asyncio.CancelledError:
            asked.append("cancelled")
            raise

    def check() -> None:
        assert "cancelled" not in asked[:-1]

    assert sweep(operation, check) == 3
