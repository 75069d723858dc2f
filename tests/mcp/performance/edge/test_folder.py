"""A deployed folder has all that a model needs, says so truly, and runs where nothing else of ours is."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import venv
from http.client import HTTPConnection
from importlib import metadata
from pathlib import Path

import msgspec
import numpy as np
import pytest
from tests.support.deployable import FORBIDDEN, artifact_of, fake_model, run
from tests.support.edge_models import onnx_of
from tests.support.tiny_encoders import LABELS, encoder
from tests.support.trained import teacher_folder, texts

from agentflow import AgentFlow, ModelRegistry
from agentflow.errors import ArtifactError, BackendError, ConfigurationError
from agentflow.mcp.compression.artifact import Artifact
from agentflow.mcp.compression.backends import llama_cpp_python
from agentflow.mcp.compression.recipe import Export
from agentflow.mcp.performance.edge.deployment import EdgeDeployment
from agentflow.mcp.performance.edge.folder import DeployedFolder, deploy, requirements, verify
from agentflow.mcp.performance.edge.opening import open_embedder, open_labeller
from agentflow.mcp.performance.edge.tokenizer import EdgeTokenizer

# ---- what is in it -------------------------------------------------------------------------------------------


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return artifact_of(tmp_path / "artifact", fake_model(tmp_path / "model"))


def test_the_folder_has_all_that_is_promised(artifact: Artifact, tmp_path: Path) -> None:
    """The artifact as it was, a program, exact requirements, terms, and a checksum of every file."""
    made = deploy(artifact, tmp_path / "out" / "small")
    folder = tmp_path / "out" / "small"
    assert made == DeployedFolder(folder, "edge/small", made.files, made.bytes)
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names == {
        *("README.md", "LICENSE", "NOTICE", "SHA256SUMS", "models.yml", "requirements.txt", "run.py"),
        *("artifact/manifest.json", "artifact/LICENSE", "artifact/model/model.onnx", "artifact/model/tokenizer.json"),
    }
    assert made.files == len(names)
    assert made.bytes == sum((folder / name).stat().st_size for name in names)
    assert Artifact.open(folder / "artifact").manifest == artifact.manifest
    for line in (folder / "requirements.txt").read_text().splitlines():
        assert line.count("==") == 1
    notice = (folder / "NOTICE").read_text()
    assert "derived from teacher" in notice
    assert "Licence of the source: MIT." in notice
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["small"]


def test_sha256sum_itself_finds_every_file_whole(artifact: Artifact, tmp_path: Path) -> None:
    """The program that everybody has reads our file of checksums."""
    program = shutil.which("sha256sum")
    if program is None:
        pytest.skip("there is no sha256sum here")
    deploy(artifact, tmp_path / "small")
    done = subprocess.run(
        [program, "-c", "--strict", "SHA256SUMS"], cwd=tmp_path / "small", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(": OK") == 10


def test_the_versions_are_those_that_loaded_it(artifact: Artifact, tmp_path: Path) -> None:
    """What was seen to work is asked for, and not what happens to be installed."""
    manifest = msgspec.structs.replace(artifact.manifest, loaded_by={"onnxruntime-genai": "0.1.2"})
    assert "onnxruntime-genai==0.1.2" in requirements.needed(manifest)
    manifest = msgspec.structs.replace(manifest, format="gguf", loaded_by={"llama.cpp": "0.3.9"})
    assert "llama-cpp-python==0.3.9" in requirements.needed(manifest)


def test_where_no_version_is_known_those_are_asked_for_that_agentflow_takes(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GGUF can be made, and carried away, on a machine that has no llama.cpp."""
    known = metadata.version

    def missing(package: str) -> str:
        if package == "llama-cpp-python":
            raise metadata.PackageNotFoundError(package)
        return known(package)

    monkeypatch.setattr(metadata, "version", missing)
    monkeypatch.setattr(metadata, "requires", lambda _: ["llama-cpp-python>=0.3.16; extra == 'gguf'"])
    artifact = artifact_of(tmp_path / "gguf", fake_model(tmp_path / "gguf-model", "model.gguf"))
    bare = msgspec.structs.replace(artifact.manifest, loaded_by={}, versions={})
    bare.write(artifact.folder)
    deploy(artifact.folder, tmp_path / "small")
    lines = (tmp_path / "small" / "requirements.txt").read_text().splitlines()
    assert lines == ["llama-cpp-python>=0.3.16", f"numpy=={known('numpy')}"]


