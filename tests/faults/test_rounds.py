"""What must never happen, tried often enough to happen."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import time

import pytest
from command import drivecast, start
from test_tracking import TOGETHER, together

from drivecast.scripts.tracking.mlflow_server import MlflowServer
from drivecast.worldmodel.recordings.store import WindowStore

pytestmark = pytest.mark.faults
OFF = ("--tracking.enabled", "false")
RECORD = ("record", "--duration-s", "1", "--vehicles", "3", "4", "--workers", "1", "--output", "store", *OFF)


def test_commands_that_start_at_once_share_one_new_database_eight_times(tmp_path):
    together(tmp_path, count=6, rounds=8)


@pytest.mark.parametrize("round_number", range(10))
def test_a_killed_first_command_leaves_no_half_made_database(tmp_path, round_number):
    first = start(tmp_path, "first", code=TOGETHER, MLFLOW_TRACKING_URI="")
    time.sleep(1.5 + 0.3 * round_number)
    first.kill()
    first.communicate()
    second = start(tmp_path, "second", code=TOGETHER, MLFLOW_TRACKING_URI="")
    _, told = second.communicate(timeout=180)
    assert second.returncode == 0, told
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = MlflowServer(uri)._mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
    runs = client.search_runs([client.get_experiment_by_name("drivecast").experiment_id])
    assert "record second" in [run.info.run_name for run in runs]
    assert sqlite3.connect(tmp_path / "mlflow.db").execute("pragma integrity_check").fetchone() == ("ok",)


def test_a_store_has_its_name_whenever_its_writer_is_killed(tmp_path):
    assert drivecast(tmp_path, *RECORD, "--episodes", "1") == (0, "")
    draw = random.Random(0)
    for _ in range(25):
        process = start(tmp_path, *RECORD, "--episodes", "2", "--seed", str(draw.randrange(1000)))
        time.sleep(draw.uniform(1.0, 4.0))
        process.kill()
        process.communicate()
        assert WindowStore.open(tmp_path / "store").meta["counts"]["rows"] > 0
    assert drivecast(tmp_path, *RECORD, "--episodes", "1") == (0, "")
    assert [entry.name for entry in tmp_path.iterdir()] == ["store"]


def test_a_reader_of_a_store_that_is_replaced_all_the_time_sees_whole_ones(tmp_path):
    """One process replaces a store again and again, with SIGKILL now and then; this one opens it all the time."""
    code = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from recorded_scenes import Track, straight_store
number = 0
while True:
    number += 1
    straight_store(Path("store"), [Track(0.0, 10.0 + number % 5)], frames=30)
"""
    tests = os.path.dirname(os.path.dirname(__file__))
    opened: set[str] = set()
    for _ in range(6):
        process = start(tmp_path, tests, code=code)
        until_s = time.monotonic() + 6
        while time.monotonic() < until_s:
            if opened or (tmp_path / "store").exists():
                opened.add(WindowStore.open(tmp_path / "store").fingerprint)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert len(opened) == 5
    assert json.loads((tmp_path / "store/meta.json").read_text())["schema"] == 1
