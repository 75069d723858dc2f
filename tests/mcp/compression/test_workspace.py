"""What has ended is kept and found again; what has not is done again."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentflow.errors import CompressionError
from agentflow.mcp.compression.artifact.manifest import StageRecord
from agentflow.mcp.compression.workspace import Place, Workspace

RECORD = StageRecord(kind="prune", settings={"depth": 0.5}, seconds=1.5, parameters=10, notes=("smaller",))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path / ".model.work")
    workspace.folder.mkdir()
    return workspace


def ended(place: Place) -> None:
    place.folder.mkdir()
    (place.scratch / "state").write_text("x")
    place.finish(RECORD)


def test_a_stage_that_ended_is_found_by_what_it_depends_on(workspace: Workspace) -> None:
    place = workspace.place(1, "prune", {"depth": 0.5})
    assert place.done() is None
    ended(place)
    assert workspace.place(1, "prune", {"depth": 0.5}).done() == RECORD
    assert workspace.place(1, "prune", {"depth": 0.6}).done() is None
    assert not (place.scratch / "state").exists()


def test_a_stage_that_was_killed_before_its_record_is_done_again(workspace: Workspace) -> None:
    place = workspace.place(1, "prune", {})
    place.folder.mkdir()
    assert place.done() is None
    assert not place.folder.exists()


def test_a_record_that_was_torn_is_none(workspace: Workspace) -> None:
    place = workspace.place(1, "prune", {})
    ended(place)
    place.record.write_bytes(place.record.read_bytes()[:20])
    assert place.done() is None


def test_a_record_whose_folder_is_gone_is_none(workspace: Workspace) -> None:
    place = workspace.place(1, "prune", {})
    ended(place)
    place.folder.rmdir()
    assert place.done() is None


def test_what_a_stage_scribbled_outlives_a_crash(workspace: Workspace) -> None:
    (workspace.place(2, "distill", {}).scratch / "state").write_text("step 7")
    assert (workspace.place(2, "distill", {}).scratch / "state").read_text() == "step 7"


def test_two_processes_do_not_work_in_one_place(workspace: Workspace) -> None:
    with workspace.held(), pytest.raises(CompressionError, match="another process works in"):
        with Workspace(workspace.folder).held():
            pytest.fail("it is held")
    with workspace.held():
        pass
    workspace.remove()
    assert not workspace.folder.exists()
    workspace.remove()
