"""Where damaged journals are kept, for whoever wants to look what can be saved of them."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

_PARTS: Final = ("-wal", "-shm", "")
"""What a database consists of, by the ends of the files' names; the file itself last."""
_KEPT: Final = 3
"""Damaged journals that are kept; the oldest goes first."""
_OF_SQLITE: Final = (b"SQLite format 3\0", b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
"""How a database, or its write-ahead log, begins."""
_ID_CHARS: Final = 32
_CHUNK_BYTES: Final = 2**20
_OF_AN_ATTEMPT: Final = re.compile(rb"[0-9a-f]{%d}" % _ID_CHARS)
"""Each attempt has its run_id and its checksums, and nothing else in a journal looks like them."""


def set_aside(path: Path) -> Path | None:
    """Move a database away, with the files that belong to it; return its new name, None where nothing is kept.

    One that never held an attempt is removed instead: starts that fail one after another leave such. Of those that
    were moved away before, only the newest few are kept.
    """
    if _never_held_any(path):
        _remove(path)
        return None
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    kept_as = path.with_name(f"{path.name}.damaged-{stamp}")
    for suffix in _PARTS:
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(kept_as.with_name(kept_as.name + suffix))
    _forget_oldest(path, kept_as)
    return kept_as if kept_as.exists() else None


def _forget_oldest(path: Path, newest: Path) -> None:
    """Remove the oldest, before all others those without content; never the newest, whatever the clock says of it."""
    mark = f"{path.name}.damaged-"
    names = {mark + part.name.removeprefix(mark).partition("-")[0] for part in path.parent.glob(f"{mark}*")}
    others = [path.with_name(name) for name in names - {newest.name}]
    for other in sorted(others, key=lambda file: (not _never_held_any(file), file.name))[: -(_KEPT - 1)]:
        _remove(other)


def _remove(path: Path) -> None:
    for suffix in _PARTS:
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _never_held_any(path: Path) -> bool:
    """Whether it is certainly one without attempts. Its bytes tell: whatever is damaged, SQLite may not see a row."""
    parts = [path.with_name(path.name + suffix) for suffix in ("", "-wal")]
    return all(not part.exists() or part.stat().st_size == 0 or _is_blank(part) for part in parts)


def _is_blank(part: Path) -> bool:
    try:
        with part.open("rb") as file:
            seen = file.read(_CHUNK_BYTES)
            if not seen.startswith(_OF_SQLITE):
                return False
            while seen and not _OF_AN_ATTEMPT.search(seen):
                more = file.read(_CHUNK_BYTES)
                seen = seen[-_ID_CHARS:] + more if more else b""
            return not seen
    except OSError:  # it cannot be read now: later it may
        return False
