"""The error tree: what each error carries, and that the picture of it is true."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from collections.abc import Callable

import pytest

from agentflow import errors
from agentflow.errors import (
    AgentFlowError,
    ConfigurationError,
    ContextError,
    FlowError,
    InputError,
    JoinError,
    MissingExtraError,
    ModelError,
    ModelTimeoutError,
    NodeError,
    OperationTimeoutError,
    QuotaExceededError,
    RateLimitError,
    ServerError,
    StateConflict,
    StateError,
    StateKeyError,
    StepLimitError,
    StreamInterruptedError,
    UnknownModelError,
    UnknownTransition,
    describe,
)


def drawn_tree() -> dict[str, str]:
    """Child → parent, as the docstring of the module draws it."""
    parents: dict[str, str] = {}
    above: list[str] = ["AgentFlowError"]
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"    ((?:│   |    )*)[├└]── (\w+)", line)
        if match:
            depth = len(match[1]) // 4 + 1
            above[depth:] = [match[2]]
            parents[match[2]] = above[depth - 1]
    return parents


def test_the_tree_in_the_docstring_is_the_tree_in_the_code() -> None:
    drawn = drawn_tree()
    public = {name for name in errors.__all__ if name != "AgentFlowError"}

    assert set(drawn) == public
    for child, parent in drawn.items():
        assert getattr(errors, child).__bases__[0].__name__ == parent


def test_every_error_is_an_agentflow_error_and_public() -> None:
    classes = [thing for _, thing in inspect.getmembers(errors, inspect.isclass) if issubclass(thing, Exception)]

    assert all(issubclass(kind, AgentFlowError) for kind in classes)
    assert {kind.__name__ for kind in classes} == set(errors.__all__)


def test_some_are_also_pythons_own() -> None:
    assert issubclass(StateKeyError, KeyError)
    assert issubclass(OperationTimeoutError, TimeoutError)
    assert issubclass(ModelTimeoutError, OperationTimeoutError)
    assert issubclass(ContextError, StateError)


def test_a_node_error_says_where_in_which_phase_and_which_attempt() -> None:
    error = NodeError("flow/inner#2/write#1", "exec", 3, ValueError("too long"))

    assert str(error) == "flow/inner#2/write#1 failed in exec, attempt 3: ValueError: too long"
    assert (error.node, error.phase, error.attempt, error.siblings) == ("flow/inner#2/write#1", "exec", 3, ())


def test_a_node_error_is_worth_repeating_when_its_cause_is() -> None:
    assert NodeError("f/a#1", "exec", 1, ServerError("down")).retryable
    assert not NodeError("f/a#1", "exec", 1, QuotaExceededError("no money")).retryable
    assert not NodeError("f/a#1", "exec", 1, ValueError("odd")).retryable


def test_an_unknown_transition_lists_the_known_actions() -> None:
    error = UnknownTransition("f/judge#1", "maybe", ["accept", "rewrite"])

    assert "returned 'maybe'" in str(error)
    assert "'accept', 'rewrite'" in str(error)
    assert (error.node, error.action, error.known) == ("f/judge#1", "maybe", ("accept", "rewrite"))


def test_a_state_key_error_reads_as_a_sentence() -> None:
    assert str(StateKeyError("topci", ["topic"])) == "the state has no 'topci'; did you mean 'topic'?"
    assert str(StateKeyError("x")) == "the state has no 'x'"


def test_a_conflict_names_the_key_and_both_writers() -> None:
    error = StateConflict("draft", "left", "right")

    assert (error.key, error.writers) == ("draft", ("left", "right"))
    assert all(word in str(error) for word in ("'draft'", "'left'", "'right'", "state.add()"))


def test_a_step_limit_says_how_to_raise_it() -> None:
    error = StepLimitError("article", 1000, "write")

    assert "max_steps is 1,000" in str(error)
    assert (error.max_steps, error.node) == (1000, "write")


def test_a_join_error_holds_why() -> None:
    cause = NodeError("f/a#1", "exec", 1, ValueError("no"))
    error = JoinError("f/(a, b)", 2, [cause])

    assert error.failures == (cause,)
    assert "ValueError: no" in str(error)


def test_a_missing_extra_gives_the_command_that_installs_it() -> None:
    assert "pip install 'agentflow-engine[otel]'" in str(MissingExtraError("tracing", "otel"))


def test_an_unknown_model_suggests_the_nearest() -> None:
    assert str(UnknownModelError("gpt-4", ["gpt-4o"])) == "unknown model 'gpt-4': did you mean gpt-4o?"
    assert "agentflow models" in str(UnknownModelError("gpt-4"))
    assert str(UnknownModelError("lb/x", provider="lb")).startswith(
        "unknown model 'lb/x' (no provider 'lb' is configured): "
    )


def test_a_configuration_error_names_its_source_where_known() -> None:
    assert str(ConfigurationError("bad timeout", source="models.yml:3")) == "models.yml:3: bad timeout"
    assert str(ConfigurationError("bad timeout")) == "bad timeout"


def test_a_model_error_carries_facts() -> None:
    error = RateLimitError("slow down", provider="openai", model="gpt-4o", status=429, request_id="r1", retry_after=2.5)

    assert str(error) == "openai/gpt-4o: slow down (HTTP 429, request r1)"
    assert (error.provider, error.model, error.status, error.request_id, error.retry_after) == (
        "openai",
        "gpt-4o",
        429,
        "r1",
        2.5,
    )


def test_a_model_time_out_is_a_model_error_and_a_time_out() -> None:
    error = ModelTimeoutError("first byte", 10, provider="openai", model="gpt-4o")

    assert isinstance(error, ModelError)
    assert isinstance(error, TimeoutError)
    assert (error.operation, error.seconds) == ("first byte", 10)
    assert str(error) == "openai/gpt-4o: no answer in time: first byte took longer than 10 s"


def test_an_interrupted_stream_keeps_what_had_arrived() -> None:
    assert StreamInterruptedError("cut", partial="Once upon").partial == "Once upon"


@pytest.mark.parametrize(
    ("error", "worth_it"),
    [
        (RateLimitError("x"), True),
        (QuotaExceededError("x"), False),
        (ServerError("x"), True),
        (ModelTimeoutError("connect", 1), True),
        (OperationTimeoutError("exec", 1), True),
        (errors.BadRequestError("x"), False),
        (errors.AuthenticationError("x"), False),
        (InputError("x"), False),
        (FlowError("x"), False),
    ],
)
def test_an_error_says_whether_the_same_attempt_may_succeed_later(error: AgentFlowError, worth_it: bool) -> None:
    assert error.retryable is worth_it


def test_describe_names_the_type_unless_the_message_speaks_for_itself() -> None:
    assert describe(ValueError("odd")) == "ValueError: odd"
    assert describe(ValueError()) == "ValueError"
    assert describe(InputError("the input lacks 'topic'")) == "the input lacks 'topic'"


MADE: dict[type[AgentFlowError], Callable[[], AgentFlowError]] = {
    ConfigurationError: lambda: ConfigurationError("bad", source="models.yml:3"),
    MissingExtraError: lambda: MissingExtraError("tracing", "otel"),
    UnknownModelError: lambda: UnknownModelError("lb/gpt-4", ["lab/gpt-4"], provider="lb"),
    NodeError: lambda: NodeError("f/a#1", "exec", 2, ServerError("down")),
    UnknownTransition: lambda: UnknownTransition("f/a#1", "maybe", ["yes", "no"]),
    StepLimitError: lambda: StepLimitError("f", 10, "a"),
    JoinError: lambda: JoinError("f/(a, b)", 2, [InputError("no", field="topic")]),
    InputError: lambda: InputError("no", field="topic"),
    StateKeyError: lambda: StateKeyError("topci", ["topic"]),
    StateConflict: lambda: StateConflict("draft", "left", "right"),
    errors.SerializationError: lambda: errors.SerializationError("state.x", "no JSON"),
    OperationTimeoutError: lambda: OperationTimeoutError("exec", 1.5),
    errors.PoolTimeoutError: lambda: errors.PoolTimeoutError("browsers", 2.0, in_use=4),
    errors.UnboundedCostError: lambda: errors.UnboundedCostError("m", "no price is known", "state one"),
    errors.BudgetExceededError: lambda: errors.BudgetExceededError(
        "auto/day", limit=20.0, spent=19.5, reserved=0.4, needed=0.2, resets_at=1e9, retry_after=60.0
    ),
    errors.NoCandidateError: lambda: errors.NoCandidateError("auto", {"small": "it cannot: tools"}, unwell=True),
    errors.LimitExceededError: lambda: errors.LimitExceededError("tool_rounds", 10, 11),
    errors.ToolError: lambda: errors.ToolError("search", "no"),
    errors.ToolArgumentsError: lambda: errors.ToolArgumentsError("search", "no"),
    ModelTimeoutError: lambda: ModelTimeoutError("first byte", 10, provider="openai", model="gpt-4o"),
    errors.RunStoreError: lambda: errors.RunStoreError("no runs", path="runs.db"),
    errors.UnknownRunError: lambda: errors.UnknownRunError("ab", ["abc", "abd"], path="runs.db"),
    errors.RunHeldError: lambda: errors.RunHeldError("r1", "process 7"),
    errors.RunEndedError: lambda: errors.RunEndedError("r1", "done", "is over"),
    errors.UnknownBatchError: lambda: errors.UnknownBatchError("af-1", ["af-12", "af-13"], path="batches.db"),
    errors.BatchRefusedError: lambda: errors.BatchRefusedError("a line is no JSON", job="af-1", code="bad_line"),
    errors.CompressionError: lambda: errors.CompressionError("no weights"),
    errors.ModelFolderError: lambda: errors.ModelFolderError("model", "no config.json"),
    errors.UnsupportedArchitectureError: lambda: errors.UnsupportedArchitectureError("m", "Odd", ["Llama"]),
    errors.RecipeError: lambda: errors.RecipeError("nothing to do", stage=2),
    errors.CalibrationError: lambda: errors.CalibrationError("GPTQ", needed=10, found=1),
    errors.ShortageError: lambda: errors.ShortageError("disk", needed=2, available=1, advice="make room"),
    errors.BackendError: lambda: errors.BackendError("llama.cpp", "failed", output="no such file"),
    errors.ArtifactError: lambda: errors.ArtifactError("artifact", "no manifest"),
    errors.QualityGateError: lambda: errors.QualityGateError("artifact", ["KL 0.2 > 0.1"]),
    errors.BatchRequestError: lambda: errors.BatchRequestError("expired", "24 hours are over", job="af-1"),
    errors.FlowChangedError: lambda: errors.FlowChangedError("r1", ["write is gone"]),
    errors.InterruptTimeoutError: lambda: errors.InterruptTimeoutError("f/ask#1!wait:1", 60.0),
    errors.ProcessError: lambda: errors.ProcessError("it died", exit_code=-9, retryable=True),
    errors.OutputError: lambda: errors.OutputError("no object", raw="[", provider="openai"),
    StreamInterruptedError: lambda: StreamInterruptedError("cut", partial="Once", request_id="r1"),
}


def made(kind: type[AgentFlowError]) -> AgentFlowError:
    """One error of a class, with all that its class can hold."""
    if kind in MADE:
        return MADE[kind]()
    if issubclass(kind, errors.RejectedError):
        return kind("openai", "come back later", retry_after=3.0)
    if issubclass(kind, ModelError):
        return kind("no", provider="lab", model="m", status=500, code="c", request_id="r1", retry_after=2.5)
    return kind("no")


def facts(error: BaseException) -> dict[str, object]:
    """What an error holds; errors inside it by their text, since errors equal only themselves."""
    return {name: repr(value) for name, value in vars(error).items()}


@pytest.mark.parametrize("name", errors.__all__)
@pytest.mark.parametrize("travel", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_every_error_survives_a_copy_and_a_trip_to_another_process(
    name: str, travel: Callable[[AgentFlowError], AgentFlowError]
) -> None:
    """Class, message and attributes are those that it had: no message is made twice."""
    error = made(getattr(errors, name))
    there = travel(error)
    assert type(there) is type(error)
    assert (str(there), there.args, facts(there)) == (str(error), error.args, facts(error))
    assert there.retryable is error.retryable


def test_what_was_added_to_an_error_travels_too() -> None:
    """The branches that failed beside it, the names that were suggested, the notes."""
    node = NodeError("f/a#1", "exec", 1, ValueError("odd"))
    node.siblings = (ServerError("down", provider="lab"),)
    node.add_note("in the second batch")
    missing = errors.NotFoundError("no such model", provider="lab")
    missing.suggest(["gpt-4o"])

    there, again = pickle.loads(pickle.dumps((node, missing)))

    assert [str(error) for error in there.siblings] == ["lab: down"]
    assert there.__notes__ == ["in the second batch"]
    assert (again.suggestions, str(again)) == (("gpt-4o",), str(missing))
