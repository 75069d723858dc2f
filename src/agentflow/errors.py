"""Every error AgentFlow raises, in one tree.

    AgentFlowError
    ├── ConfigurationError            models.yml, the environment or an argument is wrong
    │   ├── MissingKeyError           a provider's key is in no environment variable
    │   ├── MissingExtraError         a feature needs `pip install 'agentflow-engine[x]'`
    │   ├── UnknownModelError         no model of that name; carries suggestions
    │   ├── UnsupportedError          the model cannot do what was asked; found before any byte is sent
    │   └── UnboundedCostError        a hard budget cannot tell what a call may cost at most
    ├── GraphError                    a flow was put together wrongly; raised when it is built
    ├── FlowError                     a run went wrong
    │   ├── NodeError                 a node failed: path, phase, attempt, cause, siblings
    │   ├── UnknownTransition         a node returned an action that no edge carries
    │   ├── StepLimitError            more than `max_steps` visits
    │   ├── JoinError                 too few branches of a section succeeded
    │   ├── InputError                the input does not fit the flow's schema
    │   └── InterruptTimeoutError     nobody answered in time (also a TimeoutError)
    ├── StateError                    the shared state was asked for the impossible
    │   ├── StateKeyError             no such key (also a KeyError)
    │   ├── StateConflict             two branches assigned one key
    │   ├── ContextError              the run's context is absent or of another type
    │   └── SerializationError        a value that JSON cannot hold
    ├── LimitExceededError            a limit on requests, tokens, tool rounds or dollars is used up
    ├── ToolError                     a tool failed, and the caller wanted to know
    │   └── ToolArgumentsError        a model called a tool with arguments that do not fit
    ├── OperationTimeoutError         a time limit of ours expired (also a TimeoutError)
    │   └── PoolTimeoutError          no resource came free in time
    ├── RejectedError                 a guard of ours refused a call before it was made; says when to come back
    │   ├── CircuitOpenError          the breaker is open: what is behind it has failed too often
    │   ├── LoadShedError             there is too much to do already
    │   ├── LimiterError              the limiter would wait too long, or may not wait (also a RateLimitError)
    │   ├── PoolClosedError           the pool is closed or closing
    │   ├── BudgetExceededError       a budget has no room for what the call may cost
    │   ├── NoCandidateError          a router has no model that may answer; carries why, for each of them
    │   └── BudgetUnavailableError    the store of a budget does not answer, so nobody knows whether there is room
    ├── AlertActionError              an alert's webhook or command failed
    ├── DocumentError                 a file cannot be read as a document, an image or sound
    ├── FlowFileError                 a file has no flow to run, or cannot be imported
    ├── AuditError                    what must be recorded cannot be, so it was not done
    │   └── AuditLockedError          another process writes that audit log
    ├── RunStoreError                 the file that runs are kept in is missing, damaged, or another program's
    │   └── UnknownRunError           no run in it has that id, or several begin so
    ├── DurabilityError               a run cannot be kept, or cannot go on
    │   ├── RunHeldError              another process has it
    │   ├── RunExistsError            its id belongs to a run with another input or flow
    │   ├── RunEndedError             it is over, so there is nothing to go on with
    │   ├── FlowChangedError          its flow is another than the one it began with; carries what changed
    │   └── AnswerError               an answer that does not fit, or that nobody waits for
    ├── BatchError                    a batch job cannot be made, or cannot go on
    │   ├── UnknownBatchError         no job of that id is in the file; carries those whose ids begin so
    │   ├── BatchHeldError            another process has it
    │   ├── BatchRefusedError         the provider refused a batch as a whole; carries what it said
    │   └── BatchRequestError         one request of a batch came to nothing: expired, cancelled, missing
    ├── CompressionError              a model cannot be made smaller, or what came of it cannot be used
    │   ├── ModelFolderError          a folder that is no model: something is missing in it, or damaged
    │   │   └── UnsupportedArchitectureError  a model of a kind that cannot be taken apart
    │   ├── RecipeError               stages that contradict each other, or that do not fit the model
    │   ├── CalibrationError          too little text to learn from, or to measure with
    │   ├── ShortageError             memory or disk will not suffice; found before the work begins, where it can be
    │   ├── BackendError              a program that others keep (llama.cpp, …) failed, or is not there
    │   ├── ArtifactError             an artifact is damaged, incomplete, or of a newer version
    │   └── QualityGateError          an artifact is worse than its floor; carries each measure that is
    ├── ProcessError                  work in a process of its own: it died, or something cannot travel
    └── ModelError                    a model call failed: provider, model, status, request_id, retry_after
        ├── AuthenticationError       401: the key is wrong
        ├── PermissionDeniedError     403: the key may not do this
        ├── NotFoundError             404: no such model or endpoint
        ├── BadRequestError           400, 413, 422: the request is wrong
        │   ├── ContextLengthError    the prompt is longer than the model's context
        │   └── ContentFilterError    the prompt or the answer was blocked
        ├── RateLimitError            429: too fast
        │   └── QuotaExceededError    429: no money or quota left; not retryable
        ├── OverloadedError           503, 529: the provider is overloaded
        ├── ServerError               other 5xx
        ├── ModelTimeoutError         no answer in time (also an OperationTimeoutError)
        ├── ModelConnectionError      no connection, or it broke
        ├── ProtocolError             the body is not what the API promises
        ├── OutputError               the answer does not fit the type asked for; carries the raw text
        └── StreamInterruptedError    a stream ended early; carries what had arrived

An error states facts as attributes, says in its message what to do, and never holds a key.
`retryable` tells whether the same attempt may succeed later. Errors travel between processes with all their attributes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike, fspath

__all__ = [
    "AgentFlowError",
    "AlertActionError",
    "AnswerError",
    "ArtifactError",
    "AuditError",
    "AuditLockedError",
    "AuthenticationError",
    "BackendError",
    "BadRequestError",
    "BatchError",
    "BatchHeldError",
    "BatchRefusedError",
    "BatchRequestError",
    "BudgetExceededError",
    "BudgetUnavailableError",
    "CalibrationError",
    "CircuitOpenError",
    "CompressionError",
    "ConfigurationError",
    "ContentFilterError",
    "ContextError",
    "ContextLengthError",
    "DocumentError",
    "DurabilityError",
    "FlowChangedError",
    "FlowError",
    "FlowFileError",
    "GraphError",
    "InputError",
    "InterruptTimeoutError",
    "JoinError",
    "LimitExceededError",
    "LimiterError",
    "LoadShedError",
    "MissingExtraError",
    "MissingKeyError",
    "ModelConnectionError",
    "ModelError",
    "ModelFolderError",
    "ModelTimeoutError",
    "NoCandidateError",
    "NodeError",
    "NotFoundError",
    "OperationTimeoutError",
    "OutputError",
    "OverloadedError",
    "PermissionDeniedError",
    "PoolClosedError",
    "PoolTimeoutError",
    "ProcessError",
    "ProtocolError",
    "QualityGateError",
    "QuotaExceededError",
    "RateLimitError",
    "RecipeError",
    "RejectedError",
    "RunEndedError",
    "RunExistsError",
    "RunHeldError",
    "RunStoreError",
    "SerializationError",
    "ServerError",
    "ShortageError",
    "StateConflict",
    "StateError",
    "StateKeyError",
    "StepLimitError",
    "StreamInterruptedError",
    "ToolArgumentsError",
    "ToolError",
    "UnboundedCostError",
    "UnknownBatchError",
    "UnknownModelError",
    "UnknownRunError",
    "UnknownTransition",
    "UnsupportedArchitectureError",
    "UnsupportedError",
]


class AgentFlowError(Exception):
    """The root: catch this to catch everything AgentFlow raises on purpose."""

    retryable: bool = False

    def __reduce__(self) -> tuple[Callable[..., AgentFlowError], tuple[object, ...], Mapping[str, object]]:
        """Copied and pickled by what it holds: an `__init__` makes the message of facts, and is not run again on it."""
        return _again, (type(self), self.args), self.__dict__


def _again(kind: type[AgentFlowError], args: tuple[object, ...]) -> AgentFlowError:
    error = kind.__new__(kind)
    error.args = args
    return error


# ---- configuration -------------------------------------------------------------------------------------------


class ConfigurationError(AgentFlowError):
    """A models.yml, the environment or an argument is wrong. `source` names the file and line where known."""

    def __init__(self, message: str, *, source: str | None = None) -> None:
        super().__init__(f"{source}: {message}" if source else message)
        self.source = source


class MissingKeyError(ConfigurationError):
    """A provider's API key is in none of the places where it is looked for."""


