"""Files as they were at one moment: a result says what it came from, and notices when that changed meanwhile."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from drivecast.scripts.driving.driver_kinds import without_net
from drivecast.scripts.driving.drivers import BASELINES, driver_path, idm_file, is_idm_file
from drivecast.scripts.tracking.provenance import CHECKOUT
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.forecaster.loading import WORLD_MODEL_FILE

CODE = (
    "envs",
    "planner",
    "worldmodel",
    "scripts/driving/drivers.py",
    "scripts/driving/drive.py",
    "scripts/driving/ceiling.py",
)  # what episodes depend on


@dataclass(frozen=True)
class Snapshot:
    """SHA-256 of some files.

    Attributes:
        folder: Where they lie; not a part of what they are.
        digests: By path in the folder; empty: the file is not there.
    """

    folder: Path
    digests: tuple[tuple[str, str], ...]

    @staticmethod
    def of(folder: Path, files: Iterable[Path]) -> Snapshot:
        """Read them."""
        found = {file.relative_to(folder).as_posix(): _sha256(file) for file in files}
        return Snapshot(folder, tuple(sorted(found.items())))

    @property
    def digest(self) -> str:
        """Of their names and contents; empty without any file."""
        return hashlib.sha256(repr(self.digests).encode()).hexdigest() if self.digests else ""

    def check(self, what: str) -> None:
        """Refuse to go on with files that are no longer what they were; `what` they are, for the message.

        Raises:
            InputError: One has changed since.
        """
        for name, digest in self.digests:
            if _sha256(self.folder / name) != digest:
                raise InputError(
                    f"{self.folder / name}: the {what} changed since this began, so what is driven now may be of "
                    "either; start again, what was driven before is saved"
                )


def code_snapshot(checkout: Path = CHECKOUT) -> Snapshot:
    """The code that episodes depend on."""
    paths = [checkout / name for name in CODE]
    files = [file for path in paths for file in (path.rglob("*.py") if path.is_dir() else [path])]
    return Snapshot.of(checkout, files)


def driver_snapshot(driver: str) -> Snapshot:
    """What a trained driver was trained to: its model, and what is read beside it; IDM's file of parameters; else
    nothing."""
    driver = without_net(driver)[1]
    if is_idm_file(driver):
        file = idm_file(driver)
        return Snapshot.of(file.parent, [file])
    path = driver_path(driver)
    if path is None:
        return Snapshot(Path(), ())
    folder = path if path.is_dir() else path.parent
    if driver.partition(":")[0] in BASELINES:
        from drivecast.envs.drivers.learned.card import model_file

        model = model_file(path)
        return Snapshot.of(folder, [model, model.with_suffix(".json")])
    beside = folder / WORLD_MODEL_FILE
    return Snapshot.of(folder, {*folder.glob("*.safetensors"), beside} if path.is_dir() else {path, beside})


def store_snapshot(folder: Path) -> Snapshot:
    """What says what is in a recording store: its fingerprint, its splits and its lanes."""
    return Snapshot.of(folder, [folder / name for name in ("meta.json", "splits.json", "lanes.json")])


def _sha256(file: Path) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except FileNotFoundError:
        return ""
