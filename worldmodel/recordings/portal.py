"""Reads the US DOT portal's one CSV of all NGSIM sites (1.5 GB): streamed, a site picked, never loaded whole."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.recordings.ngsim import check_feet, choose_columns, plain_name
from drivecast.worldmodel.recordings.period import USED, Period, period_of

CHUNK_ROWS = 250_000
FREEWAYS = ("us-101", "i-80")  # the other sites are city streets with junctions, which lanes along +x cannot describe


def find_portal_periods(
    file: Path,
    scratch: Path,
    locations: Sequence[str] = FREEWAYS,
    chunk_rows: int = CHUNK_ROWS,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Period]:
    """Stream the portal's CSV once and lay the rows of each chosen site aside on disk.

    Memory stays at one chunk; afterwards, at the rows of one period at a time (about a million).

    Args:
        file: the CSV, with a header that has `Location` beside NGSIM's columns, in any order.
        scratch: folder for temporary files (80 bytes a row); must outlive the periods.
        locations: names of sites, upper or lower case.
        chunk_rows: rows read at a time.
        on_progress: called after each chunk with the bytes read so far and the file's size.

    Raises:
        InputError: one line that names file, column and row, and what to do.
    """
    file = Path(file)
    if not file.is_file():
        raise InputError(f"{file}: not found; give the CSV file downloaded from data.transportation.gov")
    size = file.stat().st_size
    if size == 0:
        raise InputError(f"{file}: is empty; download it again")
    wanted = {name.strip().lower() for name in locations}
    seen: set[str] = set()
    rows: dict[str, int] = {}
    with file.open("rb") as stream:
        names = stream.readline().decode("utf-8-sig", errors="replace").strip().split(",")
        names = [name.strip().strip('"') for name in names]
        places = {name.lower(): at for at, name in enumerate(names)}
        if "location" not in places:
            raise InputError(
                f"{file}: column 'Location' is missing; found {names}; a file without it is read by --format ngsim"
            )
        chosen = choose_columns(names, str(file)) | {places["location"]: "Location"}
        line = 2
        try:
            chunks = pd.read_csv(
                stream,
                header=None,
                names=list(range(len(names))),
                usecols=list(chosen),
                chunksize=chunk_rows,
                low_memory=False,
                skip_blank_lines=False,
                encoding_errors="replace",
            )
            for chunk in chunks:
                chunk.index = pd.RangeIndex(line, line + len(chunk))
                line += len(chunk)
                _lay_aside(chunk.dropna(how="all").rename(columns=chosen), wanted, seen, rows, scratch, str(file))
                if on_progress is not None:
                    on_progress(min(stream.tell(), size), size)
        except pd.errors.EmptyDataError:
            raise InputError(f"{file}: has a header but no rows; download it again") from None
        except pd.errors.ParserError as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"{file}: cannot be read near line {line} ({reason}); download it again") from None
    missing = sorted(wanted - set(rows))
    if missing:
        raise InputError(
            f"{file}: column 'Location' never says '{missing[0]}'; found {sorted(seen)}; choose --locations of these"
        )
    return [period for site in sorted(rows) for period in _periods(site, _aside(site, scratch), str(file))]


def _aside(site: str, scratch: Path) -> Path:
    """Where the rows of a site lie meanwhile; its name comes from outside and could be any path."""
    return scratch / f"{hashlib.sha256(site.encode()).hexdigest()[:16]}.rows"


def _lay_aside(
    chunk: pd.DataFrame, wanted: set[str], seen: set[str], rows: dict[str, int], scratch: Path, source: str
) -> None:
    sites = chunk["Location"].astype(str).str.strip().str.lower()
    seen |= set(sites.unique())
    for site in sorted(wanted & set(sites.unique())):
        table = check_feet(chunk[sites == site], source)
        with _aside(site, scratch).open("ab") as aside:
            table[list(USED)].to_numpy(np.float64).tofile(aside)
        rows[site] = rows.get(site, 0) + len(table)


def _periods(site: str, aside: Path, source: str) -> list[Period]:
    values = np.memmap(aside, np.float64, "r").reshape(-1, len(USED))
    time, frame = (np.array(values[:, USED.index(column)]) for column in ("Global_Time", "Frame_ID"))
    label = period_of(time, frame)
    return [
        Period(
            name=f"{plain_name(site)}-{number + 1:02d}",
            source=f"{source} ({site})",
            site=site,
            start_ms=float(time[label == number].min()),
            end_ms=float(time[label == number].max()),
            load=partial(_load, aside, number),
        )
        for number in range(int(label.max()) + 1)
    ]


def _load(aside: Path, number: int) -> pd.DataFrame:
    values = np.memmap(aside, np.float64, "r").reshape(-1, len(USED))
    label = period_of(np.array(values[:, USED.index("Global_Time")]), np.array(values[:, USED.index("Frame_ID")]))
    return pd.DataFrame(values[np.flatnonzero(label == number)], columns=list(USED))