class MissingExtraError(ConfigurationError):
    """An optional feature is not installed; the message is the exact command that installs it."""

    def __init__(self, feature: str, extra: str, *, source: str | None = None) -> None:
        super().__init__(f"{feature} needs an extra: pip install 'agentflow-engine[{extra}]'", source=source)
        self.feature = feature
        self.extra = extra


class UnknownModelError(ConfigurationError):
    """No configured model has that name, nor is there a `provider` of the one before its slash; `suggestions` holds
    the nearest ones."""

    def __init__(self, model: str, suggestions: Sequence[str] = (), *, provider: str | None = None) -> None:
        hint = f"did you mean {' or '.join(suggestions)}?" if suggestions else "`agentflow models` lists them"
        reason = "" if provider is None else f" (no provider {provider!r} is configured)"
        super().__init__(f"unknown model {model!r}{reason}: {hint}")
        self.model = model
        self.suggestions = tuple(suggestions)


class UnsupportedError(ConfigurationError):
    """A model cannot do what was asked of it, as far as its entry in models.yml knows. Nothing was sent."""


class UnboundedCostError(ConfigurationError):
    """A hard budget cannot tell what a call may cost at most: nobody knows the price, or nothing bounds the answer.
    Nothing was sent. `model` is the one of which that is so."""

    def __init__(self, model: str, why: str, remedy: str) -> None:
        super().__init__(f"nobody can say what a call of {model!r} may cost at most: {why}; {remedy}")
        self.model = model


