"""Runs the tests of core and of llm where only what each may need is installed: a forgotten import cannot hide.

    the tree ──▶ sdist ──▶ wheel ──▶ .venvs/core   the test tools, and no dependency at all   ──▶ tests/core
                                └──▶ .venvs/llm    the test tools, and llm's dependencies     ──▶ tests/llm

The environments are kept and made anew when pyproject.toml changes; the wheel is built and installed every time, so
that what is tested is what would be published, data files included. Run it with the Python of .venv (`make isolated`).
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
DEPENDENCIES = {re.split(r"[^\w-]", line)[0]: line for line in tomllib.loads(PYPROJECT)["project"]["dependencies"]}
IMPORTED_AS = {"PyYAML": "yaml"}


@dataclass(frozen=True, slots=True)
class Room:
    """A part of the package and the dependencies it may have, by their names in pyproject.toml."""

    name: str
    needs: tuple[str, ...]

    @property
    def forbidden(self) -> list[str]:
        return [IMPORTED_AS.get(name, name) for name in DEPENDENCIES if name not in self.needs]

    @property
    def env(self) -> Path:
        return ROOT / ".venvs" / self.name

    @property
    def python(self) -> Path:
        return self.env / "bin" / "python"


ROOMS = (Room("core", ()), Room("llm", ("aiohttp", "msgspec", "PyYAML")))


def main() -> int:
    """Build, then install and test each room; the exit code is that of the first suite that fails."""
    with TemporaryDirectory() as folder:
        wheel = build(Path(folder))
        for room in ROOMS:
            prepare(room)
            run(sys.executable, "-m", "pip", "--python", room.python, "install", "--quiet", "--no-deps",
                "--no-index", "--force-reinstall", wheel)  # fmt: skip
    for room in ROOMS:
        look_around(room)
        say(f"tests/{room.name} without {', '.join(room.forbidden)}")
        suite = [room.python, "-m", "pytest", f"tests/{room.name}", "-q", "-m", "not service", "-n", "2"]
        suite.append("--ignore=tests/core/durability/crash")  # a thousand kills tell nothing of imports
        code = subprocess.run(suite, cwd=ROOT).returncode
        if code:
            say(f"tests/{room.name} failed where only {', '.join(room.needs) or 'the standard library'} is installed")
            return code
    return 0


def build(folder: Path) -> Path:
    """The wheel, made from the sdist as an index would have it. Fails if a file of the package is missing from it."""
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder)
    [sdist] = folder.glob("*.tar.gz")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, sdist)
    [wheel] = folder.glob("*.whl")
    source = ROOT / "src"
    wanted = {
        str(path.relative_to(source))
        for path in (source / "agentflow").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    missing = wanted - set(zipfile.ZipFile(wheel).namelist())
    if missing:
        sys.exit(f"isolated: the wheel lacks {', '.join(sorted(missing))}")
    return wheel


def prepare(room: Room) -> None:
    """Make the room's environment, unless the one that is there was made for this pyproject.toml and this Python."""
    stamp = room.env / ".made-for"
    made_for = hashlib.sha256(f"{sys.version}\n{room}\n{PYPROJECT}".encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == made_for:
        return
    say(f"making {room.env.relative_to(ROOT)}")
    venv.create(room.env, clear=True, with_pip=False)
    run(sys.executable, "-m", "pip", "--python", room.python, "install", "--quiet", "--group", "isolated",
        *(DEPENDENCIES[name] for name in room.needs))  # fmt: skip
    stamp.write_text(made_for)


def look_around(room: Room) -> None:
    """Fail if the environment is not what it claims: a forbidden package is there, or agentflow is not the wheel."""
    program = (
        "import sys\n"
        "from importlib.util import find_spec\n"
        f"there = [name for name in {room.forbidden} if find_spec(name)]\n"
        "sys.exit(f'{there} can be imported here') if there else None\n"
        "origin = find_spec('agentflow').origin\n"
        "sys.exit(None if origin.startswith(sys.prefix) else f'agentflow is {origin}, not the wheel')\n"
    )
    run(room.python, "-c", program)


def run(*command: str | Path) -> None:
    """Run a command in the project's folder; its failure ends this script and says which command it was."""
    outcome = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    if outcome.returncode:
        sys.exit(f"isolated: failed: {' '.join(map(str, command))}")


def say(line: str) -> None:
    """One line on standard output, ahead of what a program started next prints."""
    print(f"isolated: {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
