"""Makes the environments of the programs that tests hold AgentFlow against, and that cannot share one with it.

    .venvs/oracles   the official SDKs: their answers to recorded traffic must be ours    ──▶ test_oracles
    .venvs/litellm   a proxy that speaks every API, and that somebody else wrote          ──▶ test_litellm_proxy
    .venvs/phoenix   Arize Phoenix, which receives traces and shows what it understood    ──▶ test_phoenix
    .venvs/llmcompressor   vLLM's quantiser: our codes must be its codes             ──▶ test_against_llmcompressor

An environment is kept until its list here, or the Python, is another one. What cannot be installed is said; the tests
that need it then skip, and fail in CI. Run it with any Python that has pip (`scripts/install-services` does).
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LONGEST = 600  # seconds for one environment, after which its tests skip


@dataclass(frozen=True, slots=True)
class Environment:
    """A folder under .venvs and what is installed there, each of a version that the tests were written against."""

    name: str
    packages: tuple[str, ...]

    @property
    def folder(self) -> Path:
        return ROOT / ".venvs" / self.name

    @property
    def stamp(self) -> Path:
        """The file that says what the environment was made for; only a whole one has it."""
        return self.folder / ".made-for"

    @property
    def made_for(self) -> str:
        return hashlib.sha256(f"{sys.version}\n{self.packages}".encode()).hexdigest()


ENVIRONMENTS = (
    Environment("oracles", ("openai==3.57.0", "anthropic==2.14.0", "google-genai==3.6.1")),
    Environment("litellm", ("litellm[proxy]==1.108.7",)),
    Environment("phoenix", ("arize-phoenix==20.26.1",)),
    # torch as the project pins it: a newer one for Linux brings several GB of CUDA
    Environment("llmcompressor", ("torch==2.13.0", "llmcompressor==0.14.0.1")),
)


def main() -> int:
    """Make what is not there. The exit code is 0 also where an index cannot be reached: tests say what is missing."""
    for environment in ENVIRONMENTS:
        if environment.stamp.exists() and environment.stamp.read_text() == environment.made_for:
            continue
        if make(environment):
            environment.stamp.write_text(environment.made_for)
        else:
            say(f"{environment.name} could not be installed: the tests that need it will be skipped")
    return 0


def make(environment: Environment) -> bool:
    """A fresh environment with its packages; whether that worked."""
    say(f"making .venvs/{environment.name} with {', '.join(environment.packages)}")
    venv.create(environment.folder, clear=True, with_pip=False)
    python = environment.folder / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--retries", "2",
               "--disable-pip-version-check", *environment.packages]  # fmt: skip
    try:
        done = subprocess.run(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=LONGEST, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def say(line: str) -> None:
    """One line, at once."""
    print(f"install-services: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
