"""What the source says of the held-out windows: computed once, kept in a file, read back window by window.

    reference = Reference.of(source_runtime, windows, folder=scratch, prompts=…, greedy_tokens=24)
    reference.logits(3)       (length, vocabulary), from the file
    reference.greedy          what the source wrote after each prompt

float32 where `limit` bytes suffice for that, else float16 of what lies below each row's highest logit, which is off by
less than 0.05 % of it. The file outlives a crash: the same windows and source find it again.
"""

from __future__ import annotations

import errno
import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from agentflow.errors import CompressionError, ShortageError
from agentflow.mcp.compression.measurement.greedy import continuation
from agentflow.mcp.compression.measurement.logits import Tally
from agentflow.mcp.performance.edge.runtime import Runtime

__all__ = ["Reference"]

LIMIT = 4_000_000_000  # bytes of logits
Check = Callable[[], None]
Tell = Callable[[str, int, int], None]


class _Card(msgspec.Struct, frozen=True):
    """Stands beside the logits once they are all there."""

    key: str
    vocabulary: int
    type: str
    perplexity: float | None
    greedy: tuple[tuple[int, ...], ...]
    runtime: str
    runtime_version: str


@dataclass(frozen=True, slots=True)
class Reference:
    """`windows` are token ids of shape (windows, length), `prompts` rows of ids that `greedy` goes on from."""

    windows: NDArray[np.int64]
    prompts: tuple[tuple[int, ...], ...]
    greedy: tuple[tuple[int, ...], ...]
    vocabulary: int
    perplexity: float | None
    runtime: str
    runtime_version: str
    _file: Path
    _type: str

    @classmethod
    def of(
        cls,
        source: Runtime | Callable[[], Runtime],
        windows: NDArray[np.int64],
        *,
        folder: Path,
        key: str = "",
        prompts: Sequence[Sequence[int]] = (),
        greedy_tokens: int = 24,
        limit: int = LIMIT,
        check: Check = lambda: None,
        progress: Tell = lambda what, done, of: None,
    ) -> Reference:
        """Ask the source, or find in `folder` what it said. `key` tells sources apart (its sha256).

        A function as `source` is called only where the source must be asked, and what it opens is closed again.

        Raises CompressionError where the windows do not fit the source's context or hold fewer than 2 tokens,
        ShortageError where not even float16 fits into `limit` or on the disk.
        """
        if windows.ndim != 2 or windows.shape[1] < 2 or not len(windows):
            raise CompressionError(f"windows of shape {windows.shape} say nothing: give (windows, 2 tokens or more)")
        rows = tuple(tuple(int(token) for token in prompt) for prompt in prompts)
        name = _key(key, windows, rows, greedy_tokens)
        place = folder / f"reference-{name[:16]}.logits"
        card = _known(place, name, windows.shape)
        if card is None:
            runtime = source() if callable(source) else source
            try:
                card = _asked(runtime, windows, rows, greedy_tokens, place, name, limit, check, progress)
            finally:
                if callable(source):
                    runtime.close()
        return cls(
            windows, rows, card.greedy, card.vocabulary, card.perplexity, card.runtime, card.runtime_version, place,
            card.type,
        )  # fmt: skip

    def logits(self, window: int) -> NDArray[np.float32]:
        """What the source says after each token of a window: shape (length, vocabulary), up to a constant a row."""
        count = self.windows.shape[1] * self.vocabulary
        offset = window * count * np.dtype(self._type).itemsize
        read = np.fromfile(self._file, dtype=self._type, count=count, offset=offset)
        return read.reshape(-1, self.vocabulary).astype(np.float32)

    def remove(self) -> None:
        """Give the disk back."""
        self._file.unlink(missing_ok=True)
        _card(self._file).unlink(missing_ok=True)


def _asked(
    runtime: Runtime,
    windows: NDArray[np.int64],
    prompts: Sequence[Sequence[int]],
    greedy_tokens: int,
    place: Path,
    key: str,
    limit: int,
    check: Check,
    progress: Tell,
) -> _Card:
    longest = max([windows.shape[1], *(len(prompt) + greedy_tokens for prompt in prompts)])
    if longest > runtime.context_length:
        raise CompressionError(f"{longest} tokens do not fit the context of {runtime.context_length}: shorten windows")
    kind = _type(windows.size * runtime.vocabulary, limit, place.parent)
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.with_suffix(".partial")
    tally = Tally()
    try:
        # Written, not mapped: a mapped file on a full disk ends the process by SIGBUS, and no error says why.
        with partial.open("wb") as file:
            for number, window in enumerate(windows):
                check()
                said = runtime.score(window.tolist())
                tally.add(window, said)
                file.write(_packed(said, kind))
                progress("the source's logits", number + 1, len(windows))
        partial.rename(place)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _shortage(windows.size * runtime.vocabulary * np.dtype(kind).itemsize, place.parent) from error
        raise
    finally:
        partial.unlink(missing_ok=True)
    greedy: list[tuple[int, ...]] = []
    for number, prompt in enumerate(prompts):
        check()
        greedy.append(continuation(runtime, prompt, greedy_tokens))
        progress("the source's own words", number + 1, len(prompts))
    card = _Card(key, runtime.vocabulary, kind, tally.perplexity, tuple(greedy), runtime.name, runtime.version)
    _card(place).write_bytes(msgspec.json.encode(card))
    return card


def _known(place: Path, key: str, shape: tuple[int, ...]) -> _Card | None:
    try:
        card = msgspec.json.decode(_card(place).read_bytes(), type=_Card)
        size = place.stat().st_size
    except (OSError, msgspec.MsgspecError):
        return None
    whole = shape[0] * shape[1] * card.vocabulary * np.dtype(card.type).itemsize
    return card if card.key == key and size == whole else None


def _card(place: Path) -> Path:
    return place.with_suffix(".json")


def _key(source: str, windows: NDArray[np.int64], prompts: Sequence[Sequence[int]], greedy_tokens: int) -> str:
    digest = hashlib.sha256(f"{source}\0{windows.shape}\0{greedy_tokens}\0{prompts}".encode())
    digest.update(np.ascontiguousarray(windows).tobytes())
    return digest.hexdigest()


def _type(numbers: int, limit: int, folder: Path) -> str:
    """The widest type that fits."""
    folder.mkdir(parents=True, exist_ok=True)
    room = min(limit, int(shutil.disk_usage(folder).free * 0.9))
    for kind in ("float32", "float16"):
        if numbers * np.dtype(kind).itemsize <= room:
            return kind
    raise _shortage(numbers * 2, folder, available=room)


def _shortage(needed: int, folder: Path, available: int | None = None) -> ShortageError:
    free = shutil.disk_usage(folder).free if available is None else available
    return ShortageError(
        "disk", needed=needed, available=free, advice="measure with fewer held-out windows, or shorter ones"
    )


def _packed(logits: NDArray[np.float32], kind: str) -> bytes:
    if kind == "float32":
        return np.ascontiguousarray(logits, dtype=np.float32).tobytes()
    below = logits - logits.max(axis=-1, keepdims=True)
    half: NDArray[np.float16] = np.maximum(below, np.finfo(np.float16).min).astype(np.float16)
    return half.tobytes()
