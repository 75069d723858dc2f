"""An artifact that became a model: registered, called by its name, refused where it is damaged or too bad."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from tests.mcp.performance.edge.test_reading import encoder
from tests.support.edge_models import onnx_of, tiny_folder
from tests.support.made_artifacts import SOURCE, STAGES, TENSORS, measures

from agentflow import AgentFlow, ModelRegistry
from agentflow.errors import (
    ArtifactError,
    ConfigurationError,
    MissingExtraError,
    ModelError,
    QualityGateError,
    UnknownModelError,
    UnsupportedError,
)
from agentflow.mcp.compression.artifact import Artifact, Gate, assemble
from agentflow.mcp.performance.edge.deployment import EdgeDeployment
from agentflow.mcp.performance.edge.provider import EdgeProvider


@pytest.fixture
def registry(tmp_path: Path) -> ModelRegistry:
    return ModelRegistry.load(environ={}, cwd=tmp_path, home=tmp_path)


@pytest.fixture
def default(registry: ModelRegistry) -> Iterator[ModelRegistry]:
    before, AgentFlow.registry = AgentFlow.registry, registry
    yield registry
    AgentFlow.registry = before


def artifact(folder: Path, model: Path | None = None, *, task: str = "generate", gate: Gate | None = None) -> Artifact:
    return assemble(
        folder, model=model or onnx_of("tiny"), name="support", task=task, source=SOURCE,  # type: ignore[arg-type]
        source_folder=tiny_folder(), stages=STAGES, recipe_sha256="e" * 64, tensors=TENSORS,
        after=(measures(kl=0.02),), gate=gate,
    )  # fmt: skip


@dataclass
class Ticket:
    kind: Literal["bug", "wish"]
    urgent: bool


async def test_a_registered_artifact_is_called_like_any_model(tmp_path: Path, default: ModelRegistry) -> None:
    made = artifact(tmp_path / "a")
    with EdgeDeployment(made, threads=1).register("edge/support") as deployment:
        await deployment.warm()
        model = AgentFlow.model("edge/support").prompt("the tide").max_tokens(6)
        reply = await model.execute_full()
        assert reply.cost == 0.0
        assert reply.usage is not None
        assert reply.usage.output_tokens == 6
        assert reply.provider == "edge/support"
        async with model.streaming(True).execute_streaming() as stream:
            assert "".join([chunk.content async for chunk in stream]) == reply.text
        ticket = await AgentFlow.model("edge/support").prompt("the").temperature(1.5).seed(1).output(Ticket).execute()
        assert ticket.kind in ("bug", "wish")
        config = default.describe("edge/support")
        assert config.context == 128
        assert config.capabilities == {"schema"}
        with pytest.raises(UnsupportedError):
            await AgentFlow.model("edge/support").embed(["a"])
    with pytest.raises((UnknownModelError, ConfigurationError)):
        await model.execute()


async def test_nothing_is_opened_before_the_first_call(tmp_path: Path, registry: ModelRegistry) -> None:
    deployment = EdgeDeployment(artifact(tmp_path / "a"), threads=1).register("edge/a", registry=registry)
    provider = registry.provider("edge/a")
    assert isinstance(provider, EdgeProvider)
    assert provider._writer is not None
    assert provider._writer.decoder._runtime is None
    await deployment.warm()
    runtime = weakref.ref(provider._writer.decoder._runtime)
    deployment.unregister()
    deployment.unregister()
    gc.collect()
    assert runtime() is None, "the model is still in memory"


async def test_a_closed_deployment_opens_again_with_the_next_call(tmp_path: Path, registry: ModelRegistry) -> None:
    with EdgeDeployment(artifact(tmp_path / "a"), threads=1).register("edge/a", registry=registry) as deployment:
        model = AgentFlow.model("edge/a", registry=registry).prompt("the").max_tokens(3)
        first = await model.execute()
        deployment.close()
        assert await model.execute() == first


async def test_a_deployment_that_is_taken_away_ends_what_is_under_way(tmp_path: Path, registry: ModelRegistry) -> None:
    async with EdgeDeployment(onnx_of("trained"), threads=1).register("edge/a", registry=registry):
        model = AgentFlow.model("edge/a", registry=registry).prompt("def f(").max_tokens(400)
        provider = registry.provider("edge/a")
        assert isinstance(provider, EdgeProvider)
        call = asyncio.create_task(model.execute())
        while provider.decoded < 5:
            await asyncio.sleep(0)
    with pytest.raises(ModelError, match="closed"):
        await call


async def test_several_deployments_stand_side_by_side(tmp_path: Path, registry: ModelRegistry) -> None:
    with (
        EdgeDeployment(onnx_of("tiny"), threads=1).register("edge/small", registry=registry),
        EdgeDeployment(encoder(tmp_path / "c", "classify"), threads=1).register("edge/labels", registry=registry),
        EdgeDeployment(encoder(tmp_path / "e", "embed"), threads=1).register("edge/emb", registry=registry),
    ):
        text, label, vectors = await asyncio.gather(
            AgentFlow.model("edge/small", registry=registry).prompt("the").max_tokens(2).execute(),
            AgentFlow.model("edge/labels", registry=registry).prompt("the tide").execute_full(),
            AgentFlow.model("edge/emb", registry=registry).embed(["a", "b"]),
        )
        assert text
        assert label.text in ("bug", "wish", "praise")
        assert len(vectors) == 2
        assert registry.describe("edge/emb").capabilities == {"embed"}


def test_a_name_that_is_taken_is_refused(registry: ModelRegistry) -> None:
    with EdgeDeployment(onnx_of("tiny")).register("edge/a", registry=registry):
        with pytest.raises(ConfigurationError, match="already"):
            EdgeDeployment(onnx_of("tiny")).register("edge/a", registry=registry)


def test_a_file_that_is_missing_or_cut_off_is_found_at_once(tmp_path: Path) -> None:
    made = artifact(tmp_path / "a")
    (made.model / "model.onnx.data").write_bytes(b"short")
    with pytest.raises(ArtifactError, match=r"model\.onnx\.data"):
        EdgeDeployment(made)
    (made.model / "model.onnx.data").unlink()
    with pytest.raises(ArtifactError, match="missing"):
        EdgeDeployment(made.folder)
    with pytest.raises(ArtifactError, match="no such folder"):
        EdgeDeployment(tmp_path / "nowhere")


async def test_a_damaged_file_is_found_before_it_is_opened(tmp_path: Path, registry: ModelRegistry) -> None:
    """One bit of the weights, which ONNX Runtime would not notice."""
    made = artifact(tmp_path / "a")
    weights = made.model / "model.onnx.data"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    with EdgeDeployment(made, threads=1).register("edge/a", registry=registry):
        with pytest.raises(ArtifactError, match="checksum"):
            await AgentFlow.model("edge/a", registry=registry).prompt("the").execute()
    with EdgeDeployment(made, threads=1, verify=False).register("edge/a", registry=registry):
        assert await AgentFlow.model("edge/a", registry=registry).prompt("the").max_tokens(2).execute()


def test_an_artifact_below_its_gate_is_refused(tmp_path: Path) -> None:
    failed = artifact(tmp_path / "a", gate=Gate(kl=0.01))
    with pytest.raises(QualityGateError, match="kl"):
        EdgeDeployment(failed)
    EdgeDeployment(failed, gate=False)
    passed = artifact(tmp_path / "b", gate=Gate(kl=0.05))
    EdgeDeployment(passed)
    with pytest.raises(QualityGateError, match="top1"):
        EdgeDeployment(passed, gate=Gate(top1=1.0))
    with pytest.raises(ConfigurationError, match=r"manifest\.json"):
        EdgeDeployment(onnx_of("tiny"), gate=Gate(kl=0.05))


async def test_models_yml_alone_deploys_an_artifact(tmp_path: Path) -> None:
    """Its path counts from where the file lies."""
    (tmp_path / "settings").mkdir()
    artifact(tmp_path / "settings" / "made")
    (tmp_path / "settings" / "models.yml").write_text(
        "providers:\n  here: {kind: edge, options: {folder: made, threads: 1, rows: 2}}\n"
        "models:\n  edge/support: {provider: here, capabilities: [schema], max_tokens: 3}\n"
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    registry = ModelRegistry.load(tmp_path / "settings" / "models.yml", environ={}, cwd=elsewhere, home=elsewhere)
    reply = await AgentFlow.model("edge/support", registry=registry).prompt("the").execute_full()
    assert reply.usage is not None
    assert reply.usage.output_tokens == 3
    assert registry.describe("edge/support").guarding.breaker is None
    await registry.aclose()


@pytest.mark.parametrize(
    ("options", "says"),
    [("", "names no folder"), ("{folder: nowhere}", "no such folder"), ("{folder: a, thread: 2}", "thread")],
)
def test_options_that_do_not_fit_are_said(options: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "models.yml").write_text(f"providers:\n  here: {{kind: edge, options: {options or '{}'}}}\n")
    registry = ModelRegistry.load(environ={}, cwd=tmp_path, home=tmp_path)
    with pytest.raises(ConfigurationError, match=says):
        registry.provider("here")


async def test_what_is_not_installed_is_said_with_its_command(
    registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for name in [name for name in sys.modules if "edge.runtimes" in name]:
        monkeypatch.delitem(sys.modules, name)
    with EdgeDeployment(onnx_of("tiny")).register("edge/a", registry=registry):
        with pytest.raises(MissingExtraError, match=r"pip install 'agentflow-engine\[edge\]'"):
            await AgentFlow.model("edge/a", registry=registry).prompt("the").execute()


def test_a_machine_without_the_extra_is_told_how_to_install_it() -> None:
    program = """
import sys
sys.modules["tokenizers"] = None
from agentflow.errors import MissingExtraError
from agentflow.mcp.performance.edge import EdgeDeployment
try:
    EdgeDeployment("anything")
except MissingExtraError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "pip install 'agentflow-engine[edge]'" in done.stdout
