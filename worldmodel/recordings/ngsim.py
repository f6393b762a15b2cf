"""Reads trajectory files of the NGSIM programme: 18 columns, in feet, with or without a header."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.recordings.period import FOOT_M, USED, Period, period_of

COLUMNS_18 = (
    *("Vehicle_ID", "Frame_ID", "Total_Frames", "Global_Time", "Local_X", "Local_Y", "Global_X", "Global_Y"),
    *("v_Length", "v_Width", "v_Class", "v_Vel", "v_Acc", "Lane_ID"),
    *("Preceding", "Following", "Space_Headway", "Time_Headway"),
)
FILES = (".csv", ".txt")
FASTEST_FTPS = 75.0 / FOOT_M
LONGEST_FT = 30.0 / FOOT_M


def find_periods(path: Path) -> list[Period]:
    """The periods of filming in one trajectory file, or in each `.csv` and `.txt` of a folder.

    Every file is read and checked here, and its rows are dropped again: `Period.load` reads them when their turn comes.

    Raises:
        InputError: one line that names file, column and row, and what to do.
    """
    found = []
    for file in ngsim_files(Path(path)):
        table = read_file(file)
        time, label = table["Global_Time"].to_numpy(), _period_of(table)
        count = int(label.max()) + 1
        for number in range(count):
            stem = plain_name(file.stem)
            found.append(
                Period(
                    name=stem if count == 1 else f"{stem}-{number + 1:02d}",
                    source=str(file),
                    site="",
                    start_ms=float(time[label == number].min()),
                    end_ms=float(time[label == number].max()),
                    load=partial(_load, file, number),
                )
            )
    return found


def plain_name(text: str) -> str:
    """A name for a recording that is no path: blanks and separators become dashes, and it begins with no dot."""
    return re.sub(r"[\s/\\]+", "-", text).lstrip(".-") or "recording"


def _load(file: Path, number: int) -> pd.DataFrame:
    table = read_file(file)
    return table[_period_of(table) == number]


def _period_of(table: pd.DataFrame) -> np.ndarray:
    return period_of(table["Global_Time"].to_numpy(), table["Frame_ID"].to_numpy())


def ngsim_files(path: Path) -> list[Path]:
    """The trajectory files at `path`.

    Raises:
        InputError: when there is none.
    """
    if path.is_file():
        return [path]
    files = sorted(file for file in path.glob("*") if file.suffix.lower() in FILES) if path.is_dir() else []
    if not files:
        raise InputError(f"{path}: expected a trajectory file, or a folder with .csv or .txt files; found none")
    return files


def read_file(file: Path) -> pd.DataFrame:
    """The used columns of one 18-column file; the index is the line number."""
    with file.open(encoding="utf-8", errors="replace") as lines:
        first = lines.readline().lstrip("\ufeff").strip()
    if not first:
        raise InputError(f"{file}: is empty; export it again")
    if "\0" in first or "\ufffd" in first:
        raise InputError(f"{file}: is not a text file; give NGSIM's .csv or .txt, or use --format tidy for a Parquet")
    comma = "," in first
    fields = first.split(",") if comma else first.split()
    header = not _is_number(fields[0])
    names = [name.strip() for name in fields] if header else list(COLUMNS_18)
    if not header and len(fields) != len(COLUMNS_18):
        raise InputError(
            f"{file}: line 1 has {len(fields)} columns; expected the {len(COLUMNS_18)} of NGSIM, or a header line"
        )
    chosen = choose_columns(names, str(file))
    try:
        table = pd.read_csv(
            file,
            sep="," if comma else r"\s+",
            header=None,
            names=list(range(len(names))),
            usecols=list(chosen),
            skiprows=1 if header else 0,
            skip_blank_lines=False,
            low_memory=False,
            encoding_errors="replace",
            on_bad_lines="error",
        )
    except (ValueError, OSError) as error:
        raise InputError(
            f"{file}: cannot be read ({str(error).strip().splitlines()[0]}); mend or export it again"
        ) from None
    table = table.rename(columns=chosen)
    first_line = 2 if header else 1
    table.index = pd.RangeIndex(first_line, len(table) + first_line)
    table = table.dropna(how="all")
    if len(table) == 0:
        raise InputError(f"{file}: has a header but no rows; export it again")
    return check_feet(table, str(file))


def choose_columns(names: list[str], source: str) -> dict[int, str]:
    """Position and our name of each used column; the case of a header does not matter.

    Raises:
        InputError: when one is missing.
    """
    place = {name.strip().strip('"').lower(): at for at, name in enumerate(names)}
    for name in USED:
        if name.lower() not in place:
            found = [shown.strip()[:20] for shown in names[:30]]
            raise InputError(f"{source}: column '{name}' is missing; found {found}; give the NGSIM columns their names")
    return {place[name.lower()]: name for name in USED}


def check_feet(table: pd.DataFrame, source: str) -> pd.DataFrame:
    """Check numbers and units of raw NGSIM rows; returns them as float64."""
    for column in USED:
        values = table[column]
        if not pd.api.types.is_numeric_dtype(values):
            # the portal groups the thousands of some exports
            values = pd.to_numeric(values.astype(str).str.replace(",", "", regex=False), errors="coerce")
        numbers = values.to_numpy(np.float64)
        bad = ~np.isfinite(numbers)
        if bad.any():
            at = int(bad.argmax())
            raise InputError(
                f"{source}: column '{column}', row {table.index[at]}: expected a number, "
                f"got {table[column].iloc[at]!r}; mend or remove the row"
            )
        table = table.assign(**{column: numbers})
    for column, low, high in (("v_Vel", 0.0, FASTEST_FTPS), ("v_Length", 1.0, LONGEST_FT), ("v_Width", 0.5, 15.0)):
        numbers = table[column].to_numpy()
        outside = (numbers < low) | (numbers > high)
        if outside.any():
            at = int(outside.argmax())
            unit = "ft/s" if column == "v_Vel" else "ft"
            raise InputError(
                f"{source}: column '{column}', row {table.index[at]}: {numbers[at]:g} is not within "
                f"[{low:g}, {high:.4g}] {unit}; expected feet and feet per second: convert the column"
            )
    usual = float(table["v_Length"].median())
    if usual < 9.0:
        raise InputError(
            f"{source}: column 'v_Length', row {table.index[0]}: half the values are under {usual:.1f}, which looks "
            "like metres; NGSIM files are in feet: convert it, or use --format tidy"
        )
    return table


def _is_number(text: str) -> bool:
    try:
        float(text.strip().strip('"'))
    except ValueError:
        return False
    return True
