"""Names by which a job, its parts and its requests are found again, here and at the provider.

    af-18c2f0a91b7d                    a job
    af-18c2f0a91b7d-2                  its second part
    af-18c2f0a91b7d-2-5f1c7a90         the same at the provider, with the beginning of the hash of all that it asks
    af-18c2f0a91b7d-000041-9f86d081    its request 41, and the beginning of the hash of what was asked

The hash is why an answer is never given to another question: whose name does not end in it is somebody else's answer,
and a batch of another file's job that bears the same id is never taken for ours.
All fit what providers allow: 64 of [a-zA-Z0-9_-] for a request, 40 of [a-z0-9-] for a file.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence

from agentflow.errors import ConfigurationError

__all__ = ["batch_name", "checked_id", "custom_id", "new_job_id", "part_name", "split"]

_ID = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,24}[a-z0-9])?")


def new_job_id() -> str:
    """Unique without coordination."""
    return f"af-{os.urandom(6).hex()}"


def checked_id(job: str) -> str:
    """Raises ConfigurationError where it cannot be part of the names above."""
    if not _ID.fullmatch(job):
        raise ConfigurationError(
            f"a batch job's id is at most 26 lower-case letters, digits and dashes, and not {job[:40]!r}"
        )
    return job


def part_name(job: str, number: int) -> str:
    return f"{job}-{number}"


def batch_name(part: str, custom_ids: Iterable[str]) -> str:
    """Of a part at the provider."""
    digest = hashlib.sha256("\n".join(custom_ids).encode()).hexdigest()
    return f"{part}-{digest[:8]}"


def custom_id(job: str, seq: int, path: str, body: bytes) -> str:
    digest = hashlib.sha256(path.encode() + b"\0" + body).hexdigest()
    return f"{job}-{seq:06d}-{digest[:8]}"


def split(sizes: Sequence[int], *, requests: int, bytes: int) -> Iterator[range]:
    """Runs of requests that fit one batch, in order, each as long as it can be; one that is too large for any goes
    alone, and the provider says so."""
    start = total = 0
    for index, size in enumerate(sizes):
        if index > start and (index - start >= requests or total + size > bytes):
            yield range(start, index)
            start, total = index, 0
        total += size
    if sizes:
        yield range(start, len(sizes))
