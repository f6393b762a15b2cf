"""Situations that show how somebody drives."""

from __future__ import annotations

import numpy as np
import pytest
from example_episodes import highway_episode

from drivecast.scripts.tools import gallery
from drivecast.scripts.tools.gallery import Traces

STEPS, DT_S = 201, 0.1


def traces(ego_across_m=None, ego_lane=None, **others) -> Traces:
    """The ego and one other, who is `along_m` ahead in `lane` at `speed_mps`; all constant if not given by step."""

    def both(ego, other) -> np.ndarray:
        return np.stack([np.broadcast_to(values, STEPS) for values in (ego, other)], 1).astype(float)

    along = both(0.0, others.get("along_m", 50.0))
    lane = both(1 if ego_lane is None else ego_lane, others.get("lane", 1)).astype(int)
    across = both(0.0 if ego_across_m is None else ego_across_m, 0.0)
    return Traces(along, np.abs(along) - 5.0, lane, across, both(25.0, others.get("speed_mps", 20.0)), DT_S)


def best(name: str, found: Traces, outcome: str = "completed"):
    episode = highway_episode(outcome=outcome)
    return max(gallery.SITUATIONS[name](found, episode), key=lambda moment: moment.worth, default=None)


def test_overtaking_needs_a_lane_change_and_somebody_who_is_passed():
    falls_back = np.linspace(40, -40, STEPS)
    change = np.arange(STEPS) > 60
    assert best("overtakes", traces(along_m=falls_back, lane=1)) is None
    assert best("overtakes", traces(ego_lane=1 - change, along_m=40.0)) is None
    moment = best("overtakes", traces(ego_lane=1 - change, along_m=falls_back))
    assert "passes 1" in moment.words
    assert moment.begins < 60 < moment.ends


def test_the_tightest_lane_change_counts_the_room_on_both_sides():
    assert (
        best("squeezes in", traces(ego_lane=1 - (np.arange(STEPS) > 60), lane=0, along_m=12.0)) is None
    )  # nobody behind


def test_a_lane_change_is_broken_off_where_the_ego_comes_back():
    there_and_back = 1.5 * np.exp(-(((np.arange(STEPS) - 100) / 12) ** 2))
    moment = best("breaks off", traces(ego_across_m=there_and_back))
    assert "1.5 m off" in moment.words
    assert best("breaks off", traces(ego_across_m=there_and_back, ego_lane=np.arange(STEPS) > 100)) is None
    assert best("breaks off", traces(ego_across_m=1.5)) is None  # it drives like that


def test_a_cut_in_is_by_somebody_slower_near_ahead():
    comes = np.where(np.arange(STEPS) > 80, 1, 0)
    moment = best("cut-in", traces(lane=comes, along_m=20.0))
    assert "15 m ahead, 5 m/s slower" in moment.words
    assert best("cut-in", traces(lane=comes, along_m=20.0, speed_mps=28.0)) is None
    assert best("cut-in", traces(lane=comes, along_m=-20.0)) is None
    assert best("cut-in", traces(lane=comes, along_m=20.0), outcome="collision") is None


def test_strips_are_drawn_of_real_drives(tmp_path, capsys):
    picture = tmp_path / "gallery.png"
    assert gallery.main(["--driver", "idle", "--suite", "highway", "--episodes", "6", "--output", str(picture)]) == 0
    assert "touches somebody" in capsys.readouterr().out
    from PIL import Image

    with Image.open(picture) as image:
        assert image.width == gallery.STRIP[0]
        assert image.height > 2 * gallery.STRIP[1]
        assert len(set(image.resize((64, 64)).getdata())) > 20


@pytest.mark.parametrize(("option", "said"), [(("--driver", "wizard"), "wizard"), (("--suite", "recorded"), "suite:")])
def test_what_cannot_be_is_said_in_one_line(tmp_path, capsys, option, said):
    call = {"--driver": "idle", "--suite": "highway", "--output": str(tmp_path / "x.png"), **dict([option])}
    assert gallery.main([text for pair in call.items() for text in pair]) == 2
    assert said in capsys.readouterr().err