# ---- flows ---------------------------------------------------------------------------------------------------


class GraphError(AgentFlowError):
    """A flow was put together wrongly. Raised when the flow is built, before anything runs."""


class FlowError(AgentFlowError):
    """A run of a flow went wrong."""


class NodeError(FlowError):
    """A node failed for good; the cause is `__cause__`.

    `node` is the full path with visits (`flow/inner#2/write#1`), `phase` is prep, exec or post, `attempt` counts
    from 1, and `siblings` holds the errors of branches that failed beside this one.
    """

    def __init__(self, node: str, phase: str, attempt: int, cause: BaseException) -> None:
        tries = f", attempt {attempt}" if attempt > 1 else ""
        super().__init__(f"{node} failed in {phase}{tries}: {describe(cause)}")
        self.node = node
        self.phase = phase
        self.attempt = attempt
        self.siblings: tuple[Exception, ...] = ()
        self.retryable = bool(getattr(cause, "retryable", False))


class UnknownTransition(FlowError):
    """A node returned an action that none of its edges carries."""

    def __init__(self, node: str, action: str, known: Sequence[str]) -> None:
        edges = ", ".join(map(repr, known))
        super().__init__(
            f"{node} returned {action!r}, but its edges are {edges}; add .on({action!r}) >> a node, or >> END"
        )
        self.node = node
        self.action = action
        self.known = tuple(known)


class StepLimitError(FlowError):
    """A run visited more nodes than `max_steps` allows: most often a loop without a way out."""

    def __init__(self, flow: str, max_steps: int, node: str) -> None:
        super().__init__(
            f"{flow} stopped before step {max_steps + 1} ({node}): "
            f"max_steps is {max_steps:,}; raise it if the loop is meant to be this long"
        )
        self.max_steps = max_steps
        self.node = node


