"""What a breaker makes of an error: the service's own failures count, and nothing that went wrong on our side."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from agentflow import errors
from agentflow.core.robustness.breaker_verdict import default_verdict
from agentflow.errors import (
    AgentFlowError,
    BadRequestError,
    ModelError,
    ModelTimeoutError,
    NodeError,
    OperationTimeoutError,
    PoolTimeoutError,
    RateLimitError,
    ServerError,
)


def model_error(name: str) -> Exception:
    made: dict[str, Callable[[], Exception]] = {
        "ModelTimeoutError": lambda: errors.ModelTimeoutError("total", 1.0),
        "StreamInterruptedError": lambda: errors.StreamInterruptedError("cut", partial=""),
        "OutputError": lambda: errors.OutputError("no JSON", raw=""),
        "LimiterError": lambda: errors.LimiterError("limiter", "too long"),
    }
    return made[name]() if name in made else getattr(errors, name)("message")


ILL = "ServerError OverloadedError ModelTimeoutError ModelConnectionError ProtocolError StreamInterruptedError".split()
SAID_NO = (
    "RateLimitError QuotaExceededError LimiterError AuthenticationError PermissionDeniedError NotFoundError "
    "BadRequestError ContextLengthError ContentFilterError OutputError"
).split()


@pytest.mark.parametrize("name", ILL)
def test_model_errors_that_say_the_service_is_ill(name: str) -> None:
    assert default_verdict(model_error(name)) == "failure"


@pytest.mark.parametrize("name", SAID_NO)
def test_model_errors_that_say_nothing_of_the_service(name: str) -> None:
    assert default_verdict(model_error(name)) == "ignore"


@pytest.mark.parametrize(
    ("status", "verdict"), [(500, "failure"), (599, "failure"), (499, "ignore"), (418, "ignore"), (None, "ignore")]
)
def test_other_model_errors_go_by_their_status(status: int | None, verdict: str) -> None:
    assert default_verdict(errors.ModelError("odd", status=status)) == verdict


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (errors.CircuitOpenError("inner", "open"), "ignore"),
        (errors.LoadShedError("shedder", "full"), "ignore"),
        (errors.PoolClosedError("pool", "closed"), "ignore"),
        (OperationTimeoutError("total", 1.0), "failure"),
        (TimeoutError(), "failure"),
        (ConnectionResetError(), "failure"),
        (ValueError("a bug"), "failure"),
        (asyncio.CancelledError(), "ignore"),
        (KeyboardInterrupt(), "ignore"),
        (ExceptionGroup("two", [RateLimitError("slow down"), ServerError("down")]), "failure"),
        (ExceptionGroup("two", [RateLimitError("slow down"), BadRequestError("no")]), "ignore"),
        (BaseExceptionGroup("stop", [KeyboardInterrupt(), ServerError("down")]), "ignore"),
    ],
    ids=repr,
)
def test_other_errors(error: BaseException, verdict: str) -> None:
    assert default_verdict(error) == verdict


# ---- errors of our own

OURS = [
    errors.ConfigurationError("no such file"),
    errors.MissingKeyError("OPENAI_API_KEY"),
    errors.MissingExtraError("audio", "audio"),
    errors.UnknownModelError("gpt-5"),
    errors.UnsupportedError("no pictures"),
    errors.GraphError("no start"),
    errors.FlowError("odd"),
    errors.UnknownTransition("node", "left", ["right"]),
    errors.StepLimitError("flow", 10, "node"),
    errors.JoinError("section", 2, [ServerError("down")]),
    errors.InputError("no name"),
    errors.StateError("odd"),
    errors.StateKeyError("name"),
    errors.StateConflict("key", "a", "b"),
    errors.ContextError("none"),
    errors.SerializationError("a.b", "a set"),
    errors.LimitExceededError("dollars", 1.0, 2.0),
    errors.UnboundedCostError("gpt-5", "no price is known", "state one"),
    errors.BudgetExceededError("day", limit=1.0, spent=1.0, reserved=0.0, needed=0.1),
    errors.BudgetUnavailableError("budget", "no answer"),
    errors.NoCandidateError("auto", {"small": "it cannot: tools"}),
    errors.ToolError("search", "down"),
    errors.ToolArgumentsError("search", "no query"),
    errors.DocumentError("no PDF"),
    errors.FlowFileError("no flow"),
    errors.OutputError("no JSON", raw=""),
    errors.AlertActionError("no webhook"),
    errors.AuditError("disk full"),
    errors.AuditLockedError("in use"),
    errors.RunStoreError("disk full", path="runs.db"),
    errors.UnknownRunError("abc", path="runs.db"),
    errors.DurabilityError("disk full"),
    errors.RunHeldError("abc", "process 7"),
    errors.RunExistsError("taken"),
    errors.RunEndedError("abc", "done", "is over"),
    errors.BatchError("no such model"),
    errors.UnknownBatchError("af-1", path="batches.db"),
    errors.BatchHeldError("af-1"),
    errors.BatchRefusedError("a line is no JSON"),
    errors.BatchRequestError("expired", "24 hours are over"),
    errors.FlowChangedError("abc", ["a node is gone"]),
    errors.AnswerError("no number"),
    errors.InterruptTimeoutError("flow/ask#1!wait:1", 60.0),
    errors.CompressionError("no weights"),
    errors.ModelFolderError("model", "no config.json"),
    errors.UnsupportedArchitectureError("model", "OddForCausalLM", ["LlamaForCausalLM"]),
    errors.RecipeError("nothing to do"),
    errors.CalibrationError("GPTQ", needed=10, found=1),
    errors.ShortageError("disk", needed=2, available=1, advice="make room"),
    errors.BackendError("llama.cpp", "not installed"),
    errors.ArtifactError("artifact", "no manifest"),
    errors.QualityGateError("artifact", ["KL 0.2 > 0.1"]),
    errors.ProcessError("it died", exit_code=-9, retryable=True),
    AgentFlowError("odd"),
]


@pytest.mark.parametrize("error", OURS, ids=lambda error: type(error).__name__)
def test_what_went_wrong_on_our_side_says_nothing_of_the_service(error: Exception) -> None:
    assert default_verdict(error) == "ignore"


def test_every_error_of_ours_has_a_verdict_here_or_above() -> None:
    """A new kind of error has to be thought about."""
    named = {*ILL, *SAID_NO} | {type(error).__name__ for error in OURS}
    others = {"ModelError", "NodeError", "OperationTimeoutError", "PoolTimeoutError"}
    guards = {"RejectedError", "CircuitOpenError", "LoadShedError", "PoolClosedError"}
    assert named | others | guards == set(errors.__all__)


@pytest.mark.parametrize(
    "error",
    [
        OperationTimeoutError("pool", 1.0),
        ModelTimeoutError("pool", 1.0),
        PoolTimeoutError("connections", 1.0, in_use=8),
    ],
    ids=repr,
)
def test_who_waited_for_a_connection_of_ours_has_learnt_nothing_of_the_service(error: Exception) -> None:
    assert default_verdict(error) == "ignore"


@pytest.mark.parametrize("phase", ["connect", "first byte", "idle", "total"])
def test_a_time_out_of_any_other_phase_is_a_failure(phase: str) -> None:
    assert default_verdict(ModelTimeoutError(phase, 1.0)) == "failure"


def failed_node(cause: BaseException | None) -> NodeError:
    error = NodeError("flow/ask#1", "exec", 1, cause or ValueError())
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("cause", "verdict"),
    [
        (ServerError("down"), "failure"),
        (ValueError("a bug"), "failure"),
        (BadRequestError("no"), "ignore"),
        (errors.StateKeyError("name"), "ignore"),
        (failed_node(ServerError("down")), "failure"),
        (failed_node(RateLimitError("slow down")), "ignore"),
        (asyncio.CancelledError(), "ignore"),
        (None, "ignore"),
    ],
    ids=repr,
)
def test_a_failed_node_is_judged_by_its_cause(cause: BaseException | None, verdict: str) -> None:
    assert default_verdict(failed_node(cause)) == verdict


def test_a_cause_that_leads_back_to_itself_is_no_failure() -> None:
    one, other = failed_node(None), failed_node(None)
    one.__cause__, other.__cause__ = other, one
    assert default_verdict(one) == "ignore"


def test_a_refusal_of_the_limiter_is_none_of_the_service_whatever_it_is_besides() -> None:
    error = errors.LimiterError("limiter", "too long")
    error.status = 503
    assert default_verdict(error) == "ignore"


@pytest.mark.parametrize("name", ["RateLimitError", "AuthenticationError", "NotFoundError", "BadRequestError"])
def test_what_says_no_is_ignored_whatever_its_status(name: str) -> None:
    error: ModelError = getattr(errors, name)("message", status=503)
    assert default_verdict(error) == "ignore"