def test_a_source_without_a_licence_is_called_that(tmp_path: Path) -> None:
    """Nobody is told that they may do what nobody has allowed."""
    artifact = artifact_of(tmp_path / "artifact", fake_model(tmp_path / "model"), licence=None)
    bare = msgspec.structs.replace(
        artifact.manifest, source=msgspec.structs.replace(artifact.manifest.source, licence=None)
    )
    bare.write(artifact.folder)
    deploy(artifact.folder, tmp_path / "small")
    assert "its folder named none" in (tmp_path / "small" / "NOTICE").read_text()


# ---- what is refused -----------------------------------------------------------------------------------------


def test_what_is_there_already_is_left_alone(artifact: Artifact, tmp_path: Path) -> None:
    """Nothing is ever written over."""
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "mine.txt").write_text("mine")
    with pytest.raises(ConfigurationError, match="is there already"):
        deploy(artifact, tmp_path / "small")
    assert [path.name for path in (tmp_path / "small").iterdir()] == ["mine.txt"]


def test_a_damaged_artifact_is_not_deployed(artifact: Artifact, tmp_path: Path) -> None:
    """Also where it was opened before it was damaged."""
    (artifact.model / "model.onnx").write_bytes(b"weigths")
    for given in (artifact, artifact.folder):
        with pytest.raises(ArtifactError, match=r"model\.onnx is damaged"):
            deploy(given, tmp_path / "small")
    assert not (tmp_path / "small").exists()


def test_a_format_that_nothing_here_runs_is_refused(tmp_path: Path) -> None:
    """It is exported first."""
    model = fake_model(tmp_path / "model", "model.safetensors")
    (model / "config.json").write_text("{}")
    with pytest.raises(ArtifactError, match="of format hf"):
        deploy(artifact_of(tmp_path / "artifact", model), tmp_path / "small")


def test_a_full_disk_leaves_nothing_behind(artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither half a folder nor the one beside it."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("agentflow.mcp.performance.edge.folder.checksums.write", full)
    with pytest.raises(OSError, match="No space left"):
        deploy(artifact, tmp_path / "out" / "small")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda folder: (folder / "run.py").write_text("print('hello')"), "run.py is damaged"),
        (lambda folder: (folder / "artifact/model/model.onnx").unlink(), "artifact/model/model.onnx is missing"),
        (lambda folder: (folder / "artifact/model/more.bin").touch(), "more.bin is not in its SHA256SUMS"),
        (lambda folder: (folder / "SHA256SUMS").unlink(), "it has no SHA256SUMS"),
        (lambda folder: (folder / "SHA256SUMS").write_text("nonsense\n"), "has a line that is none"),
        (
            lambda folder: (folder / "SHA256SUMS").write_text(f"{'0' * 64}  ../../etc/passwd\n"),
            "has a line that is none",
        ),
        (lambda folder: shutil.rmtree(folder / "artifact"), "it is no deployed folder"),
        (lambda folder: shutil.rmtree(folder), "there is no such folder"),
    ],
)
def test_what_was_harmed_is_named(artifact: Artifact, tmp_path: Path, harm: object, said: str) -> None:
    """Before anything of it is run."""
    deploy(artifact, tmp_path / "small")
    harm(tmp_path / "small")  # type: ignore[operator]
    with pytest.raises(ArtifactError, match=said):
        verify(tmp_path / "small")


def test_a_model_that_does_not_run_is_said(artifact: Artifact, tmp_path: Path) -> None:
    """Whole files are no proof that a runtime loads them."""
    deploy(artifact, tmp_path / "small")
    with pytest.raises(BackendError, match="exit code"):
        verify(tmp_path / "small")


# ---- it runs -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained model, as int4."""
    place = tmp_path_factory.mktemp("deployed") / "a folder with ünïcode"
    place.mkdir()
    deploy(artifact_of(place / "artifact", onnx_of("trained", "int4")), place / "small", name="edge/it's small")
    return place / "small"


def test_it_writes_where_nothing_of_ours_can_be_imported(deployed: Path) -> None:
    """A prompt as an argument and from a pipe; the same words each time, and others where they are drawn."""
    first = run(deployed / "run.py", "def main(", "--max-tokens", "12")
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout.strip()
    assert run(deployed / "run.py", "--max-tokens", "12", input="def main(").stdout == first.stdout
    drawn = [
        run(deployed / "run.py", "def main(", "--max-tokens", "12", "--temperature", "1", "--seed", seed).stdout
        for seed in ("1", "1", "2")
    ]
    assert drawn[0] == drawn[1] != drawn[2]


