"""A provider on loopback that speaks the batch APIs of OpenAI, Anthropic and Google, and keeps books of what it bills.

    async with BatchApiServer(clock.time) as server:
        server.models_yml()            a models.yml by which openai/…, anthropic/…, google/… and moonshot/… are asked
        server.takes = 600.0           seconds that a batch takes, of those that are made from now on
        server.trouble["create"] = [Trouble.LOST_AFTER]      the next batch is made, but its answer never arrives
        server.billed                  Counter: how often each prompt was answered, and so paid for

Requests are worked on one after the other, evenly over the time that a batch takes. What is worked on is billed,
whether anybody ever reads the answer or not; what fails, expires or is cancelled is not.
"""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from aiohttp import web
from tests.support.speakers import SPEAKERS, Answer, Spent

__all__ = ["BatchApiServer", "JumpingClock", "Trouble"]

Json = dict[str, Any]
KINDS = ("openai", "anthropic", "google", "moonshot")
PRICE = {"input": 2.0, "output": 4.0, "batch": 0.5}  # USD for a million tokens
SPENT = Spent(input=100, output=50)
FULL_PRICE = (100 * 2.0 + 50 * 4.0) / 1e6


class JumpingClock:
    """Sleep takes no time, and the clock jumps as if it did. Sockets are waited for in real time beside it."""

    def __init__(self, start: float = 1_700_000_000.0, seed: int = 0) -> None:
        self.now = start
        self._dice = random.Random(seed)

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds

    def random(self) -> float:
        return self._dice.random()


class Trouble(Enum):
    """What goes wrong with one call."""

    LOST_BEFORE = "the connection breaks before anything is done"
    LOST_AFTER = "all is done, and the connection breaks before the answer"
    FAILS_BEFORE = "500, and nothing is done"
    FAILS_AFTER = "500, though all is done"
    BUSY = "429, and nothing is done"
    UNKNOWN_KEY = "401"
    REFUSED = "400"
    LATE = "all is done, but it shows in lists only later"


@dataclass
class Work:
    """One batch."""

    id: str
    kind: str
    name: str
    created: float
    items: list[tuple[str, Json]]
    takes: float
    in_file: bool = False
    faults: list[Json] = field(default_factory=list)
    shown: float = 0.0  # when lists begin to show it
    worked: list[tuple[str, Json, str]] = field(default_factory=list)  # custom id, body, what became of it
    ended: str = ""
    cancelled_at: float | None = None


