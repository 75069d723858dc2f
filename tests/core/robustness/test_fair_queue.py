"""A queue of priorities and tenants, against one made of lists."""

from __future__ import annotations

import time
from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agentflow.core.robustness.fair_queue import FairQueue


def queue_of(*items: str) -> FairQueue[str]:
    """Of items such as `a1`: the tenant is the letter."""
    queue: FairQueue[str] = FairQueue(2)
    for item in items:
        queue.push(0, item[0], item)
    return queue


def drained(queue: FairQueue[str]) -> list[str]:
    return list(iter(queue.pop, None))


def test_tenants_take_turns():
    assert drained(queue_of("a1", "a2", "a3", "b1", "c1", "c2")) == ["a1", "b1", "c1", "a2", "c2", "a3"]


def test_more_important_items_go_first():
    queue = queue_of("a1")
    queue.push(1, "b", "low")
    queue.push(0, "b", "b1")
    assert drained(queue) == ["a1", "b1", "low"]


def test_a_tenant_that_comes_back_takes_the_last_turn():
    queue = queue_of("a1", "b1", "c1")
    assert queue.pop() == "a1"
    queue.push(0, "a", "a2")
    assert drained(queue) == ["b1", "c1", "a2"]


def test_an_item_can_leave_from_the_middle_once():
    queue = queue_of("a1", "a2", "a3")
    assert queue.remove(0, "a", "a2")
    assert not queue.remove(0, "a", "a2")
    assert not queue.remove(0, "nobody", "a2")
    assert queue.size == 2
    assert drained(queue) == ["a1", "a3"]


@pytest.mark.parametrize(("tenant", "ahead"), [("a", 5), ("b", 4), ("new", 3)])
def test_how_many_are_ahead_depends_on_the_turns(tenant, ahead):
    queue = queue_of("a1", "a2", "a3", "a4", "b1")
    assert queue.ahead(0, tenant) == ahead
    assert queue.ahead(1, tenant) == 5
    assert queue.share(0, tenant) == ahead / 5
    assert queue.share(1, tenant) == 1.0


def test_the_head_is_the_next_in_turn():
    queue = queue_of("a1", "b1", "a2")
    assert queue.head(0) == "a1"
    queue.pop()
    assert queue.head(0) == "b1"
    assert queue.head(1) is None


def test_the_greediest_tenant_loses_its_youngest():
    queue = queue_of("a1", "b1", "a2", "b2", "b3")
    queue.push(1, "a", "low")
    assert queue.displace(0, "c") == "low"
    assert queue.displace(0, "c") == "b3"
    assert queue.displace(1, "c") is None
    assert queue.displace(0, "a") is None  # would have three, others two
    assert queue.displace(0, "c") == "b2"
    assert queue.size == 3


def cost(number: int) -> float:
    """Seconds for each item, at the best of three."""

    def once() -> float:
        queue: FairQueue[int] = FairQueue(4)
        began = time.process_time()
        for item in range(number):
            queue.push(item % 4, "greedy" if item % 2 else f"tenant {item % 100}", item)
        for item in range(0, number, 3):
            queue.remove(item % 4, "greedy" if item % 2 else f"tenant {item % 100}", item)
        while queue.size:
            queue.pop()
            queue.head(0)
            queue.displace(0, "new")
        return (time.process_time() - began) / number

    return min(once() for _ in range(3))


def test_an_item_costs_the_same_however_many_there_are():
    """Were it linear, ten times as many would cost ten times as much each."""
    assert cost(20_000) < 5 * cost(2_000)


class QueueMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.queue: FairQueue[int] = FairQueue(3)
        self.waiting: list[tuple[int, str, int]] = []  # priority, tenant, item, in the order of their arrival
        self.turns: list[list[str]] = [[], [], []]
        self.items = 0

    def gone(self, item: int) -> tuple[int, str]:
        entry = next(entry for entry in self.waiting if entry[2] == item)
        self.waiting.remove(entry)
        priority, tenant, _ = entry
        if not self.of(priority, tenant):
            self.turns[priority].remove(tenant)
        return priority, tenant

    def of(self, priority: int, tenant: str) -> list[int]:
        return [item for p, t, item in self.waiting if (p, t) == (priority, tenant)]

    @rule(priority=st.integers(0, 2), tenant=st.sampled_from("abc"))
    def push(self, priority: int, tenant: str) -> None:
        self.items += 1
        self.queue.push(priority, tenant, self.items)
        self.waiting.append((priority, tenant, self.items))
        if tenant not in self.turns[priority]:
            self.turns[priority].append(tenant)

    @rule()
    def pop(self) -> None:
        item = self.queue.pop()
        if not self.waiting:
            assert item is None
            return
        line = next(turns for turns in self.turns if turns)
        priority, tenant = self.turns.index(line), line[0]
        assert item == self.of(priority, tenant)[0]
        self.gone(item)
        if tenant in line:
            line.append(line.pop(0))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def remove(self, data) -> None:
        priority, tenant, item = data.draw(st.sampled_from(self.waiting))
        assert self.queue.remove(priority, tenant, item)
        self.gone(item)
        assert not self.queue.remove(priority, tenant, item)

    @rule(priority=st.integers(0, 2), tenant=st.sampled_from("abcd"))
    def displace(self, priority: int, tenant: str) -> None:
        lowest = max((p for p, _, _ in self.waiting), default=-1)
        counts = Counter(t for p, t, _ in self.waiting if p == lowest)
        most = max(counts.values(), default=0)
        item = self.queue.displace(priority, tenant)
        if lowest < priority or (lowest == priority and most <= counts[tenant] + 1):
            assert item is None
            return
        greedy = [each for each, count in counts.items() if count == most]
        assert item in {self.of(lowest, each)[-1] for each in greedy}
        self.gone(item)

    @invariant()
    def agrees(self) -> None:
        assert self.queue.size == len(self.waiting)
        for priority, turns in enumerate(self.turns):
            assert self.queue.length(priority) == sum(p == priority for p, _, _ in self.waiting)
            assert self.queue.head(priority) == (self.of(priority, turns[0])[0] if turns else None)

    @invariant()
    def nobody_waits_for_more_than_are_said_to_be_ahead(self) -> None:
        for priority in range(3):
            for tenant in "abcd":
                mine = len(self.of(priority, tenant)) + 1
                others = sum(min(mine, len(self.of(priority, t))) for t in self.turns[priority] if t != tenant)
                important = sum(p < priority for p, _, _ in self.waiting)
                assert self.queue.ahead(priority, tenant) >= important + others + mine - 1


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
