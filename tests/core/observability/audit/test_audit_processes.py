"""Real processes: killed in the middle, forked, two at once, with too little room, with files they may not write."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from tests.support.audit_logs import KEY, open_log, segments_of, small_log

from agentflow.core.observability.audit import AuditRecord, Selection, read, verify
from agentflow.errors import AuditError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and forks of POSIX")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log"


def child(path: Path, program: str) -> subprocess.Popen[str]:
    """A process that has `log` open and runs `program`."""
    head = f"""
    import os, resource, signal, sys
    from agentflow.core.observability.audit import AuditLog, Rotation
    def opened(**options):
        return AuditLog({str(path)!r}, {KEY!r}, **options)
    """
    text = textwrap.dedent(head) + textwrap.dedent(program)
    return subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True)


def placed(path: Path) -> list[AuditRecord]:
    return [entry.record for entry in read(path, Selection(action="order.placed"))]


def test_what_was_recorded_before_kill_minus_nine_is_there_and_the_log_is_sound(path: Path) -> None:
    process = child(
        path,
        """
        log = opened(fsync="never")
        n = 0
        while True:
            n += 1
            log.record("order.placed", data={"n": n})
            print(n, flush=True)
        """,
    )
    assert process.stdout is not None
    told = 0
    for line in process.stdout:
        told = int(line)
        if told == 200:
            break
    process.kill()
    told = max([told, *[int(line) for line in process.stdout if line.endswith("\n")]])
    process.wait()
    process.stdout.close()
    numbers = [record.data["n"] for record in placed(path)]
    assert numbers[:told] == list(range(1, told + 1))
    assert verify(path, KEY).sound
    with open_log(path) as log:
        log.record("order.placed")
    assert verify(path, KEY).sound


@pytest.mark.parametrize("kept", [1, 17, 200, 300])
def test_a_torn_last_line_is_no_tampering_is_cut_off_and_recorded(path: Path, kept: int) -> None:
    """The line of a record that no head knew of yet: what a killed process leaves behind."""
    with open_log(path) as log:
        log.record("order.placed")
        before = segments_of(path)[0].read_bytes()
        log.record("order.placed")
        torn = segments_of(path)[0].read_bytes()[: len(before) + kept]
        head = (path / "chain-1" / "head.json").read_bytes()
    segments_of(path)[0].write_bytes(torn)
    (path / "chain-1" / "head.json").write_bytes(head)
    found = verify(path, KEY)
    assert found.sound
    assert found.notes == (f"chain-1/audit-00000001.jsonl ends in {kept} bytes of a line that was never finished",)
    with open_log(path) as log:
        log.record("order.placed")
    [recovered] = [entry.record for entry in read(path, Selection(action="audit.recovered"))]
    assert (recovered.data["torn_bytes"], recovered.data["lost"], recovered.outcome) == (kept, 0, "ok")
    found = verify(path, KEY)
    assert found.sound
    assert len(placed(path)) == 2
    assert any(f"{kept} bytes were cut off" in note for note in found.notes)


def test_a_torn_first_line_of_a_new_file_is_begun_again(path: Path) -> None:
    small_log(path, records=20)
    newest = segments_of(path)[-1]
    newest.with_name(f"audit-{len(segments_of(path)) + 1:08d}.jsonl").write_bytes(b'{"action":"audit.seg')
    assert verify(path, KEY).sound
    with open_log(path) as log:
        log.record("order.placed")
    assert verify(path, KEY).sound
    assert len(placed(path)) == 21


def test_records_that_a_head_knew_stay_missing_when_the_log_goes_on(path: Path) -> None:
    """A disk that lost its last blocks, or somebody who cut the end off before the process came back."""
    small_log(path, records=3)
    file = segments_of(path)[-1]
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:-2]) + lines[-2][:50])
    with open_log(path) as log:
        log.record("order.placed")
    [fault] = verify(path, KEY).faults
    assert (fault.kind, fault.seq) == ("missing", len(lines) - 1)
    [recovered] = [entry.record for entry in read(path, Selection(action="audit.recovered"))]
    assert (recovered.data["lost"], recovered.outcome) == (2, "error")


def test_a_file_size_limit_is_a_full_disk(path: Path) -> None:
    process = child(
        path,
        """
        log = opened(fsync="never", rotation=Rotation(size=None, age=None))
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        for n in range(100):
            try:
                log.record("order.placed", data={"n": n})
            except Exception as error:
                print(type(error).__name__, n, flush=True)
                break
        os._exit(0)
        """,
    )
    out, _ = process.communicate(timeout=60)
    name, number = out.split()
    assert name == "AuditError"
    found = verify(path, KEY)
    assert found.sound
    assert found.notes == ()
    assert len(placed(path)) == int(number)


def test_a_forked_child_writes_a_chain_of_its_own_and_the_parent_keeps_its_own(path: Path) -> None:
    process = child(
        path,
        """
        log = opened(fsync=0.01)
        log.record("order.placed", data={"who": "parent"})
        pid = os.fork()
        if pid == 0:
            log.record("order.placed", data={"who": "child"})
            print(log.status().chain, flush=True)
            log.close()
            os._exit(0)
        os.waitpid(pid, 0)
        log.record("order.placed", data={"who": "parent"})
        print(log.status().chain, flush=True)
        log.close()
        """,
    )
    out, _ = process.communicate(timeout=60)
    assert out.split() == ["chain-2", "chain-1"]
    found = verify(path, KEY)
    assert (found.sound, found.chains) == (True, 2)
    assert sorted(str(record.data["who"]) for record in placed(path)) == ["child", "parent", "parent"]


def test_a_child_that_records_nothing_leaves_the_chain_to_its_parent(path: Path) -> None:
    process = child(
        path,
        """
        log = opened(fsync="never")
        if os.fork() == 0:
            print(os.getpid(), flush=True)
            signal.pause()
        signal.pause()
        """,
    )
    assert process.stdout is not None
    pid = int(process.stdout.readline())  # by now it has left what it inherited
    process.kill()
    process.wait()
    process.stdout.close()
    try:
        with open_log(path) as log:
            assert log.status().chain == "chain-1"
    finally:
        os.kill(pid, signal.SIGKILL)


def test_several_processes_at_once_make_one_sound_log(path: Path) -> None:
    program = """
    log = opened(fsync="never", rotation=Rotation(size=8192, age=None))
    for n in range(60):
        log.record("order.placed", data={"n": n})
    log.close()
    """
    processes = [child(path, program) for _ in range(3)]
    for process in processes:
        process.communicate(timeout=60)
        assert process.returncode == 0
    found = verify(path, KEY)
    assert found.sound
    assert 1 <= found.chains <= 3
    assert len(placed(path)) == 180


def test_a_process_that_forgets_to_close_ends_in_good_order(path: Path) -> None:
    child(path, 'opened().record("order.placed")').communicate(timeout=60)
    assert [entry.record.action for entry in read(path)][-1] == "audit.closed"


def test_a_folder_on_a_read_only_file_system_is_an_error_that_says_so(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    small_log(path, records=1)
    real = os.open

    def read_only(name: object, flags: int, *rest: int, **more: int) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, "Read-only file system", str(name))
        return real(name, flags, *rest, **more)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(AuditError, match="Read-only file system"):
        open_log(path)
    with open_log(path, on_failure="open") as log:
        assert log.record("order.placed") is None
    assert verify(path, KEY).sound