class BatchApiServer:
    def __init__(self, now: Callable[[], float], *, seed: int = 0) -> None:
        self.now = now
        self.billed: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()  # calls, by what they are for
        self.takes = 600.0
        self.window = 86_400.0
        self.trouble: defaultdict[str, list[Trouble]] = defaultdict(list)
        self.fails: Callable[[str, int], int | None] = lambda prompt, time: None
        self.mangle: Callable[[list[Json]], list[Json]] = lambda lines: lines
        self.cut = False  # the first file of answers ends in the middle of a line, as nobody's should
        self.faults: list[Json] = []  # of the next batch of OpenAI: it is refused after it was accepted
        self.cancel_takes = 0.0
        self.works: dict[str, Work] = {}
        self.files: dict[str, tuple[str, bytes]] = {}
        self._tries: Counter[str] = Counter()
        self._count = 0
        self._runner: web.AppRunner | None = None
        self.address = ""
        self.dice = random.Random(seed)

    async def __aenter__(self) -> BatchApiServer:
        app = web.Application(client_max_size=2**28)
        app.router.add_route("*", "/{tail:.*}", self._answer)
        self._runner = runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        self.address = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    def models_yml(self, **options: Json) -> str:
        """JSON is YAML. `options` are those of a provider, by its kind; `budget` is one that all models are under."""
        providers = {
            kind: {
                "kind": kind,
                "base_url": f"{self.address}/{'v1beta' if kind == 'google' else 'v1'}",
                "api_key_env": None,
                "options": options.get(kind, {}),
            }
            for kind in KINDS
        }
        entry: Json = {"price": PRICE, "max_tokens": 64}
        if "budget" in options:
            entry["budget"] = options["budget"]
        models = {kind: {"provider": kind, "model_id": MODELS[kind], **entry} for kind in KINDS}
        return json.dumps({"defaults": {"retry": {"max_attempts": 2}}, "providers": providers, "models": models})

    # ---- the way of every call -------------------------------------------------------------------------------

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        purpose, act = self._route(request)
        self.asked[purpose] += 1
        trouble = self.trouble[purpose].pop(0) if self.trouble[purpose] else None
        if trouble in (Trouble.LOST_BEFORE, Trouble.FAILS_BEFORE, Trouble.BUSY, Trouble.UNKNOWN_KEY, Trouble.REFUSED):
            await request.read()
            return self._trouble(request, trouble)
        answer = await act(request)
        if trouble is Trouble.LATE:
            list(self.works.values())[-1].shown = self.now() + 30
            trouble = Trouble.LOST_AFTER
        return answer if trouble is None else self._trouble(request, trouble)

    def _trouble(self, request: web.Request, trouble: Trouble) -> web.StreamResponse:
        if trouble in (Trouble.LOST_BEFORE, Trouble.LOST_AFTER):
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        status = {Trouble.BUSY: 429, Trouble.UNKNOWN_KEY: 401, Trouble.REFUSED: 400}.get(trouble, 500)
        return web.json_response({"error": {"message": "no luck", "code": status, "type": "trouble"}}, status=status)

    def _route(self, request: web.Request) -> tuple[str, Any]:
        way, path = request.method, request.path
        if path.startswith("/v1/messages/batches"):
            rest = path.removeprefix("/v1/messages/batches").strip("/")
            return self._of_anthropic(way, rest)
        if path in ("/v1/messages", "/v1/chat/completions") or path.endswith(":generateContent"):
            return "direct", self._direct
        if path.startswith(("/v1beta/", "/upload/v1beta/")):
            return self._of_google(way, path)
        return self._of_openai(way, path.removeprefix("/v1/"))

    # ---- work ------------------------------------------------------------------------------------------------

    def begin(self, kind: str, name: str, items: list[tuple[str, Json]], *, in_file: bool = False) -> Work:
        names = [name for name, _ in items]
        assert len(set(names)) == len(names), "a custom id stands twice"
        self._count += 1
        prefix = {"anthropic": "msgbatch_", "google": "batches/"}.get(kind, "batch_")
        work = Work(f"{prefix}{self._count}", kind, name, self.now(), items, self.takes, in_file, shown=self.now())
        self.works[work.id] = work
        return work

    def go_on(self, work: Work) -> Work:
        """Do what is done by now."""
        if work.ended:
            return work
        now, total = self.now(), len(work.items)
        until = min(now, work.created + self.window)
        if work.cancelled_at is not None:
            until = min(until, work.cancelled_at)
        share = 1.0 if work.takes <= 0 else min(1.0, (until - work.created) / work.takes)
        while len(work.worked) < int(total * share + 1e-9):
            self._work_on(work, *work.items[len(work.worked)])
        if len(work.worked) == total:
            work.ended = "completed"
        elif work.cancelled_at is not None and now >= work.cancelled_at + self.cancel_takes:
            self._leave(work, "cancelled")
        elif now >= work.created + self.window:
            self._leave(work, "expired")
        return work

    def _work_on(self, work: Work, custom_id: str, body: Json) -> None:
        prompt = prompt_of(work.kind, body)
        time = self._tries[prompt]
        self._tries[prompt] += 1
        status = self.fails(prompt, time)
        if status is None:
            self.billed[prompt] += 1
        work.worked.append((custom_id, body, "answered" if status is None else str(status)))

    def _leave(self, work: Work, outcome: str) -> None:
        for custom_id, body in work.items[len(work.worked) :]:
            work.worked.append((custom_id, body, outcome))
        work.ended = outcome

    def _cancelled(self, id: str) -> Work | None:
        work = self.go_on(self.works[id])
        if work.ended:
            return None
        work.cancelled_at = self.now() if work.cancelled_at is None else work.cancelled_at
        return self.go_on(work)

    def _counts(self, work: Work) -> tuple[int, int]:
        done = sum(what == "answered" for *_, what in work.worked)
        return done, sum(what.isdigit() for *_, what in work.worked)

    def _listed(self, *kinds: str) -> list[Work]:
        """The newest first."""
        shown = [work for work in self.works.values() if work.kind in kinds and work.shown <= self.now()]
        return [self.go_on(work) for work in reversed(shown)]

    async def _direct(self, request: web.Request) -> web.Response:
        body = await request.json()
        kind = "anthropic" if request.path == "/v1/messages" else "google" if "v1beta" in request.path else "openai"
        prompt = prompt_of(kind, body)
        self.billed[prompt] += 1
        return web.json_response(said(kind, prompt))

    # ---- OpenAI and Moonshot ---------------------------------------------------------------------------------

    def _of_openai(self, way: str, path: str) -> tuple[str, Any]:
        match (way, path.split("/")):
            case "POST", ["files"]:
                return "upload", self._openai_upload
            case "GET", ["files"]:
                return "find_upload", self._openai_files
            case "GET", ["files", id, "content"]:
                return "results", lambda request: self._openai_content(id)
            case "POST", ["batches"]:
                return "create", self._openai_create
            case "GET", ["batches"]:
                return "find", self._openai_list
            case "GET", ["batches", id]:
                return "check", lambda request: self._openai_check(id)
            case "POST", ["batches", id, "cancel"]:
                return "cancel", lambda request: self._openai_cancel(id)
        raise AssertionError(f"nobody asks {way} {path}")

    async def _openai_upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        assert form["purpose"] == "batch"
        file = form["file"]
        assert isinstance(file, web.FileField)
        self._count += 1
        id = f"file-{self._count}"
        self.files[id] = (file.filename, file.file.read())
        return web.json_response(self._openai_file(id))

    def _openai_file(self, id: str) -> Json:
        name, content = self.files[id]
        return {"id": id, "object": "file", "bytes": len(content), "filename": name, "purpose": "batch"}

    async def _openai_files(self, request: web.Request) -> web.Response:
        ids = [id for id in self.files if id.startswith("file-")]
        return web.json_response(_page([self._openai_file(id) for id in reversed(ids)], request))

    async def _openai_create(self, request: web.Request) -> web.Response:
        body = await request.json()
        lines = [json.loads(line) for line in self.files[body["input_file_id"]][1].splitlines()]
        assert all(line["url"] == body["endpoint"] and line["method"] == "POST" for line in lines)
        assert body["completion_window"] == "24h"
        items = [(line["custom_id"], line["body"]) for line in lines]
        work = self.begin("openai", json.dumps(body["metadata"]), items, in_file=True)
        if self.faults:
            work.ended, work.faults = "failed", self.faults
            work.worked = [(name, each, "refused") for name, each in items]
        return web.json_response(self._openai_batch(work))

    def _openai_batch(self, work: Work) -> Json:
        done, failed = self._counts(self.go_on(work))
        status = work.ended or ("cancelling" if work.cancelled_at is not None else "in_progress")
        kinds = {what == "answered" for *_, what in work.worked if what != "refused"}
        return {
            "id": work.id,
            "object": "batch",
            "status": status,
            "created_at": int(work.created),
            "metadata": json.loads(work.name),
            "request_counts": {"total": len(work.items), "completed": done, "failed": failed},
            "output_file_id": f"out-{work.id}" if work.ended and True in kinds else None,
            "error_file_id": f"err-{work.id}" if work.ended and False in kinds else None,
            "errors": {"object": "list", "data": work.faults} if work.ended == "failed" else None,
        }

    def _openai_lines(self, work: Work) -> tuple[list[Json], list[Json]]:
        answers, errors = [], []
        for custom_id, body, what in work.worked:
            line: Json = {"id": f"batch_req_{custom_id}", "custom_id": custom_id, "response": None, "error": None}
            if what == "answered":
                whole = said("openai", prompt_of("openai", body))
                line["response"] = {"status_code": 200, "request_id": "req_1", "body": whole}
                answers.append(line)
            elif what.isdigit():
                told = {"error": {"message": "no luck", "type": "server_error", "code": None}}
                line["response"] = {"status_code": int(what), "request_id": "req_2", "body": told}
                errors.append(line)
            elif what != "refused":
                line["error"] = {"code": f"batch_{what}", "message": f"this request was {what}"}
                errors.append(line)
        return answers, errors

    async def _openai_content(self, id: str) -> web.Response:
        which, _, batch = id.partition("-")
        lines = self._openai_lines(self.works[batch])[which == "err"]
        answer = _lines(self.mangle(lines), "application/octet-stream")
        if self.cut:
            assert isinstance(answer.body, bytes)
            self.cut, answer.body = False, answer.body[:-40]
        return answer

    async def _openai_list(self, request: web.Request) -> web.Response:
        return web.json_response(_page([self._openai_batch(work) for work in self._listed("openai")], request))

    async def _openai_check(self, id: str) -> web.Response:
        if id not in self.works:
            return _no_such(id)
        return web.json_response(self._openai_batch(self.works[id]))

    async def _openai_cancel(self, id: str) -> web.Response:
        work = self._cancelled(id)
        if work is None:
            return web.json_response(
                {"error": {"message": "it has ended", "type": "invalid_request_error"}}, status=409
            )
        return web.json_response(self._openai_batch(work))

    # ---- Anthropic -------------------------------------------------------------------------------------------

    def _of_anthropic(self, way: str, rest: str) -> tuple[str, Any]:
        match (way, rest.split("/") if rest else []):
            case "POST", []:
                return "create", self._anthropic_create
            case "GET", []:
                return "find", self._anthropic_list
            case "GET", [id]:
                return "check", lambda request: self._anthropic_check(id)
            case "GET", [id, "results"]:
                return "results", lambda request: self._anthropic_results(id)
            case "POST", [id, "cancel"]:
                return "cancel", lambda request: self._anthropic_cancel(id)
        raise AssertionError(f"nobody asks {way} {rest}")

    async def _anthropic_create(self, request: web.Request) -> web.Response:
        body = await request.json()
        assert all(len(each["custom_id"]) <= 64 for each in body["requests"])
        work = self.begin("anthropic", "", [(each["custom_id"], each["params"]) for each in body["requests"]])
        return web.json_response(self._anthropic_batch(work))

    def _anthropic_batch(self, work: Work) -> Json:
        self.go_on(work)
        tally = Counter(ANTHROPIC.get(what, "errored") for *_, what in work.worked)
        counts = {name: tally[name] if work.ended else 0 for name in ("succeeded", "errored", "canceled", "expired")}
        counts["processing"] = 0 if work.ended else len(work.items)
        stopping = work.cancelled_at is not None
        return {
            "id": work.id,
            "type": "message_batch",
            "processing_status": "ended" if work.ended else "canceling" if stopping else "in_progress",
            "request_counts": counts,
            "created_at": _rfc3339(work.created),
            "cancel_initiated_at": _rfc3339(work.cancelled_at) if work.cancelled_at is not None else None,
            "results_url": f"{self.address}/v1/messages/batches/{work.id}/results" if work.ended else None,
        }

    async def _anthropic_results(self, id: str) -> web.Response:
        work = self.go_on(self.works[id])
        if not work.ended:
            return _no_such(id)
        lines: list[Json] = []
        for custom_id, body, what in work.worked:
            result: Json = {"type": ANTHROPIC.get(what, "errored")}
            if what == "answered":
                result["message"] = said("anthropic", prompt_of("anthropic", body))
            elif what.isdigit():
                kind = "api_error" if int(what) >= 500 else "invalid_request_error"
                result["error"] = {
                    "type": "error",
                    "error": {"type": kind, "message": "no luck"},
                    "request_id": "req_3",
                }
            lines.append({"custom_id": custom_id, "result": result})
        return _lines(self.mangle(lines), "application/x-jsonl")

    async def _anthropic_list(self, request: web.Request) -> web.Response:
        page = _page([self._anthropic_batch(work) for work in self._listed("anthropic")], request, "after_id")
        return web.json_response(page)

    async def _anthropic_check(self, id: str) -> web.Response:
        if id not in self.works:
            return _no_such(id)
        return web.json_response(self._anthropic_batch(self.works[id]))

    async def _anthropic_cancel(self, id: str) -> web.Response:
        work = self._cancelled(id)
        if work is None:
            told = {"type": "error", "error": {"type": "invalid_request_error", "message": "it has ended"}}
            return web.json_response(told, status=400)
        return web.json_response(self._anthropic_batch(work))

    # ---- Google ----------------------------------------------------------------------------------------------

    def _of_google(self, way: str, path: str) -> tuple[str, Any]:
        rest = path.removeprefix("/v1beta/")
        if path == "/upload/v1beta/files":
            return "upload", self._google_upload
        if rest.startswith("files/") and rest.endswith(":download"):
            return "results", lambda request: self._google_content(rest.removesuffix(":download"))
        if rest.startswith("files/"):
            return "find_upload", lambda request: self._google_file(rest)
        if rest.endswith(":batchGenerateContent"):
            return "create", self._google_create
        if rest == "batches":
            return "find", self._google_list
        if way == "POST" and rest.endswith(":cancel"):
            return "cancel", lambda request: self._google_cancel(rest.removesuffix(":cancel"))
        if way == "GET" and rest.startswith("batches/"):
            return "check", lambda request: self._google_check(rest)
        raise AssertionError(f"nobody asks {way} {path}")

    async def _google_upload(self, request: web.Request) -> web.Response:
        assert request.headers["x-goog-upload-protocol"] == "multipart"
        told, content = [await part.read(decode=True) async for part in await request.multipart()]  # type: ignore[union-attr]
        name = json.loads(told)["file"]["name"]
        if name in self.files:
            return web.json_response(
                {"error": {"code": 409, "message": "it exists", "status": "ALREADY_EXISTS"}}, status=409
            )
        self.files[name] = (name, content)
        return web.json_response({"file": {"name": name}})

    async def _google_file(self, name: str) -> web.Response:
        return web.json_response({"name": name}) if name in self.files else _no_such(name)

    async def _google_create(self, request: web.Request) -> web.Response:
        batch = (await request.json())["batch"]
        given = batch["inputConfig"]
        if "fileName" in given:
            lines = [json.loads(line) for line in self.files[given["fileName"]][1].splitlines()]
            items = [(line["key"], line["request"]) for line in lines]
        else:
            items = [(each["metadata"]["key"], each["request"]) for each in given["requests"]["requests"]]
        work = self.begin("google", batch["displayName"], items, in_file="fileName" in given)
        return web.json_response(self._google_batch(work))

    def _google_batch(self, work: Work) -> Json:
        done, failed = self._counts(self.go_on(work))
        state = GOOGLE.get(work.ended, "BATCH_STATE_RUNNING")
        known: Json = {
            "displayName": work.name,
            "state": state,
            "createTime": _rfc3339(work.created),
            "batchStats": {"requestCount": str(len(work.items)), "successfulRequestCount": str(done)},
        }
        if failed:
            known["batchStats"]["failedRequestCount"] = str(failed)
        told: Json = {"name": work.id, "metadata": known, "done": bool(work.ended)}
        if work.ended in ("completed", "cancelled"):
            told["response"] = self._google_output(work)
        return told

    def _google_output(self, work: Work) -> Json:
        if work.in_file:
            return {"responsesFile": f"files/out-{work.id.partition('/')[2]}"}
        return {"inlinedResponses": {"inlinedResponses": self.mangle(self._google_lines(work))}}

    def _google_lines(self, work: Work) -> list[Json]:
        lines: list[Json] = []
        for custom_id, body, what in work.worked:
            line: Json = {"key": custom_id} if work.in_file else {"metadata": {"key": custom_id}}
            if what == "answered":
                line["response"] = said("google", prompt_of("google", body))
            elif what.isdigit():
                line["error"] = {"code": 13 if int(what) >= 500 else 3, "message": "no luck"}
            else:
                continue  # what was not worked on is not mentioned
            lines.append(line)
        return lines

    async def _google_content(self, name: str) -> web.Response:
        work = self.works[f"batches/{name.removeprefix('files/out-')}"]
        return _lines(self.mangle(self._google_lines(work)), "application/octet-stream")

    async def _google_list(self, request: web.Request) -> web.Response:
        start = int(request.query.get("pageToken") or 0)
        listed = [self._google_batch(work) for work in self._listed("google")]
        page: Json = {"operations": listed[start : start + 2]}
        if len(listed) > start + 2:
            page["nextPageToken"] = str(start + 2)
        return web.json_response(page)

    async def _google_check(self, id: str) -> web.Response:
        return web.json_response(self._google_batch(self.works[id])) if id in self.works else _no_such(id)

    async def _google_cancel(self, id: str) -> web.Response:
        if self._cancelled(id) is None:
            told = {"error": {"code": 400, "message": "it has ended", "status": "FAILED_PRECONDITION"}}
            return web.json_response(told, status=400)
        return web.json_response({})


