"""`drivecast ingest`: recorded traffic from files as a recording store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from drivecast.scripts.tracking.run import Run
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.recordings.lane import DEFAULT_SPEED_LIMIT_MPS
from drivecast.worldmodel.recordings.resampling import ResamplingConfig
from drivecast.worldmodel.storage.files import atomic_file, scratch_directory
from drivecast.worldmodel.storage.lock import held_for_writing

if TYPE_CHECKING:
    from drivecast.worldmodel.recordings.period import Period
    from drivecast.worldmodel.recordings.recording import Recording

FEWEST_TO_SPLIT = 3  # with fewer recordings each is cut in time


@dataclass(frozen=True)
class IngestConfig:
    """Read recorded traffic into a store that training, forecasts and the closed loop use.

    The input's splits.json is kept. Without one, recordings are split at random; where there are fewer than three, each
    is cut in time, with a gap. Nothing is written unless all of it could be read.

    Args:
        input: File or folder to read.
        output: Folder of the store; one that is there is replaced once the new one is complete.
        format: tidy: tracks.parquet or tracks.csv with lanes.json (see docs/recordings.md). ngsim: 18-column files in
            feet, one or a folder of them, with or without header, comma- or blank-separated. ngsim-portal: the one CSV
            of all sites from data.transportation.gov, with a column Location.
        locations: Sites to take from the portal's CSV; only freeways.
        speed_limit_mps: Speed limit of lanes that have none, m/s; 29 is 65 mph.
        held_out: Share of the recordings (or of the time of one) for val, and as much for test.
        split_gap_s: Time left out between the parts of a recording that is cut in time, s.
        split_seed: Seed of the random split by recording.
        longest_recording_s: Longer recordings are cut into equal pieces, s, all in one split.
        resampling: How raw samples become smooth tracks at 10 Hz.
    """

    input: Path
    output: Path
    format: Literal["tidy", "ngsim", "ngsim-portal"] = "tidy"
    locations: list[str] = field(default_factory=lambda: ["us-101", "i-80"])
    speed_limit_mps: float = DEFAULT_SPEED_LIMIT_MPS
    held_out: float = 0.15
    split_gap_s: float = 5.0
    split_seed: int = 0
    longest_recording_s: float = 300.0
    resampling: ResamplingConfig = field(default_factory=ResamplingConfig)

    def __post_init__(self) -> None:
        if not 0 < self.held_out < 0.5:
            raise InputError(f"held_out: expected a share between 0 and 0.5, got {self.held_out}")
        if self.speed_limit_mps <= 0:
            raise InputError(f"speed_limit_mps: expected m/s above 0, got {self.speed_limit_mps}")
        if self.split_gap_s < 0:
            raise InputError(f"split_gap_s: expected seconds >= 0, got {self.split_gap_s}")
        if self.longest_recording_s < 10:
            raise InputError(f"longest_recording_s: expected 10 s or more, got {self.longest_recording_s}")
        if not self.locations:
            raise InputError("locations: expected at least one site, such as us-101")


def run(config: IngestConfig, run: Run) -> None:
    """Read the input and write the store, its summary and its picture."""
    from drivecast.worldmodel.recordings.picture import draw_tracks
    from drivecast.worldmodel.recordings.store import WindowStore
    from drivecast.worldmodel.recordings.store_writer import write_store

    if not Path(config.input).exists():
        raise InputError(f"{config.input}: not found; give the file or folder to read with --input")
    dropped: Counter[str] = Counter()
    splits: dict[str, list[str]] = {}
    with held_for_writing(config.output, "ingest"), scratch_directory(config.output) as scratch:
        meta = write_store(
            config.output,
            _recordings(config, scratch, splits, dropped, run),
            splits=splits,
            source={**_described(config), "dropped_or_mended": dropped},
        )
    store = WindowStore.open(config.output)
    _summarise(store, meta, dropped, run)
    with atomic_file(config.output / "tracks.png") as picture:
        draw_tracks(store, picture)
    run.log_figure(config.output / "tracks.png")


def _recordings(
    config: IngestConfig, scratch: Path, splits: dict[str, list[str]], dropped: Counter[str], run: Run
) -> Iterator[Recording]:
    """The recordings to write, one at a time; fills `splits` and `dropped` on the way."""
    from drivecast.worldmodel.recordings.split import SPLITS, cut_in_pieces, split_in_time, split_recordings

    splits.update({key: [] for key in SPLITS})
    names, recordings, given = _read(config, scratch, dropped, run)
    if given is None and len(names) >= FEWEST_TO_SPLIT:
        given = split_recordings(names, config.held_out, config.split_seed)
    split_of = {name: key for key, members in (given or {}).items() for name in members}
    with run.progress(total=len(names), what="recordings") as progress:
        for recording in recordings:
            if given is None:
                parts, by_part = split_in_time(recording, config.held_out, config.split_gap_s)
                split_of |= {name: key for key, members in by_part.items() for name in members}
            else:
                parts = [recording]
            for part in parts:
                for piece in cut_in_pieces(part, config.longest_recording_s):
                    splits[split_of[part.name]].append(piece.name)
                    yield piece
            progress.advance(1)


def _read(
    config: IngestConfig, scratch: Path, dropped: Counter[str], run: Run
) -> tuple[list[str], Iterator[Recording], dict[str, list[str]] | None]:
    """Names of the recordings, the recordings, one at a time where they are large, and the input's splits."""
    from drivecast.worldmodel.recordings.ngsim import find_periods
    from drivecast.worldmodel.recordings.period import build_recording, without_overlap
    from drivecast.worldmodel.recordings.portal import find_portal_periods
    from drivecast.worldmodel.recordings.tidy import read_tidy

    if config.format == "tidy":
        recordings, splits = read_tidy(config.input, config.resampling, config.speed_limit_mps, dropped)
        return [recording.name for recording in recordings], iter(recordings), splits
    periods: list[Period]
    if config.format == "ngsim":
        periods = find_periods(config.input)
    else:
        size = config.input.stat().st_size
        with run.progress(total=size / 1e6, what="MB read") as progress:
            done = 0.0

            def advance(at: int, _: int) -> None:
                nonlocal done
                progress.advance(at / 1e6 - done)
                done = at / 1e6

            periods = find_portal_periods(config.input, scratch, config.locations, on_progress=advance)
    periods = without_overlap(periods)
    built = (build_recording(period, config.resampling, config.speed_limit_mps, dropped) for period in periods)
    return [period.name for period in periods], built, None


def _described(config: IngestConfig) -> dict[str, Any]:
    return {"kind": config.format, "input": config.input.name, "resampling": asdict(config.resampling)}


def _summarise(store: Any, meta: dict[str, Any], dropped: Counter[str], run: Run) -> None:
    rows = []
    for split, names in store.splits.items():
        of_split = [store.meta["about"][name] for name in names]
        rows.append(
            [
                split,
                len(names),
                sum(about["vehicles"] for about in of_split),
                sum(about["rows"] for about in of_split),
                f"{sum(about['frames'] for about in of_split) * store.dt_s / 60:.2f}",
                len(store.rows(split, 20, 50)),
            ]
        )
    run.table(f"{store.directory}", ["split", "recordings", "vehicles", "rows", "minutes", "windows (2 s + 5 s)"], rows)
    mended = [[count, reason] for reason, count in sorted(dropped.items()) if count]
    if mended:
        run.table("dropped or mended", ["count", "what"], mended)
    run.log_metrics({f"ingest/{name}": float(value) for name, value in meta["counts"].items()})
    run.say(f"{store.directory}: fingerprint {store.fingerprint[:12]}, picture {store.directory / 'tracks.png'}")
