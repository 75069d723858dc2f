"""Every name that traces and metrics bear, in one table with a version; no name stands anywhere else.

    conventions(os.environ)  ──▶  RELEASED   what is emitted by default: the last published version
                              ╰─▶ LATEST     with OTEL_SEMCONV_STABILITY_OPT_IN=gen_ai_latest_experimental

The conventions for generative AI are in development. Version 1.41.0 is the last one that was published, in the
repository of all conventions; since then they have one of their own, without a release. RELEASED is 1.41.0, and what
that has no name for (how long workflows and tools take) is called what it is called since. LATEST is the new
repository as of September 2026, of what was merged there. Renamings that were still proposals
(`gen_ai.client.inference.*` for operations and token counters, `gen_ai.invocation.*` for workflows) are not in it.

Names of HTTP, servers and errors are stable. What no convention has a name for begins with `agentflow.`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

__all__ = ["CONTENT_VARIABLE", "LATEST", "OPT_IN_VARIABLE", "PROVIDERS", "RELEASED", "Conventions", "conventions"]

OPT_IN_VARIABLE: Final = "OTEL_SEMCONV_STABILITY_OPT_IN"
OPT_IN: Final = "gen_ai_latest_experimental"
CONTENT_VARIABLE: Final = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"

SCOPE: Final = "agentflow"  # the name of the instrumentation: of its tracer, meter and logger

# ---- operations: the beginning of a span's name, and the value of gen_ai.operation.name ---------------------------

CHAT: Final = "chat"
INVOKE_WORKFLOW: Final = "invoke_workflow"
EXECUTE_TOOL: Final = "execute_tool"

# ---- attributes that are the same in both versions ----------------------------------------------------------------

OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
REQUEST_STREAM: Final = "gen_ai.request.stream"
REQUEST_TEMPERATURE: Final = "gen_ai.request.temperature"
REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
REQUEST_TOP_P: Final = "gen_ai.request.top_p"
RESPONSE_MODEL: Final = "gen_ai.response.model"
RESPONSE_ID: Final = "gen_ai.response.id"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
CACHE_READ_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
REASONING_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"
INPUT_MESSAGES: Final = "gen_ai.input.messages"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
TOKEN_TYPE: Final = "gen_ai.token.type"  # noqa: S105 - the kind of a token that is counted
WORKFLOW_NAME: Final = "gen_ai.workflow.name"
TOOL_NAME: Final = "gen_ai.tool.name"
TOOL_TYPE: Final = "gen_ai.tool.type"
TOOL_CALL_ID: Final = "gen_ai.tool.call.id"
TOOL_ARGUMENTS: Final = "gen_ai.tool.call.arguments"
EVALUATION_NAME: Final = "gen_ai.evaluation.name"
EVALUATION_SCORE: Final = "gen_ai.evaluation.score.value"
EVALUATION_LABEL: Final = "gen_ai.evaluation.score.label"
EVALUATION_EXPLANATION: Final = "gen_ai.evaluation.explanation"

ERROR_TYPE: Final = "error.type"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
HTTP_METHOD: Final = "http.request.method"
HTTP_STATUS: Final = "http.response.status_code"
HTTP_RESEND_COUNT: Final = "http.request.resend_count"
URL: Final = "url.full"

# ---- our own ------------------------------------------------------------------------------------------------------

RUN: Final = "agentflow.run.id"
STRETCH: Final = "agentflow.run.stretch"  # how often the run had gone on
PARENT_RUN: Final = "agentflow.run.parent_id"
BATCH: Final = "agentflow.batch.id"
TENANT: Final = "agentflow.tenant"
PATH: Final = "agentflow.path"
NODE: Final = "agentflow.node.name"
VISIT: Final = "agentflow.node.visit"
ITEMS: Final = "agentflow.node.items"
ACTION: Final = "agentflow.action"
MODEL: Final = "agentflow.model.name"
MODEL_PROVIDER: Final = "agentflow.provider.name"
ROUND: Final = "agentflow.model.round"
ATTEMPT: Final = "agentflow.attempt"
ATTEMPTS: Final = "agentflow.model.attempts"
REQUEST_ID: Final = "agentflow.request.id"
COST: Final = "agentflow.cost.usd"
LOST_REQUESTS: Final = "agentflow.lost.requests"
LOST_COST: Final = "agentflow.lost.cost.usd"
WAIT: Final = "agentflow.wait."  # and a category of the breakdown; seconds
CANCELLED: Final = "agentflow.cancelled"
INTERRUPTED: Final = "agentflow.interrupted"
EVICTED: Final = "agentflow.evicted"
EVENT: Final = "agentflow."  # and the kind of an event, or the name of one of its facts
FEEDBACK_SOURCE: Final = "agentflow.feedback.source"

# ---- events and metrics -------------------------------------------------------------------------------------------

DETAILS_EVENT: Final = "gen_ai.client.inference.operation.details"
EVALUATION_EVENT: Final = "gen_ai.evaluation.result"

LOST_METRIC: Final = "agentflow.telemetry.lost"

SECONDS_BUCKETS: Final = tuple(round(0.01 * 2**n, 2) for n in range(17))
"""The convention's boundaries end at 81.92 s; models that think take longer, so three more follow, to 655.36 s."""
TOKEN_BUCKETS: Final = tuple(4**n for n in range(14))

PROVIDERS: Final[Mapping[str, str]] = {
    "azure": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "google": "gcp.gemini",
    "mistral": "mistral_ai",
    "moonshot": "moonshot_ai",
    "vertex": "gcp.vertex_ai",
    "xai": "x_ai",
}
"""The conventions' names of providers that are usually configured by another one; the rest are called the same."""


@dataclass(frozen=True, slots=True)
class Conventions:
    """What differs from version to version."""

    version: str
    schema_url: str | None
    cache_write_tokens: str
    message_finish_reason: bool
    """Whether each output message says why it ended, beside the attribute that does."""
    operation_duration: str = "gen_ai.client.operation.duration"
    time_to_first_chunk: str = "gen_ai.client.operation.time_to_first_chunk"
    time_per_output_chunk: str = "gen_ai.client.operation.time_per_output_chunk"
    token_usage: str = "gen_ai.client.token.usage"  # noqa: S105 - a metric
    workflow_duration: str = "gen_ai.invoke_workflow.duration"
    tool_duration: str = "gen_ai.execute_tool.duration"


RELEASED: Final = Conventions(
    version="1.41.0",
    schema_url="https://opentelemetry.io/schemas/1.41.0",
    cache_write_tokens="gen_ai.usage.cache_creation.input_tokens",
    message_finish_reason=True,
)
LATEST: Final = replace(
    RELEASED,
    version="gen-ai 2026-09",
    schema_url=None,
    cache_write_tokens="gen_ai.usage.cache_write.input_tokens",
    message_finish_reason=False,
)


def conventions(environ: Mapping[str, str]) -> Conventions:
    """Those that the environment asks for: the variable is a list with commas, of which others' entries are theirs."""
    wanted = {word.strip() for word in environ.get(OPT_IN_VARIABLE, "").split(",")}
    return LATEST if OPT_IN in wanted else RELEASED
