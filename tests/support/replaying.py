"""Recorded answers on loopback, for clients that will not take a transport of ours: the official SDKs.

    with Replayer(recordings, piece=7) as server:      GET or POST http://127.0.0.1:PORT/12/whatever
        server.url(12)                                 ──▶ the answer of recordings[12], in 7-byte chunks

The number in the path is all that is looked at: which request is answered by what is the test's affair.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

from tests.support.recordings import Recording

__all__ = ["Replayer"]

_BY_THE_SERVER = {"content-length", "transfer-encoding", "content-encoding", "connection"}


class Replayer:
    """A server in a thread of its own, from `with` to the end of it. Streams are cut into chunks of `piece` bytes."""

    def __init__(self, recordings: Sequence[Recording], *, piece: int) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(recordings, piece))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def url(self, number: int) -> str:
        """What stands before the path, without a slash at its end."""
        return f"http://127.0.0.1:{self._server.server_port}/{number}"

    def __enter__(self) -> Replayer:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _handler(recordings: Sequence[Recording], piece: int) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", "0")))
            recording = recordings[int(self.path.split("/")[1])]
            self.send_response_only(recording.status)
            for name, value in recording.headers.items():
                if name not in _BY_THE_SERVER:
                    self.send_header(name, value)
            if recording.streamed:
                self._chunks(recording.body)
            else:
                self.send_header("content-length", str(len(recording.body)))
                self.end_headers()
                self.wfile.write(recording.body)

        do_GET = do_POST

        def _chunks(self, body: bytes) -> None:
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            for start in range(0, len(body), piece):
                part = body[start : start + piece]
                self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
            self.wfile.write(b"0\r\n\r\n")

        def handle(self) -> None:
            try:
                super().handle()
            except ConnectionError:  # an SDK need not read what follows the end mark
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            """Tests have nothing to say on a terminal."""

    return Handler
