"""`drivecast surprise`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from traffic_scenes import platoon_recording

from drivecast.envs.replay.episode import Episode
from drivecast.scripts.command.cli import main
from drivecast.scripts.tracking.run import ConsoleRun
from drivecast.scripts.verbs.surprise import SurpriseConfig, run
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.evaluation.surprise import Moment, SurpriseScoring, distinct
from drivecast.worldmodel.forecaster.model import MODEL_KIND, WorldModel, WorldModelConfig
from drivecast.worldmodel.recordings.store_writer import write_store
from drivecast.worldmodel.storage.checkpoint import save_model

SWERVES, SWERVES_AT_S = 103, 4.0
QUICK = SurpriseScoring(search_steps=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two platoons, in one of which a car leaves its lane at 4 s; and a model of cars that go straight on."""
    folder = tmp_path_factory.mktemp("surprise")
    calm, wild = platoon_recording("calm", 0), platoon_recording("wild", 1)
    tracks = wild.tracks.copy()
    after = (tracks.time_s - SWERVES_AT_S).clip(lower=0) * (tracks.vehicle_id == SWERVES)
    tracks["y_m"] += 2.0 * after
    write_store(folder / "data", [calm, replace(wild, tracks=tracks)], {"train": ["calm"], "val": [], "test": ["wild"]})
    torch.manual_seed(0)
    config = WorldModelConfig(hidden=16, latent_dims=2)
    save_model(folder / "model.safetensors", WorldModel(config), MODEL_KIND, config)
    return folder


@pytest.fixture(scope="module")
def report(folder) -> tuple[Path, ConsoleRun]:
    tracked = ConsoleRun()
    run(SurpriseConfig(folder / "data", str(folder / "model.safetensors"), folder / "out", scoring=QUICK), tracked)
    return folder / "out", tracked


def test_every_vehicle_is_scored_at_every_second_and_who_swerves_is_first(report):
    moments = json.loads((report[0] / "surprise.json").read_text())
    # 15 cars in each of two recordings of 8 s: moments at 2, 3 and 4 s have 2 s before and 3 s after
    assert len(moments) == 2 * 15 * 3
    assert set(moments[0]) == {"recording", "vehicle_id", "time_s", "free_energy"}
    energies = [moment["free_energy"] for moment in moments]
    assert energies == sorted(energies, reverse=True)
    assert (moments[0]["recording"], moments[0]["vehicle_id"]) == ("wild", SWERVES)
    assert 2.0 <= moments[0]["time_s"] <= 4.0


def test_the_most_surprising_moments_are_drawn_and_can_be_replayed(report):
    output, tracked = report
    for name in ("surprise.png", "moments.png"):
        assert (output / name).stat().st_size > 20_000
    pages = sorted(path.name for path in (output / "replays").glob("*.html"))
    assert pages == [*(f"{rank:02}.html" for rank in range(1, 11)), "index.html"]
    episode = Episode.read(output / "replays" / "01.parquet")
    assert (episode.metadata.recording, episode.metadata.vehicle_id) == ("wild", SWERVES)
    assert episode.steps == 50
    sideways = episode.states.position_m[:, 0, 1]
    assert float(sideways[-1] - sideways[0]) > 1.0
    imagined = episode.imaginations[20]
    assert imagined.plan_m.shape == (1, 30, 2)
    assert imagined.futures_m.shape[:3] == (1, 12, 30)
    assert (output / "replays", "replays") in tracked.artifacts
    assert (output / "surprise.png", "figures") in tracked.artifacts
    assert tracked.metrics[-1][1]["highest"] > tracked.metrics[-1][1]["median_free_energy"]


def test_fewer_replays_leave_none_of_the_last_run_s(folder, tmp_path):
    output = tmp_path / "out"
    for replays in (3, 1):
        options = ["--split", "test", "--replays", str(replays), "--scoring.search-steps", "0"]
        options += [
            "--model",
            str(folder / "model.safetensors"),
            "--output",
            str(output),
            "--tracking.enabled",
            "false",
        ]
        assert main(["surprise", str(folder / "data"), *options]) == 0
    assert sorted(path.name for path in (output / "replays").iterdir()) == ["01.html", "01.parquet", "index.html"]
    assert {moment["recording"] for moment in json.loads((output / "surprise.json").read_text())} == {"wild"}


def test_moments_of_one_vehicle_are_told_apart_by_five_seconds():
    def moment(vehicle: int, time_s: float, recording: str = "a") -> Moment:
        return Moment(recording, vehicle, time_s, 1.0, 0)

    given = [moment(1, 3.0), moment(1, 4.0), moment(2, 3.0), moment(1, 8.0), moment(1, 3.0, "b"), moment(3, 1.0)]
    assert distinct(given, 4) == [given[0], given[2], given[3], given[4]]


def test_what_is_missing_is_told_in_one_line(folder, tmp_path):
    config = SurpriseConfig(folder / "data", str(folder / "model.safetensors"), tmp_path / "out", split="val")
    with pytest.raises(InputError, match=r"split 'val' of .* holds no moment with 2 s before it and 3 s after") as told:
        run(config, ConsoleRun())
    assert "\n" not in str(told.value)
    with pytest.raises(InputError, match="nowhere"):
        run(replace(config, data=tmp_path / "nowhere"), ConsoleRun())
