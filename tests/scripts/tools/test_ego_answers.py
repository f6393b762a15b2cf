"""The tool that compares how others answer an ego."""

from __future__ import annotations

import re
from functools import cache

from imagined_scenes import write_world_model

from drivecast.envs.batched.traffic import BatchedHighwayTraffic
from drivecast.scripts.tools import ego_answers
from drivecast.scripts.tools.ego_answers import DENSITY, main, table
from drivecast.worldmodel.forecaster.model import WorldModel, WorldModelConfig


def answers(
    traffic: BatchedHighwayTraffic, keeps_clear: bool
) -> dict[str, tuple[list[float], list[float], list[float]]]:
    """By manoeuvre: how much slower in the simulator and in imagination, and the two shares that touch, in %."""
    model = WorldModel(WorldModelConfig(hidden=8, latent_dims=0, keeps_clear=keeps_clear)).eval()
    found = {}
    for line in table(model, traffic, 16, 1)[1:]:
        parts = re.fullmatch(r"(.*?) +n +[1-9]\d* +(.*?) +touch: (.*)", line)
        assert parts is not None
        name, numbers, touches = parts.groups()
        simulated, imagined = ([float(value) for value in part.split()] for part in numbers.split(";"))
        found[name] = simulated, imagined, [float(share.removesuffix(" %")) for share in touches.split(", ")]
    return found


def test_nobody_answers_in_a_model_without_answers_and_all_do_where_they_keep_clear(monkeypatch):
    monkeypatch.setattr(ego_answers, "simulate", cache(ego_answers.simulate))  # the same for both models
    traffic = BatchedHighwayTraffic("highway-v0", 50, density=DENSITY, duration_s=60.0)
    deaf, clear = answers(traffic, False), answers(traffic, True)
    assert set(deaf) == {"brakes", "brakes hard", "cuts in"}
    for name in ("brakes", "brakes hard"):
        simulated, imagined, touches = deaf[name]
        assert simulated == sorted(simulated)  # slower and slower
        assert simulated[-1] > 1.0
        assert imagined == [0.0, 0.0, 0.0, 0.0]
        assert touches[0] == 0.0
    assert deaf["brakes hard"][2][1] > 0.0
    assert clear["brakes hard"][2] == [0.0, 0.0]
    assert clear["brakes hard"][1][-1] > 1.0


def test_it_prints_a_line_for_each_manoeuvre_or_one_that_says_what_is_wrong(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(ego_answers, "WARM_UP_S", ego_answers.PAST_S)
    model = write_world_model(tmp_path / "wm", 0)
    assert main(["--model", str(model), "--episodes", "2", "--vehicles", "20", "--samples", "1"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert main(["--model", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
