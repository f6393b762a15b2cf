"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import signal
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("SDL_VIDEODRIVER", "offscreen")

import pytest
import torch

torch.set_num_threads(1)
signal.signal(signal.SIGINT, signal.default_int_handler)  # nohup and background jobs ignore it, and so would children


@pytest.fixture(scope="session")
def ngsim_data() -> Path:
    """Folder of recorded NGSIM traffic, which is not shipped."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("DRIVECAST_DATA", default))
    if not (folder / "us101" / "tracks.parquet").is_file():
        pytest.skip("no recorded NGSIM traffic: set DRIVECAST_DATA to a folder that holds us101/ and i80/")
    return folder
