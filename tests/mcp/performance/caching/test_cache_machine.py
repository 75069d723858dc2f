"""A cache next to a dictionary that does the same in the plainest way, over any sequence of questions, purges and time.

The dictionary knows who asked what, when it was answered and with which tags; a cache that gives any other answer than
the dictionary, or asks where that has one, is wrong. Its file is closed and opened in between, and its memory is small
or none. Everything is dropped only when it is too old or purged: the bounds are wide.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.support.costly import Costly, asked

from agentflow.clock import VirtualClock
from agentflow.llm.caller import Caller, asking_as
from agentflow.llm.messages import Response
from agentflow.llm.streaming.join import join
from agentflow.mcp.performance.caching import ResponseCache, SqliteStore

TTL = 100.0
prompts = st.sampled_from(["a", "b"])
tenants = st.sampled_from([None, "x", "y"])
tags = st.sampled_from(["", "red", "red,blue"])
Name = tuple[str | None, str]


class CacheMachine(RuleBasedStateMachine):
    """`kept` is the dictionary: the text, when it ends, and its tags."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.clock = VirtualClock()
        self.runner = asyncio.Runner()
        self.model = Costly()
        self.kept: dict[Name, tuple[str, float, set[str]]] = {}

    @initialize(filed=st.booleans(), memory=st.sampled_from([0, 1000, 1 << 20]))
    def open(self, filed: bool, memory: int) -> None:
        self.filed, self.memory = filed, memory if filed else 1 << 20
        self.cache = self._made()

    def _made(self) -> ResponseCache:
        store = SqliteStore(self.folder / "cache.db", clock=self.clock) if self.filed else None
        return ResponseCache(
            self.model, ttl=TTL, jitter=0.0, memory_bytes=self.memory, store=store, clock=self.clock
        )  # fmt: skip

    @rule(tenant=tenants, prompt=prompts, tags=tags, streaming=st.booleans(), refresh=st.booleans())
    def ask(self, tenant: str | None, prompt: str, tags: str, streaming: bool, refresh: bool) -> None:
        metadata = {"agentflow_cache_tags": tags} | ({"agentflow_cache": "refresh"} if refresh else {})
        calls = len(self.model.calls)
        answer = self.runner.run(self._answer(tenant, prompt, metadata, streaming))
        known = self._known(tenant, prompt)
        if known is None or refresh:
            assert len(self.model.calls) == calls + 1
            assert answer.text == f"answer {calls + 1} to {prompt}"
            said = {tag for tag in tags.split(",") if tag}
            self.kept[tenant, prompt] = (answer.text, self.clock.time() + TTL, said)
        else:
            assert answer.text == known
            assert len(self.model.calls) == calls
            assert (answer.cost, answer.cache_hit) == (0.0, "exact")

    @rule(tenant=tenants, prompt=prompts, how=st.sampled_from(["off", "fails", "cut"]))
    def ask_what_is_not_kept(self, tenant: str | None, prompt: str, how: str) -> None:
        """A call that wants no cache leaves it as it is, and so does an answer that is cut off, or an error."""
        calls = len(self.model.calls)
        if how == "off":
            self.runner.run(self._answer(tenant, prompt, {"agentflow_cache": "off"}, False))
        elif self._known(tenant, prompt) is None:
            self.model.finish = "length" if how == "cut" else "stop"
            self.model.fail = [ValueError("no")] if how == "fails" else []
            try:
                self.runner.run(self._answer(tenant, prompt, {}, False))
            except ValueError:
                assert how == "fails"
            self.model.finish = "stop"
        else:
            return
        assert len(self.model.calls) == calls + 1

    @rule(seconds=st.sampled_from([1.0, 50.0, 99.0, 100.0]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(tenant=tenants, prompt=st.none() | prompts, tag=st.none() | st.sampled_from(["red", "blue"]))
    def purge(self, tenant: str | None, prompt: str | None, tag: str | None) -> None:
        gone = [
            (who, what)
            for (who, what), (_, ends, tags) in self.kept.items()
            if ends > self.clock.time()
            and (prompt is None or (what == prompt and who == tenant))
            and (tag is None or tag in tags)
            and (tenant is None or who == tenant)
        ]
        count = self.runner.run(self.cache.purge(prompt=prompt, tag=tag, tenant=tenant))
        assert count >= len(gone)  # what is too old may still be there, and is counted then
        for name in gone:
            del self.kept[name]

    @rule()
    def reopen(self) -> None:
        """Another process, with the same file; without one all is forgotten."""
        self.runner.run(self.cache.aclose())
        self.cache = self._made()
        if not self.filed:
            self.kept.clear()

    @invariant()
    def counts_add_up(self) -> None:
        if hasattr(self, "cache"):
            found = self.cache.statistics()
            assert found.trouble is None
            assert found.bytes <= self.memory

    async def _answer(
        self, tenant: str | None, prompt: str, metadata: dict[str, str], streaming: bool
    ) -> Response:  # fmt: skip
        with asking_as(Caller(tenant=tenant)):
            if not streaming:
                answer = await self.cache.execute(asked(prompt, metadata=metadata))
            else:
                chunks = [chunk async for chunk in self.cache.execute_streaming(asked(prompt, metadata=metadata))]
                answer = join(chunks, provider="lab", model="tiny-1")
        while self.cache._asking._flights._tasks:  # it is being kept: the next question would wait for the same flight
            await asyncio.sleep(0)
        return answer

    def _known(self, tenant: str | None, prompt: str) -> str | None:
        text, ends, _ = self.kept.get((tenant, prompt), ("", 0.0, set()))
        return text if ends > self.clock.time() else None

    def teardown(self) -> None:
        if hasattr(self, "cache"):
            self.runner.run(self.cache.aclose())
        self.runner.close()
        shutil.rmtree(self.folder)


TestCacheMachine = CacheMachine.TestCase
TestCacheMachine.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
