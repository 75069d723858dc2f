"""A real browser without a window: opens a file, answers JavaScript, takes pictures, and tells what it complained of.

    async with Browser() as browser:
        await browser.open(page)
        await browser.ask("document.title")
        Picture(await browser.picture())
        browser.complaints, browser.requests

It is spoken to by the DevTools protocol over a loopback port that it chooses. It asks nothing of any network.
"""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp

__all__ = ["Browser", "browser_program"]

_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-extensions --disable-dev-shm-usage --hide-scrollbars "
    "--disable-features=Translate,OptimizationHints,MediaRouter --remote-debugging-port=0 "
    "--host-resolver-rules=MAP * ~NOTFOUND"
).split(" ")
_PATIENCE = 60.0


def browser_program() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Browser:
    """One page at a time."""

    def __init__(self, *, scripts: bool = True, dark: bool = False) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._scripts = scripts
        self._dark = dark
        self._numbers = count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._loaded = asyncio.Event()

    async def __aenter__(self) -> Browser:
        program = browser_program()
        assert program is not None
        self._folder = tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True)
        # the resolver's rule holds spaces, so it is put together again
        flags = [*_FLAGS[:-3], " ".join(_FLAGS[-3:])]
        command = [program, *flags, f"--user-data-dir={self._folder.name}", "about:blank"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            self._session = aiohttp.ClientSession()
            self._socket = await self._session.ws_connect(await self._address(), max_msg_size=0)
            self._reader = asyncio.create_task(self._read())
            for domain in ("Page", "Runtime", "Network", "Log"):
                await self.say(f"{domain}.enable")
            if not self._scripts:
                await self.say("Emulation.setScriptExecutionDisabled", value=True)
            if self._dark:
                await self.say(
                    "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}]
                )
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if hasattr(self, "_reader"):
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
            await self._socket.close()
        if hasattr(self, "_session"):
            await self._session.close()
        self._process.kill()
        await asyncio.to_thread(self._process.wait)
        self._folder.cleanup()

    async def open(self, file: Path, fragment: str = "", *, width: int = 1280, height: int | None = None) -> None:
        """Without a height the window is as high as the page."""
        await self._resize(width, height or 900)
        self._loaded.clear()
        await self.say("Page.navigate", url=f"{file.as_uri()}{fragment}")
        async with asyncio.timeout(_PATIENCE):
            await self._loaded.wait()
        if height is None and self._scripts:
            await self._resize(width, await self.ask("document.documentElement.scrollHeight"))

    async def ask(self, script: str) -> Any:
        """What the expression comes to."""
        found = await self.say("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    async def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            await self.say("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    async def picture(self, of: Mapping[str, float] | None = None) -> bytes:
        """A PNG of the window, or of a part: its `x`, `y`, `width` and `height`."""
        clip = {} if of is None else {"clip": {**of, "scale": 1}}
        found = await self.say("Page.captureScreenshot", format="png", **clip)
        return base64.b64decode(found["data"])

    async def box(self, selector: str) -> dict[str, float]:
        """Where an element stands, in whole pixels."""
        found: dict[str, float] = await self.ask(
            f"(() => {{ const box = document.querySelector({json.dumps(selector)}).getBoundingClientRect();"
            "return {x: Math.floor(box.x), y: Math.floor(box.y),"
            "width: Math.ceil(box.width), height: Math.ceil(box.height)};"
            "})()"
        )
        return found

    async def say(self, method: str, **values: object) -> dict[str, Any]:
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_str(json.dumps({"id": number, "method": method, "params": values}))
        async with asyncio.timeout(_PATIENCE):
            found = await answer
        assert "error" not in found, found
        return found["result"]

    async def _resize(self, width: int, height: int) -> None:
        await self.say(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )

    async def _address(self) -> str:
        file = Path(self._folder.name) / "DevToolsActivePort"
        async with asyncio.timeout(_PATIENCE):
            while not (file.exists() and file.read_text().count("\n")):
                assert self._process.poll() is None, "the browser ended as it began"
                await asyncio.sleep(0.05)
            port = file.read_text().split("\n")[0]
            while True:
                async with self._session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                    pages = [each for each in await answer.json() if each["type"] == "page"]
                if pages:
                    return str(pages[0]["webSocketDebuggerUrl"])
                await asyncio.sleep(0.05)

    async def _read(self) -> None:
        async for message in self._socket:
            said = json.loads(message.data)
            if "id" in said:
                answer = self._answers.pop(said["id"])
                if not answer.done():
                    answer.set_result(said)
                continue
            match said["method"], said["params"]:
                case "Page.loadEventFired", _:
                    self._loaded.set()
                case "Network.requestWillBeSent", facts:
                    self.requests.append(facts["request"]["url"])
                case "Log.entryAdded", facts:
                    self.complaints.append(facts["entry"]["text"])
                case "Runtime.consoleAPICalled", facts:
                    self.complaints.append(str(facts["args"]))
                case "Runtime.exceptionThrown", facts:
                    self.complaints.append(str(facts["exceptionDetails"]))