class JoinError(FlowError):
    """Fewer branches of a parallel section succeeded than its join needs; `failures` holds why."""

    def __init__(self, section: str, need: int, failures: Sequence[BaseException]) -> None:
        first = f"; the first: {failures[0]}" if failures else ""
        super().__init__(f"{section} needs {need} finished branches, but {len(failures)} failed{first}")
        self.section = section
        self.need = need
        self.failures = tuple(failures)


class InputError(FlowError):
    """The input of a run does not fit the flow's schema; `field` names the first misfit."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class InterruptTimeoutError(FlowError, TimeoutError):
    """Nobody answered an interrupt within its `seconds`, and it has no default. `interrupt` is its id."""

    def __init__(self, interrupt: str, seconds: float) -> None:
        super().__init__(f"nobody answered {interrupt} within {seconds:g} s")
        self.interrupt = interrupt
        self.seconds = seconds


# ---- state ---------------------------------------------------------------------------------------------------


class StateError(AgentFlowError):
    """The shared state was asked for something it cannot do."""


class StateKeyError(StateError, KeyError):
    """The state holds no such key; `suggestions` are the nearest names it does hold."""

    def __init__(self, key: str, suggestions: Sequence[str] = ()) -> None:
        hint = f"; did you mean {' or '.join(map(repr, suggestions))}?" if suggestions else ""
        super().__init__(f"the state has no {key!r}{hint}")
        self.key = key
        self.suggestions = tuple(suggestions)

    def __str__(self) -> str:  # a KeyError would show the repr of its message
        return str(self.args[0])


class StateConflict(StateError):
    """Two parallel branches assigned one key, so no order of them could be right."""

    def __init__(self, key: str, first: str, second: str) -> None:
        super().__init__(
            f"branches {first!r} and {second!r} both assigned {key!r}: write to two keys, "
            f"or contribute with state.add() through a Key that has a reducer"
        )
        self.key = key
        self.writers = (first, second)


class ContextError(StateError):
    """The run was given no context, or one of another type than was asked for."""


class SerializationError(StateError):
    """A value cannot be stored as JSON and come back equal; `path` says where it stands."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}")
        self.path = path


# ---- time ----------------------------------------------------------------------------------------------------


class OperationTimeoutError(AgentFlowError, TimeoutError):
    """A time limit of ours expired. The caller's own cancellation is never reported as this."""

    retryable = True

    def __init__(self, operation: str, seconds: float) -> None:
        super().__init__(f"{operation} took longer than {seconds:g} s")
        self.operation = operation
        self.seconds = seconds


class PoolTimeoutError(OperationTimeoutError):
    """No resource of a pool came free in time."""

    def __init__(self, pool: str, seconds: float, *, in_use: int) -> None:
        super().__init__(f"waiting for a resource of {pool} ({in_use} in use)", seconds)
        self.pool = pool
        self.in_use = in_use


# ---- guards --------------------------------------------------------------------------------------------------


