"""Whether drivecast made a page or a film: only its own are written over."""

from __future__ import annotations

import re
from pathlib import Path

MARK = "drivecast replay"  # at the end of a page's title, as an index's generator, as a film's comment
LOOKED_AT = 1 << 16  # bytes at either end
PAGES = (
    rb"<title>[^<]* - drivecast replay</title>",
    rb'<meta name="generator" content="drivecast replay">',
    rb"<title>Replays</title>.{0,8000}<h1>Replays</h1>\s*<table><thead>",  # an index from before there was a mark
)
FILMS = (b"GIF8", b"ftyp")  # in the first bytes


def is_ours(path: Path) -> bool:
    """Whether the file carries the mark of `write_page`, `write_gallery` or `write_film`."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        first = file.read(LOOKED_AT)
        file.seek(max(path.stat().st_size - LOOKED_AT, 0))
        last = file.read()
    if any(kind in first[:16] for kind in FILMS):
        return MARK.encode() in first + last
    return any(re.search(pattern, first, re.DOTALL) for pattern in PAGES)