MODELS = {
    "openai": "gpt-4o-mini",
    "anthropic": "claude-haiku-4-5",
    "google": "gemini-2.5-flash",
    "moonshot": "kimi-k2.6",
}
ANTHROPIC = {"answered": "succeeded", "cancelled": "canceled", "expired": "expired"}
GOOGLE = {
    "completed": "BATCH_STATE_SUCCEEDED",
    "cancelled": "BATCH_STATE_CANCELLED",
    "expired": "BATCH_STATE_EXPIRED",
    "failed": "BATCH_STATE_FAILED",
}
_SPEAKS = {"openai": "chat", "moonshot": "chat", "anthropic": "anthropic", "google": "google"}
_PATHS = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages", "google": "/v1beta/models/x:generateContent"}


def prompt_of(kind: str, body: Json) -> str:
    return str(SPEAKERS[_SPEAKS[kind]].asked(_PATHS[kind], body).turns[-1][1])


def said(kind: str, prompt: str) -> Json:
    return SPEAKERS[_SPEAKS[kind]].whole(Answer(f"re: {prompt}", spent=SPENT))


def _page(data: Sequence[Json], request: web.Request, cursor: str = "after") -> Json:
    """Two at a time, so that whoever does not turn pages misses something."""
    ids = [each["id"] for each in data]
    start = ids.index(request.query[cursor]) + 1 if cursor in request.query else 0
    page = data[start : start + 2]
    return {"data": page, "has_more": len(data) > start + 2, "last_id": page[-1]["id"] if page else None}


def _lines(lines: Sequence[Json], kind: str) -> web.Response:
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    return web.Response(body=text.encode(), headers={"content-type": kind})


def _no_such(id: str) -> web.Response:
    error = {"type": "not_found_error", "message": f"there is no {id}", "code": 404}
    return web.json_response({"type": "error", "error": error}, status=404)


def _rfc3339(seconds: float | None) -> str:
    return datetime.fromtimestamp(seconds or 0.0, UTC).isoformat().replace("+00:00", "Z")
