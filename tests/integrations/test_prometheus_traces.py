"""From a bucket to the trace: what a histogram names is what the tracer exported, also when the run is long over."""

from __future__ import annotations

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parsed

from agentflow import AsyncFlow, node
from agentflow.core.observability import observe
from agentflow.core.observability.metrics.collector import MetricsCollector
from agentflow.integrations.opentelemetry import OpenTelemetryObserver
from agentflow.integrations.prometheus import PrometheusCollector
from agentflow.integrations.prometheus.exposition import open_metrics


@node(reads="topic", writes="text")
async def write(topic: str) -> str:
    return f"All about {topic}."


async def exemplars(sampler: Sampler) -> tuple[list[dict[str, str]], list[str], str]:
    """Of the flow's durations; with the traces that were exported, and the run."""
    memory, metrics = InMemorySpanExporter(), MetricsCollector()
    tracers = TracerProvider(sampler=sampler)
    tracers.add_span_processor(SimpleSpanProcessor(memory))
    with observe(OpenTelemetryObserver(tracer_provider=tracers)), observe(metrics):
        result = await AsyncFlow(write, name="article").run({"topic": "tides"})
        families = list(parsed(open_metrics(PrometheusCollector(metrics)).decode()))
    samples = [sample for family in families for sample in family.samples if "flow_duration" in sample.name]
    found = [dict(sample.exemplar.labels) for sample in samples if sample.exemplar]
    traces = {f"{span.context.trace_id:032x}" for span in memory.get_finished_spans() if span.context}
    return found, sorted(traces), result.run_id


async def test_a_bucket_leads_to_the_trace_and_to_the_run() -> None:
    """Both are named; the trace is asked of the tracer when metrics are fetched."""
    found, [trace], run = await exemplars(ALWAYS_ON)
    assert found == [{"run_id": run, "trace_id": trace}]


async def test_a_run_that_was_not_sampled_has_no_trace_to_lead_to() -> None:
    """The run alone is named: its trace is nowhere to be found."""
    found, traces, run = await exemplars(ALWAYS_OFF)
    assert (found, traces) == ([{"run_id": run}], [])
