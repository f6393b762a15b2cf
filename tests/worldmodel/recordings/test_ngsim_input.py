"""Claims about NGSIM's own files and the portal's CSV."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from traffic_files import FOOT_M, NGSIM_HEADER, PORTAL_HEADER, cruising, ngsim_rows, portal_lines

from drivecast.scripts.tracking.run import ConsoleRun
from drivecast.scripts.verbs.ingest import IngestConfig, run
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.recordings.ngsim import find_periods
from drivecast.worldmodel.recordings.period import Period, build_recording, without_overlap
from drivecast.worldmodel.recordings.portal import find_portal_periods
from drivecast.worldmodel.recordings.store import WindowStore
from drivecast.worldmodel.recordings.store_writer import write_store


def ingest(path: Path, output: Path, **options) -> WindowStore:
    run(IngestConfig(input=path, output=output, format=options.pop("format", "ngsim"), **options), ConsoleRun())
    return WindowStore.open(output)


def table_of(store: WindowStore) -> pd.DataFrame:
    return pd.read_parquet(store.directory / "tracks.parquet").sort_values(["recording", "vehicle_id", "time_s"])


def minute(**kwargs) -> list[list[str]]:
    return ngsim_rows(cruising(**{"vehicles": 9, "seconds": 40.0, "speed_mps": 8.0, **kwargs}))


def write(path: Path, rows: list[list[str]], separator: str = ",", header: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [separator.join(row) for row in rows]
    if header is not None:
        lines.insert(0, header.replace(",", separator))
    path.write_text("\n".join(lines) + "\n")
    return path


def refused(path: Path, output: Path, *words: str, **options) -> None:
    with pytest.raises(InputError) as caught:
        ingest(path, output, **options)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message
    assert not output.exists()
    assert not list(output.parent.glob(".*"))


def test_delimiters_and_headers_give_the_identical_store(tmp_path: Path) -> None:
    prints = set()
    for number, (separator, header) in enumerate(
        [
            (",", None),
            (",", NGSIM_HEADER),
            ("   ", None),
            (" ", NGSIM_HEADER),
            ("\t", None),
            (", ", NGSIM_HEADER.lower()),
        ]
    ):
        path = write(tmp_path / str(number) / "trajectories.txt", minute(), separator, header)
        recordings = [build_recording(period) for period in find_periods(path)]
        prints.add(write_store(tmp_path / f"out{number}", recordings)["fingerprint"])
    assert len(prints) == 1


def test_feet_and_front_bumper_become_metres_and_centre(tmp_path: Path) -> None:
    store = ingest(write(tmp_path / "t.txt", minute()), tmp_path / "out")
    found = table_of(store)
    expected = cruising(vehicles=9, seconds=40.0, speed_mps=8.0)
    expected = expected.assign(step=(expected["time_s"] * 10).round().astype(int))
    found = found.assign(step=(found["time_s"] * 10).round().astype(int))
    both = found.merge(expected, on=["vehicle_id", "step"], suffixes=("", "_true"))
    assert len(both) == len(found) > 1500
    for column in ("x_m", "speed_mps", "heading_rad", "length_m", "width_m"):
        assert np.abs(both[column] - both[f"{column}_true"]).max() < 2e-3, column
    # the left edge is 4 m to the left of lane 1
    assert np.abs(both["y_m"] + 4.0 - both["y_m_true"]).max() < 2e-3
    assert (both["lane_id"] == both["lane_id_true"]).all()
    assert [lane.centre_m[0, 1] for lane in store.lanes[store.recordings[0]]] == pytest.approx(
        [-4.0, -7.6, -11.2], abs=0.01
    )
    assert store.lanes[store.recordings[0]][1].width_m == pytest.approx(3.6, abs=0.01)


def test_folder_of_files_makes_a_recording_of_each(tmp_path: Path) -> None:
    for number in range(4):
        rows = ngsim_rows(cruising(seconds=12.0), start_ms=1_118_846_980_000 + 900_000 * number)
        write(tmp_path / "in" / f"part{number}.txt", rows)
    store = ingest(tmp_path / "in", tmp_path / "out")
    assert store.recordings == ["part0", "part1", "part2", "part3"]
    assert sorted(len(names) for names in store.splits.values()) == [1, 1, 2]


def test_reused_id_and_time_gap_become_other_vehicles(tmp_path: Path) -> None:
    rows = minute(vehicles=3)
    kept = [row for row in rows if not (row[0] == "2" and 100 < int(row[1]) < 130)]  # unseen for 3 s
    moved = [
        [*row[:5], f"{float(row[5]) + 300:.5f}", *row[6:]] if row[0] == "3" and int(row[1]) >= 60 else row
        for row in kept
    ]
    store = ingest(write(tmp_path / "t.csv", moved), tmp_path / "out", held_out=0.1, split_gap_s=0.0)
    vehicles = table_of(store).groupby("recording")["vehicle_id"].unique()
    assert sorted(vehicles[store.splits["train"][0]]) == [1, 2, 3, 4, 5]
    assert store.meta["source"]["dropped_or_mended"]["vehicles unseen for a while: cut"] == 1
    assert store.meta["source"]["dropped_or_mended"]["jumps in place or length: cut"] == 1


def test_repeated_rows_are_dropped_and_counted(tmp_path: Path) -> None:
    rows = minute()
    clean = ingest(write(tmp_path / "a" / "t.csv", rows), tmp_path / "one")
    doubled = ingest(write(tmp_path / "b" / "t.csv", rows + rows[200:300]), tmp_path / "two")
    assert clean.fingerprint == doubled.fingerprint
    assert doubled.meta["source"]["dropped_or_mended"]["rows repeated word for word: dropped"] == 100


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        (11, "", ("'v_Vel'", "row 31", "mend")),
        (5, "nan", ("'Local_Y'", "row 31", "mend")),
        (11, "273.4", ("'v_Vel'", "row 31", "ft/s", "convert")),
        (8, "4000", ("'v_Length'", "row 31", "convert")),
    ],
)
def test_bad_cell_is_refused_with_file_column_and_row(tmp_path: Path, column: int, value: str, words: tuple) -> None:
    rows = minute()
    rows[30][column] = value
    refused(write(tmp_path / "t.csv", rows), tmp_path / "out", "t.csv", *words)


def test_metres_are_refused(tmp_path: Path) -> None:
    rows = minute()
    for row in rows:
        for column in (4, 5, 8, 9, 11):
            row[column] = f"{float(row[column]) * FOOT_M:.4f}"
    refused(write(tmp_path / "t.csv", rows), tmp_path / "out", "t.csv", "'v_Length'", "metres", "--format tidy")


def test_missing_column_empty_and_cut_off_files_are_refused(tmp_path: Path) -> None:
    rows = minute()
    refused(write(tmp_path / "a.csv", [row[:17] for row in rows]), tmp_path / "out", "a.csv", "17 columns", "18")
    header = NGSIM_HEADER.replace("v_Vel", "velocity")
    refused(write(tmp_path / "b.csv", rows, ",", header), tmp_path / "out", "b.csv", "'v_Vel' is missing", "found")
    (tmp_path / "c.csv").write_text("")
    refused(tmp_path / "c.csv", tmp_path / "out", "c.csv", "is empty")
    refused(write(tmp_path / "d.csv", [], ",", NGSIM_HEADER), tmp_path / "out", "d.csv", "no rows")
    (tmp_path / "e.csv").write_text("\n".join(",".join(row) for row in rows)[:-60])
    refused(tmp_path / "e.csv", tmp_path / "out", "e.csv", f"row {len(rows)}")
    refused(tmp_path / "nothing", tmp_path / "out", "not found")
    cruising().to_parquet(tmp_path / "f.txt")
    refused(tmp_path / "f.txt", tmp_path / "out", "f.txt", "not a text file")


def write_portal(path: Path, header: str = PORTAL_HEADER) -> Path:
    """Two sites and two periods of one, whose ids and frames begin again, shuffled, with a block repeated."""
    first = ngsim_rows(cruising(seconds=20.0), start_ms=1_118_846_980_000)
    second = ngsim_rows(cruising(seconds=20.0, speed_mps=9.0), start_ms=1_118_847_900_000)
    other = ngsim_rows(cruising(seconds=20.0, speed_mps=6.0), start_ms=1_113_433_136_000)
    street = ngsim_rows(cruising(seconds=5.0, speed_mps=4.0), start_ms=1_118_900_000_000)
    lines = portal_lines(first, "us-101") + portal_lines(second, "us-101") + portal_lines(other, "i-80")
    lines += portal_lines(street, "lankershim") + portal_lines(first[:150], "us-101")
    order = np.random.default_rng(0).permutation(len(lines))
    path.write_text("\n".join([header, *(lines[i] for i in order)]) + "\n")
    return path


def test_portal_file_gives_a_recording_per_site_and_period(tmp_path: Path) -> None:
    store = ingest(write_portal(tmp_path / "ngsim.csv"), tmp_path / "out", format="ngsim-portal")
    assert store.recordings == ["i-80-01", "us-101-01", "us-101-02"]
    assert [store.meta["about"][name]["rows"] for name in store.recordings] == [1200, 1200, 1200]
    assert store.meta["source"]["dropped_or_mended"]["rows repeated word for word: dropped"] == 150
    speeds = table_of(store).groupby("recording")["speed_mps"].min()
    assert speeds.round(2).tolist() == [6.0, 12.0, 9.0]


def test_portal_site_is_picked_by_location(tmp_path: Path) -> None:
    path = write_portal(tmp_path / "ngsim.csv")
    store = ingest(path, tmp_path / "out", format="ngsim-portal", locations=["I-80"], split_gap_s=1.0)
    assert {name[:4] for name in store.recordings} == {"i-80"}
    refused(path, tmp_path / "none", "'mars'", "lankershim", format="ngsim-portal", locations=["mars"])
    bare = write_portal(tmp_path / "bare.csv", PORTAL_HEADER.replace("Location", "Place"))
    refused(bare, tmp_path / "none", "'Location' is missing", "--format ngsim", format="ngsim-portal")


def test_portal_file_is_the_same_whatever_the_chunk(tmp_path: Path) -> None:
    path = write_portal(tmp_path / "ngsim.csv")
    tables = []
    for rows in (97, 100_000):
        scratch = tmp_path / f"scratch{rows}"
        scratch.mkdir()
        tables.append([period.load() for period in find_portal_periods(path, scratch, chunk_rows=rows)])
    for one, two in zip(*tables, strict=True):
        pd.testing.assert_frame_equal(one, two)


def test_portal_error_names_the_line_beyond_the_first_chunk(tmp_path: Path) -> None:
    lines = write_portal(tmp_path / "ngsim.csv").read_text().splitlines()
    bad = next(number for number in range(3000, len(lines)) if lines[number].endswith("us-101"))
    cells = lines[bad].split(",")
    cells[11] = "fast"
    lines[bad] = ",".join(cells)
    (tmp_path / "ngsim.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "scratch").mkdir()
    with pytest.raises(InputError, match=rf"'v_Vel', row {bad + 1}: .*'fast'"):
        find_portal_periods(tmp_path / "ngsim.csv", tmp_path / "scratch", chunk_rows=500)


def test_portal_file_is_streamed_not_loaded(tmp_path: Path) -> None:
    lines = portal_lines(ngsim_rows(cruising(vehicles=60, seconds=60.0, speed_mps=4.0)), "peachtree")
    wanted = portal_lines(ngsim_rows(cruising(seconds=10.0)), "us-101")

    def peak_bytes(copies: int) -> int:
        path, scratch = tmp_path / f"{copies}.csv", tmp_path / f"scratch{copies}"
        scratch.mkdir(exist_ok=True)
        with path.open("w") as file:
            file.write(PORTAL_HEADER + "\n" + "\n".join(wanted) + "\n")
            for _ in range(copies):
                file.write("\n".join(lines) + "\n")
        tracemalloc.start()
        assert len(find_portal_periods(path, scratch, ["us-101"], chunk_rows=5_000)) == 1
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak_bytes(1)  # what is imported and cached on first use does not count
    assert peak_bytes(8) < 1.3 * peak_bytes(1)


def test_moments_in_two_periods_are_in_neither() -> None:
    def period(name: str, site: str, start: float, end: float) -> Period:
        return Period(name, "f", site, start, end, pd.DataFrame)

    kept = without_overlap([period("a", "x", 0, 100), period("b", "x", 90, 200), period("c", "y", 50, 150)])
    assert [(p.name, p.start_ms, p.end_ms) for p in kept] == [("a", 0, 89), ("b", 101, 200), ("c", 50, 150)]


def test_i80_sample_agrees_with_the_interpolated_reference(ngsim_data: Path, tmp_path: Path) -> None:
    path = ngsim_data / "i80" / "trajectories-0400-first-minute.csv"
    store = ingest(path, tmp_path / "out", split_gap_s=0.0, longest_recording_s=600.0)
    found = table_of(store)
    reference = pd.read_parquet(ngsim_data / "i80" / "tracks_10hz.parquet")
    for table in (found, reference):
        table["step"] = (table["time_s"] * 10).round().astype(int)
    both = found.merge(reference, on=["vehicle_id", "step"], suffixes=("", "_reference"))
    assert len(both) == len(found)
    assert len(found) > 0.98 * len(reference)
    # the reference keeps Local_Y (the front) and Local_X (rightwards)
    along = (both["x_m"] + both["length_m"] / 2 - both["x_m_reference"]).abs()
    across = (both["y_m"] + both["y_m_reference"]).abs()
    speed = (both["speed_mps"] - both["speed_mps_reference"]).abs()
    assert along.quantile([0.5, 0.95, 1.0]).to_numpy() == pytest.approx([0.003, 0.016, 0.092], rel=0.3)
    assert across.quantile(0.95) < 0.01
    assert speed.quantile(0.95) < 0.15
    lanes = store.lanes[store.recordings[0]]
    assert [lane.lane_id for lane in lanes] == [1, 2, 3, 4, 5, 6, 7]
    assert [lane.open_end for lane in lanes] == [True] * 6 + [False]
