"""The README's ten lines, word for word, before a server that has a bad start: they are protected as they stand."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINES = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


@contextmanager
def server(*moods: int) -> Iterator[tuple[str, list[int]]]:
    """A server in OpenAI's format: it answers its first requests with these statuses, and all others well. Its address,
    and what it has answered."""
    left, told, lock = list(moods), [], threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            with lock:
                status = left.pop(0) if left else 200
                told.append(status)
            message = {"role": "assistant", "content": "In short."}
            good = {"id": "1", "model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
            body = json.dumps(good if status == 200 else {"error": {"message": "a bad day"}}).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            if status == 429:
                self.send_header("retry-after-ms", "50")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """In silence."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{http.server_address[1]}/v1", told
    finally:
        http.shutdown()
        http.server_close()


def ran(folder: Path, address: str, extra: str = "") -> subprocess.CompletedProcess[str]:
    """The README's block in a folder of its own; nothing is configured but where the server is."""
    assert LINES is not None
    (folder / "docs").mkdir(exist_ok=True)
    for name in ("README.md", "docs/tutorial.md"):
        (folder / name).write_text("The moon pulls the sea.")
    (folder / "models.yml").write_text(f"providers: {{openai: {{base_url: '{address}'}}}}\n")
    environ = {**os.environ, "OPENAI_API_KEY": "sk-test-0123456789abcdef", "HOME": str(folder)}
    program = [sys.executable, "-W", "error", "-c", LINES[1] + extra]
    return subprocess.run(program, cwd=folder, env=environ, capture_output=True, text=True, timeout=60)


def test_a_limit_and_an_outage_cost_a_moment_and_nothing_else(tmp_path: Path) -> None:
    with server(429, 500, 529) as (address, told):
        done = ran(tmp_path, address)
    assert (done.stderr, done.stdout) == ("", "- In short.\n- In short.\n")
    assert sorted(told) == [200, 200, 429, 500, 529]


STORM = """
async def storm():
    outcomes = [result.error for result in await flow.run_batch([{"texts": texts}] * 20, concurrency=1)]
    print(*(type(error.__cause__).__name__ for error in outcomes))

asyncio.run(storm())
"""


def test_a_server_that_goes_down_is_left_alone_after_ten_calls_or_so(tmp_path: Path) -> None:
    """What follows is refused before it is sent, and says so."""
    with server(200, 200, *[500] * 1000) as (address, told):
        done = ran(tmp_path, address, STORM)
    assert done.stderr == ""
    *_, errors = done.stdout.splitlines()
    assert errors.split()[0] == "ServerError"
    assert errors.split()[-1] == "CircuitOpenError"
    assert len(told) < 2 + 20