async def test_it_writes_what_the_artifact_writes_inside_agentflow(deployed: Path) -> None:
    """The bare program and our own runtime, tokenizer and sampling agree on the likeliest words."""
    prompt = texts("held_out")[0][:200]
    bare = run(deployed / "run.py", prompt, "--max-tokens", "24").stdout.removesuffix("\n")
    registry = ModelRegistry.load(environ={}, cwd=deployed, home=deployed)
    with EdgeDeployment(deployed / "artifact", threads=1).register("edge/here", registry=registry):
        reply = await AgentFlow.model("edge/here", registry=registry).prompt(prompt).max_tokens(24).execute()
    assert reply == bare
    named = await AgentFlow.model("edge/it's small", registry=registry).prompt(prompt).max_tokens(24).execute()
    assert named == bare  # by the models.yml of the folder itself
    await registry.aclose()


@pytest.mark.parametrize(
    ("words", "input", "said"),
    [
        (("x " * 2000,), "", "the prompt has"),
        ((), "", "the prompt has 0 tokens"),
        (("Hi", "--max-tokens", "0"), "", "--max-tokens is 1 or more"),
        (("Hi", "--serve"), "", "--serve needs AgentFlow: pip install 'agentflow-engine[edge]'"),
    ],
)
def test_what_it_cannot_do_is_said(deployed: Path, words: tuple[str, ...], input: str, said: str) -> None:
    """In a sentence, without a traceback."""
    done = run(deployed / "run.py", *words, input=input)
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_fresh_process_is_the_proof(deployed: Path) -> None:
    """Checksums, then a token; and checking changes nothing."""
    check = verify(deployed)
    lines = (deployed / "SHA256SUMS").read_text().splitlines()
    assert (check.runtime, check.files) == ("onnxruntime-genai", len(lines))
    assert check.seconds > 0
    assert verify(deployed).files == check.files


def test_the_manifest_travels_with_it(deployed: Path) -> None:
    """Whoever gets the folder can read what was lost."""
    said = json.loads((deployed / "artifact" / "manifest.json").read_text())
    assert said["source"]["name"] == "teacher"


