"""A process that carries a run of the crash matrix on, kept in PostgreSQL, until it ends or is told to die.

python -m tests.support.dbos_life '{"url": …, "shape": …, "run_id": …, "diary": …, "at": …}'
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from tests.core.durability.crash.points import Doom, begin
from tests.core.durability.crash.probed import Probed, probe_the_walk
from tests.core.durability.crash.zygote import live

from agentflow.integrations.dbos import DbosDurability


class ProbedDbos(Probed, DbosDurability):
    """The engine on PostgreSQL."""


def main(job: dict[str, Any]) -> None:
    probe_the_walk()
    begin(Path(job["diary"]), job["process"], Doom(job["at"], job["each"]))
    engine = ProbedDbos(job["url"], polling=0.05, beat=0.2, grace=0.5)
    print(json.dumps(asyncio.run(live(job, engine))), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
