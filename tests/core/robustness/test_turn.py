"""A guard's lock: what is to be released never waits for it, and is never forgotten."""

from __future__ import annotations

import threading

from agentflow.core.robustness.turn import Turn


def test_an_action_is_carried_out_at_once_where_the_lock_is_free() -> None:
    turn, done = Turn(), []
    turn.soon(lambda: done.append(turn.lock.locked()))
    assert done == [True]
    assert not turn.lock.locked()


def test_an_action_of_the_thread_that_holds_the_lock_follows_when_it_lets_go() -> None:
    turn, done = Turn(), []
    with turn:
        turn.soon(lambda: done.append(1))
        turn.soon(lambda: done.append(2))
        assert done == []
    assert done == [1, 2]


def test_an_action_may_ask_for_another() -> None:
    turn, done = Turn(), []

    def first() -> None:
        turn.soon(lambda: done.append(2))
        done.append(1)

    turn.soon(first)
    assert done == [1, 2]


def test_of_many_threads_none_forgets_an_action() -> None:
    turn, done = Turn(), 0

    def one_more() -> None:
        nonlocal done
        done += 1

    def work() -> None:
        for _ in range(5000):
            turn.soon(one_more)
            with turn:
                one_more()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == 4 * 2 * 5000
    assert not turn.left
