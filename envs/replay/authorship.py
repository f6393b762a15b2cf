"""Whether drivecast made a page or a film: only its own are written over."""

from __future__ import annotations

from pathlib import Path

MARK = "drivecast replay"  # in a page's head, a film's comment
EARLIER = (b"<title>Replays</title>",)  # pages that were written before there was a mark
LOOKED_AT = 1 << 16  # bytes at either end


def is_ours(path: Path) -> bool:
    """Whether the file carries the mark of `write_page`, `write_gallery` or `write_film`."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        first = file.read(LOOKED_AT)
        file.seek(max(path.stat().st_size - LOOKED_AT, 0))
        seen = first + file.read()
    return any(mark in seen for mark in (MARK.encode(), *EARLIER))