def test_it_serves_where_agentflow_is(deployed: Path) -> None:
    """OpenAI's API from the folder alone, wherever it is started from."""
    command = [sys.executable, "-B", str(deployed / "run.py"), "--serve", "--port", "0"]
    with subprocess.Popen(command, cwd=deployed, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            found = re.search(r"serving edge/it's small at http://127\.0\.0\.1:(\d+)/v1", process.stderr.readline())
            assert found
            connection = HTTPConnection("127.0.0.1", int(found[1]), timeout=60)
            body = json.dumps({"model": "edge/it's small", "prompt": "import", "max_tokens": 4})
            connection.request("POST", "/v1/completions", body, {"content-type": "application/json"})
            answer = json.loads(connection.getresponse().read())
            connection.close()
        finally:
            process.send_signal(signal.SIGINT)
    assert answer["usage"]["completion_tokens"] == 4
    assert process.returncode == 130


# ---- GGUF ----------------------------------------------------------------------------------------------------

FAKE_LLAMA = """
import sys
__version__ = "0.3.99"
class Llama:
    metadata = {} if "plain" in sys.argv else {"tokenizer.chat_template": "…"}
    def __init__(self, path, n_ctx, verbose):
        assert path.endswith("model.gguf") and n_ctx == 0 and verbose is False
    def create_completion(self, prompt, max_tokens, temperature, seed, stream):
        yield {"choices": [{"text": f"{prompt}+{max_tokens}"}]}
    def create_chat_completion(self, turns, max_tokens, temperature, seed, stream):
        yield {"choices": [{"delta": {"role": "assistant"}}]}
        yield {"choices": [{"delta": {"content": f"to {turns[0]['content']}: {temperature}/{seed}"}}]}
"""


def test_a_gguf_is_run_by_llama_cpp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a chat where the model knows chats, else as the text that goes on."""
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "llama_cpp.py").write_text(FAKE_LLAMA)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "fake"))
    deploy(artifact_of(tmp_path / "artifact", fake_model(tmp_path / "model", "model.gguf")), tmp_path / "out")
    program = tmp_path / "out" / "run.py"
    assert run(program, "Hi", "--temperature", "0.5", "--seed", "3").stdout == "to Hi: 0.5/3\n"
    assert run(program, "Hi", "--raw", "--max-tokens", "5").stdout == "Hi+5\n"
    assert run(program, "plain", "--max-tokens", "5").stdout == "plain+5\n"
    assert verify(tmp_path / "out").version == "0.3.99"


def test_a_real_gguf_is_run_by_the_real_llama_cpp(tmp_path: Path) -> None:
    """Where somebody has compiled it."""
    try:
        python = llama_cpp_python()
    except BackendError as error:
        pytest.skip(str(error))
    import torch

    from agentflow.mcp.compression.export.stage import export
    from agentflow.mcp.compression.work import Work

    model, nothing = tmp_path / "model", torch.zeros((0, 1), dtype=torch.int64)
    work = Work(calibration=nothing, training=nothing, evaluation=nothing, scratch=tmp_path, teacher=teacher_folder())
    export(Export("gguf:f16"), teacher_folder(), model, work)
    deploy(artifact_of(tmp_path / "artifact", model), tmp_path / "out")
    assert verify(tmp_path / "out", python=python).runtime == "llama.cpp"


# ---- models that write nothing -------------------------------------------------------------------------------


def test_a_deployed_embedder_gives_the_vectors_that_it_gives_here(tmp_path: Path) -> None:
    """A line of JSON for each text, also for those that are too long for it."""
    model = encoder(tmp_path / "model", "embed")
    deploy(artifact_of(tmp_path / "artifact", model, task="embed"), tmp_path / "out")
    said = ["Hello there", "naïve “quotes” 🙂", "x " * 100]
    done = run(tmp_path / "out" / "run.py", *said, forbidden=(*FORBIDDEN, "onnxruntime_genai"))
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    tokenizer = EdgeTokenizer(model)
    embedder = open_embedder(model)
    here = embedder.vectors([tokenizer.encode_within(text, 16) for text in said])
    embedder.close()
    assert np.allclose(found, here, atol=1e-6)


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_deployed_classifier_tells_how_likely_each_label_is(tmp_path: Path, multi_label: bool) -> None:
    """The likeliest first; together they are certain, unless each stands by itself."""
    model = encoder(tmp_path / "model", "classify", multi_label=multi_label)
    deploy(artifact_of(tmp_path / "artifact", model, task="classify"), tmp_path / "out")
    done = run(tmp_path / "out" / "run.py", input="Hello there\nAnother\n")
    assert done.returncode == 0, done.stderr
    first, second = [json.loads(line) for line in done.stdout.splitlines()]
    assert set(first) == set(second) == set(LABELS)
    assert list(first.values()) == sorted(first.values(), reverse=True)
    assert (abs(sum(first.values()) - 1) < 1e-9) is not multi_label
    tokenizer, labeller = EdgeTokenizer(model), open_labeller(model)
    [scores] = labeller.scores([tokenizer.encode_within("Hello there", 16)])
    labeller.close()
    assert next(iter(first)) == LABELS[int(scores.argmax())]
    assert verify(tmp_path / "out").runtime == "onnxruntime"


# ---- on another machine --------------------------------------------------------------------------------------


def test_its_requirements_are_all_that_it_needs(deployed: Path, tmp_path: Path) -> None:
    """A Python that has those packages, what they themselves require, and nothing else."""
    bare = tmp_path / "bare"
    venv.create(bare, with_pip=False, symlinks=True)
    place = next((bare / "lib").glob("python*")) / "site-packages"
    names = [line.partition("==")[0] for line in (deployed / "requirements.txt").read_text().splitlines()]
    for package in closure(names):
        link(package, place)
    python = str(bare / "bin" / "python")
    asked = "import importlib.util as u; print([n for n in ('torch', 'agentflow', 'tokenizers') if u.find_spec(n)])"
    done = subprocess.run([python, "-c", asked], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
    assert verify(deployed, python=python).runtime == "onnxruntime-genai"


def closure(names: list[str]) -> list[metadata.Distribution]:
    """The distributions of these names, and those that they require."""
    found: dict[str, metadata.Distribution] = {}
    while names:
        name = names.pop().lower().replace("_", "-")
        if name not in found:
            found[name] = metadata.distribution(name)
            plain = [each for each in found[name].requires or () if "extra ==" not in each]
            names += [re.split(r"[^\w.-]", each)[0] for each in plain]
    return list(found.values())


def link(package: metadata.Distribution, place: Path) -> None:
    """Its folders and files as they are installed here."""
    for top in {file.parts[0] for file in package.files or () if file.parts[0] not in ("..", "__pycache__")}:
        if not (place / top).exists():
            (place / top).symlink_to(Path(str(package.locate_file(top))))