class RejectedError(AgentFlowError):
    """A guard of ours refused a call before it was made, so nothing was sent and nothing paid.

    `guard` is the guard's name; `retry_after` is in seconds, None where nobody can say.
    """

    retryable = True

    def __init__(self, guard: str, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(f"{guard}: {message}")
        self.guard = guard
        self.retry_after = retry_after


class CircuitOpenError(RejectedError):
    """The circuit breaker is open: what is behind it failed too often, and is left alone for `retry_after` seconds."""


class LoadShedError(RejectedError):
    """There is too much to do already, and this call was not important enough, or would have come too late."""


class PoolClosedError(RejectedError):
    """The pool gives nothing away any more."""

    retryable = False


class BudgetExceededError(RejectedError):
    """A budget has no room for what the call may cost, so it was not made.

    All sums are in US dollars: the `limit` of the `account`, what is `spent` of it, what calls under way have
    `reserved`, and what this one `needed`. `resets_at` is the wall time (seconds since 1970) from which there is room
    again as far as is known, None for an account that is never reset; `retry_after` counts the seconds until then.
    """

    retryable = False

    def __init__(
        self,
        account: str,
        *,
        limit: float,
        spent: float,
        reserved: float,
        needed: float,
        resets_at: float | None = None,
        retry_after: float | None = None,
    ) -> None:
        until = "it is never reset" if retry_after is None else f"it is reset in {retry_after:,.0f} s"
        super().__init__(
            f"budget {account}",
            f"the call may cost ${needed:.6g}, and of ${limit:.6g} there is ${spent:.6g} spent and ${reserved:.6g} "
            f"reserved by calls under way; {until}: raise the limit, lower max_tokens, or ask a cheaper model",
            retry_after=retry_after,
        )
        self.account = account
        self.limit = limit
        self.spent = spent
        self.reserved = reserved
        self.needed = needed
        self.resets_at = resets_at


class BudgetUnavailableError(RejectedError):
    """The store of a hard budget does not answer, so nobody knows whether there is room: the call was not made."""


class NoCandidateError(RejectedError):
    """A router may ask none of its models, so it asked none. `excluded` says why, by the model's name.

    Retryable where one of them is only `unwell` now: its circuit breaker is open, or it has just failed.
    """

    def __init__(self, router: str, excluded: Mapping[str, str], *, unwell: bool = False) -> None:
        listed = "; ".join(f"{name}: {why}" for name, why in excluded.items())
        super().__init__(router, f"none of its models may answer ({listed}): ask for less, or give it another model")
        self.excluded = dict(excluded)
        self.retryable = unwell


# ---- limits and tools ----------------------------------------------------------------------------------------


class LimitExceededError(AgentFlowError):
    """A limit that the caller set is used up, so the next call was not made.

    `limit` is requests, tokens, tool_rounds or dollars; `allowed` and `spent` are in its unit. `spent` is infinite
    where the cost of a request is unknown. `response` is the last answer there was, if any.
    """

    response: object = None

    def __init__(self, limit: str, allowed: float, spent: float) -> None:
        what = "by a request whose cost is unknown" if spent == float("inf") else f"{spent:g} spent"
        super().__init__(
            f"the limit of {allowed:g} {limit.replace('_', ' ')} is used up ({what}): "
            f"raise it with limits({limit}=…), or ask for less"
        )
        self.limit = limit
        self.allowed = allowed
        self.spent = spent


class ToolError(AgentFlowError):
    """A tool failed while a model waited for its result, and the caller chose to raise that; the cause is
    `__cause__`. `response` is the answer that called it."""

    response: object = None

    def __init__(self, tool: str, message: str) -> None:
        super().__init__(f"the tool {tool!r} failed: {message}")
        self.tool = tool
        self.message = message


class ToolArgumentsError(ToolError):
    """A model called a tool with arguments that its signature does not allow; `message` says so in words for it."""


# ---- alerts --------------------------------------------------------------------------------------------------


class AlertActionError(AgentFlowError):
    """What was to be done about an alert failed. `retry_after` is in seconds, where a receiver said so."""

    def __init__(self, message: str, *, retryable: bool = False, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.retry_after = retry_after


# ---- documents -----------------------------------------------------------------------------------------------


class DocumentError(AgentFlowError):
    """A file cannot be read as a document, or as the image or sound that it should be."""


# ---- flow files ----------------------------------------------------------------------------------------------


class FlowFileError(AgentFlowError):
    """A file that should hold a flow is missing, cannot be imported, or has no flow of the name asked for."""


# ---- the run store -------------------------------------------------------------------------------------------


class RunStoreError(AgentFlowError):
    """The file that runs are kept in cannot be used: it is missing, damaged, of a newer version, or not ours. `path`
    says which file."""

    def __init__(self, message: str, *, path: str | PathLike[str]) -> None:
        super().__init__(message)
        self.path = fspath(path)


class UnknownRunError(RunStoreError):
    """No recorded run has the id that was asked for, or several begin with it: `matches` are some of those."""

    def __init__(self, run: str, matches: Sequence[str] = (), *, path: str | PathLike[str]) -> None:
        none, hint = "there is no run", "`agentflow runs` lists what is recorded"
        if matches:
            none, hint = "no single run", f"several runs begin so: {', '.join(matches)}"
        super().__init__(f"{none} {run!r} in {fspath(path)}: {hint}", path=path)
        self.matches = tuple(matches)


# ---- durable runs --------------------------------------------------------------------------------------------


class DurabilityError(AgentFlowError):
    """A run cannot be kept, or cannot go on. `run_id` is None where it is about no single run."""

    def __init__(self, message: str, *, run_id: str | None = None) -> None:
        super().__init__(message)
        self.run_id = run_id


class RunHeldError(DurabilityError):
    """Another process, or another task of this one, has the run; `owner` says which."""

    retryable = True

    def __init__(self, run_id: str, owner: str) -> None:
        super().__init__(f"run {run_id} is being run by {owner}: wait until it ends, or cancel it", run_id=run_id)
        self.owner = owner


class RunExistsError(DurabilityError):
    """The id belongs to a run that began with something else."""


class RunEndedError(DurabilityError):
    """The run is over: `status` says how. What there was of it can be forked."""

    def __init__(self, run_id: str, status: str, reason: str) -> None:
        super().__init__(f"run {run_id} {reason}", run_id=run_id)
        self.status = status


class FlowChangedError(DurabilityError):
    """The flow is another than the one that the run began with; `changes` says in which places, a line each."""

    def __init__(self, run_id: str, changes: Sequence[str]) -> None:
        listed = "".join(f"\n  {change}" for change in changes)
        super().__init__(
            f"run {run_id} began with another flow:{listed}\n"
            "resume it with the flow it began with, or say with migrate= what its steps are called now",
            run_id=run_id,
        )
        self.changes = tuple(changes)


class AnswerError(DurabilityError):
    """An answer does not fit what was asked for, or nobody waits for it; `interrupt` is the id, if one is meant."""

    def __init__(self, message: str, *, run_id: str | None = None, interrupt: str | None = None) -> None:
        super().__init__(message, run_id=run_id)
        self.interrupt = interrupt


# ---- batch jobs ----------------------------------------------------------------------------------------------


class BatchError(AgentFlowError):
    """A batch job cannot be made, or cannot go on. `job` is its id, None where it is about no single job."""

    def __init__(self, message: str, *, job: str | None = None) -> None:
        super().__init__(message)
        self.job = job


class UnknownBatchError(BatchError):
    """The file has no job of that id, or several begin so: `matches` are those."""

    def __init__(self, job: str, matches: Sequence[str] = (), *, path: str | PathLike[str]) -> None:
        hint = f"several begin so: {', '.join(matches)}" if matches else "`agentflow batch status` lists what there is"
        super().__init__(f"there is no {'single ' if matches else ''}batch job {job!r} in {fspath(path)}: {hint}")
        self.matches = tuple(matches)
        self.path = fspath(path)


class BatchHeldError(BatchError):
    """Another process, or another task of this one, is at work on the job: two would send it twice."""

    retryable = True

    def __init__(self, job: str) -> None:
        super().__init__(
            f"batch job {job} is being worked on elsewhere: wait until that ends, or read its status meanwhile", job=job
        )


class BatchRefusedError(BatchError):
    """The provider refused a batch as a whole, before any request of it was answered or paid. `code` is its word for
    the reason, None where it has none."""

    def __init__(self, message: str, *, job: str | None = None, code: str | None = None) -> None:
        super().__init__(message, job=job)
        self.code = code


class BatchRequestError(BatchError):
    """One request of a batch came to nothing, as `outcome` says: expired (the provider's time was up), cancelled, or
    missing (the batch ended without a word of it)."""

    def __init__(self, outcome: str, message: str, *, job: str | None = None) -> None:
        super().__init__(message, job=job)
        self.outcome = outcome


# ---- compression ---------------------------------------------------------------------------------------------


class CompressionError(AgentFlowError):
    """A model cannot be made smaller, or what came of it cannot be used."""


class ModelFolderError(CompressionError):
    """The folder `path` is no model that can be worked on: `problem` says what is missing, or wrong, in it."""

    def __init__(self, path: str | PathLike[str], problem: str) -> None:
        super().__init__(f"{fspath(path)} is no model to work on: {problem}")
        self.path = fspath(path)
        self.problem = problem


class UnsupportedArchitectureError(ModelFolderError):
    """The model's `architecture` is none of `supported`."""

    def __init__(self, path: str | PathLike[str], architecture: str, supported: Sequence[str]) -> None:
        super().__init__(path, f"its architecture is {architecture}; supported are {', '.join(supported)}")
        self.architecture = architecture
        self.supported = tuple(supported)


class RecipeError(CompressionError):
    """The stages of a recipe contradict each other, or do not fit the model. `stage` is where, counted from 1."""

    def __init__(self, message: str, *, stage: int | None = None) -> None:
        super().__init__(message if stage is None else f"stage {stage}: {message}")
        self.stage = stage


class CalibrationError(CompressionError):
    """`purpose` needs `needed` tokens of text, and there are `found`."""

    def __init__(self, purpose: str, *, needed: int, found: int) -> None:
        super().__init__(
            f"{purpose} needs at least {needed:,} tokens of text, and there are {found:,}: give more texts"
        )
        self.purpose = purpose
        self.needed = needed
        self.found = found


class ShortageError(CompressionError):
    """`resource` ("memory" or "disk") will not suffice: `needed` and `available` are bytes."""

    def __init__(self, resource: str, *, needed: int, available: int, advice: str) -> None:
        have = f"{needed / 1e9:.2f} GB of {resource} are needed, {available / 1e9:.2f} GB are free"
        super().__init__(f"{have}: {advice}")
        self.resource = resource
        self.needed = needed
        self.available = available
        self.advice = advice


class BackendError(CompressionError):
    """`backend`, a program that others keep, is not there or failed. `output` is the end of what it printed."""

    def __init__(self, backend: str, problem: str, *, output: str = "") -> None:
        super().__init__(f"{backend}: {problem}" + (f"; it said: {output.strip()[-500:]}" if output.strip() else ""))
        self.backend = backend
        self.problem = problem
        self.output = output


class ArtifactError(CompressionError):
    """The artifact at `path` cannot be used: damaged, incomplete, or of a newer version. `problem` says which."""

    def __init__(self, path: str | PathLike[str], problem: str) -> None:
        super().__init__(f"the artifact {fspath(path)} cannot be used: {problem}")
        self.path = fspath(path)
        self.problem = problem


class QualityGateError(CompressionError):
    """The artifact is worse than its floor; `failures` names each measure that is, with what it is and may be."""

    def __init__(self, artifact: str, failures: Sequence[str]) -> None:
        super().__init__(f"{artifact} is not let through: {'; '.join(failures)}")
        self.artifact = artifact
        self.failures = tuple(failures)


# ---- processes -----------------------------------------------------------------------------------------------


class ProcessError(AgentFlowError):
    """A node's work in a process of its own came to nothing: what it is given, or gives, cannot be pickled, or its
    process could not be started, or died.

    A process that died in the middle of a call may have had bad luck: that is `retryable`. `exit_code` is then how it
    ended, below 0 the signal that ended it.
    """

    def __init__(self, message: str, *, exit_code: int | None = None, retryable: bool = False) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.retryable = retryable


# ---- audit ---------------------------------------------------------------------------------------------------


class AuditError(AgentFlowError):
    """What must be recorded cannot be, so it was not done; or the log is not as it was left."""


class AuditLockedError(AuditError):
    """Another process writes the audit log, and this one was to be the only one."""


# ---- models --------------------------------------------------------------------------------------------------


class ModelError(AgentFlowError):
    """A model call failed. Facts are attributes; `retry_after` is in seconds.

    `partial` is the text that a stream had delivered before it failed.
    """

    partial: str = ""

    def __init__(
        self,
        message: str,
        *,
        provider: str | None = None,
        model: str | None = None,
        status: int | None = None,
        code: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        where = "/".join(part for part in (provider, model) if part)
        facts = ", ".join(
            fact
            for fact in (f"HTTP {status}" if status else "", code or "", f"request {request_id}" if request_id else "")
            if fact
        )
        # Not super(): behind a ModelTimeoutError stands a class with other arguments.
        AgentFlowError.__init__(self, f"{where + ': ' if where else ''}{message}{f' ({facts})' if facts else ''}")
        self.message = message
        self.provider = provider
        self.model = model
        self.status = status
        self.code = code
        self.request_id = request_id
        self.retry_after = retry_after


class AuthenticationError(ModelError):
    """The provider does not know the key."""


class PermissionDeniedError(ModelError):
    """The key is known but may not do this."""


class NotFoundError(ModelError):
    """The provider has no such model or endpoint; `suggestions` are configured models of a similar name."""

    suggestions: tuple[str, ...] = ()

    def suggest(self, names: Sequence[str]) -> None:
        """Say which models may have been meant."""
        if names:
            self.suggestions = tuple(names)
            self.args = (f"{self.args[0]}; did you mean {' or '.join(names)}?", *self.args[1:])


class BadRequestError(ModelError):
    """The provider refuses the request as it stands."""


class ContextLengthError(BadRequestError):
    """The prompt and the answer asked for are longer than the model's context."""


class ContentFilterError(BadRequestError):
    """The provider blocked the prompt or the answer."""


class RateLimitError(ModelError):
    """Too many requests or tokens; `retry_after` says when to come back, where the provider said so."""

    retryable = True


class QuotaExceededError(RateLimitError):
    """The account has no quota or money left; waiting does not help."""

    retryable = False


class LimiterError(RejectedError, RateLimitError):
    """A rate limiter of ours cannot let the call through in time, or was told not to let it wait.

    Not retryable where the call asks for more than the limiter ever holds. It is a RateLimitError, too: whoever slows
    down for the provider's slows down for this.
    """


class OverloadedError(ModelError):
    """The provider is overloaded."""

    retryable = True


class ServerError(ModelError):
    """The provider failed."""

    retryable = True


class ModelTimeoutError(ModelError, OperationTimeoutError):
    """The provider did not answer in time. `operation` is the phase: connect, first byte, idle, total."""

    retryable = True

    def __init__(
        self, operation: str, seconds: float, *, provider: str | None = None, model: str | None = None
    ) -> None:
        ModelError.__init__(
            self, f"no answer in time: {operation} took longer than {seconds:g} s", provider=provider, model=model
        )
        self.operation = operation
        self.seconds = seconds


class ModelConnectionError(ModelError):
    """No connection to the provider, or it broke before the answer began."""

    retryable = True


class ProtocolError(ModelError):
    """The body is not what the API promises: HTML, broken JSON, a missing field."""


class OutputError(ModelError):
    """The answer does not fit the type that was asked for, however often it was asked: `problem` says why, `raw` is
    the last answer's text, and `response` that answer, with the usage and cost of all of them."""

    response: object = None

    def __init__(
        self,
        problem: str,
        *,
        raw: str,
        provider: str | None = None,
        model: str | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(
            f"the answer does not fit the type asked for: {problem}; the text is in `raw`",
            provider=provider,
            model=model,
            request_id=request_id,
        )
        self.problem = problem
        self.raw = raw


class StreamInterruptedError(ModelError):
    """A stream ended before its end mark; `partial` holds the text that had arrived."""

    def __init__(
        self,
        message: str,
        *,
        partial: str,
        provider: str | None = None,
        model: str | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message, provider=provider, model=model, request_id=request_id)
        self.partial = partial


def describe(error: BaseException) -> str:
    """`Type: message`, or the message alone where it speaks for itself."""
    text = str(error)
    if isinstance(error, AgentFlowError) or getattr(error, "speaks_for_itself", False):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
