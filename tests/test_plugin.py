"""A provider in a package of its own: built, installed beside AgentFlow, found by its entry point, and used."""

from __future__ import annotations

import ast
import http.server
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "examples" / "agentflow-parrot"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed package, as pip lays it out."""
    wheels, target = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(wheels), str(PACKAGE)], check=True)
    [wheel] = wheels.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", str(target), str(wheel)], check=True)
    return target


class Parrot(http.server.BaseHTTPRequestHandler):
    """The Parrot API."""

    protocol_version = "HTTP/1.1"
    keys: list[str | None] = []

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.keys.append(self.headers["x-parrot-key"])
        said = f"{asked['say']}!"
        count = [len(asked["say"].split()), len(said.split())]
        if asked["stream"]:
            pieces = [{"said": said[:3]}, {"said": said[3:]}, {"words": count}]
            body = "".join(f"data: {json.dumps(piece)}\n\n" for piece in pieces).encode()
        else:
            body = json.dumps({"said": said, "words": count}).encode()
        self.send_response(200)
        self.send_header("content-type", "text/event-stream" if asked["stream"] else "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def parrot() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Parrot) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def run(program: list[str], installed: Path, folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(installed), "HOME": str(folder), **environ}
    return subprocess.run([sys.executable, *program], cwd=folder, env=environ, capture_output=True, text=True)


def test_an_installed_provider_is_found_by_its_name(installed: Path, parrot: str, tmp_path: Path) -> None:
    """models.yml names the kind; the command line asks the model, streaming."""
    (tmp_path / "models.yml").write_text(
        f'providers:\n  zoo: {{kind: parrot, base_url: "{parrot}", api_key_env: PARROT_KEY}}\n'
        "models:\n  grey: {provider: zoo}\n"
    )
    done = run(["-m", "agentflow", "ask", "--model", "grey", "Hello there"], installed, tmp_path, PARROT_KEY="p-123")
    assert (done.returncode, done.stdout.strip()) == (0, "Hello there!"), done.stderr
    assert Parrot.keys[-1] == "p-123"


def test_its_name_is_a_provider_without_a_line_of_configuration(installed: Path, parrot: str, tmp_path: Path) -> None:
    (tmp_path / "models.yml").write_text(f'providers:\n  parrot: {{base_url: "{parrot}"}}\n')
    program = (
        "import asyncio\n"
        "from agentflow import AgentFlow\n"
        "reply = asyncio.run(AgentFlow.model('parrot/grey').prompt('Hello').execute_full())\n"
        "print(reply.text, reply.provider, reply.usage.input_tokens, reply.usage.output_tokens)\n"
    )
    done = run(["-c", program], installed, tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, "Hello! parrot 1 1"), done.stderr


def test_without_the_package_the_kind_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "models.yml").write_text("providers:\n  zoo: {kind: parrot}\nmodels:\n  grey: {provider: zoo}\n")
    done = run(["-m", "agentflow", "ask", "--model", "grey", "Hello"], tmp_path, tmp_path)
    assert done.returncode != 0
    assert "unknown kind 'parrot'" in done.stderr


def test_the_documentation_shows_the_package_as_it_is() -> None:
    """The classes and functions of docs/providers.md are those of the package, statement by statement."""
    page = (ROOT / "docs" / "providers.md").read_text()
    shown = bodies("\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL)))
    built = bodies((PACKAGE / "agentflow_parrot.py").read_text())
    assert {"Said", "usage", "ParrotApi", "ParrotReading"} <= shown.keys() & built.keys()
    for name in shown.keys() & built.keys() - {"ParrotProvider"}:  # the package's takes a transport, for tests
        assert shown[name] == built[name], name


def bodies(text: str) -> dict[str, str]:
    """What each class and function of a text does, without docstrings and base classes' spelling."""
    found = {}
    for item in ast.parse(text).body:
        if isinstance(item, ast.ClassDef | ast.FunctionDef):
            for inner in ast.walk(item):
                if isinstance(inner, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(inner) is not None:
                    inner.body = inner.body[1:]
            found[item.name] = "\n".join(ast.unparse(statement) for statement in item.body)
    return found
