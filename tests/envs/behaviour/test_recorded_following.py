"""IDM estimated from recorded following: who follows, what is recovered, and the file it is kept in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from recorded_scenes import DT_S, Track, straight_scene

from drivecast.envs.behaviour.fitted_drivers import TRAITS, DriverTraits, FittedDrivers
from drivecast.envs.behaviour.following_fit import FitConfig, fit_drivers, gap_error_m, gaps_behind
from drivecast.envs.drivers.idm import IDMConfig
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.recordings.following import Following

FITTED = Path(__file__).resolve().parents[3] / "configs" / "idm" / "fitted-us101.yaml"


def behind_waves(traits: DriverTraits, drivers: int = 24, steps: int = 150) -> Following:
    """Drivers who follow by IDM behind leaders that brake and go on, each at another time."""
    time, number = torch.arange(steps) * DT_S, torch.arange(drivers)[:, None]
    leader = 12 + 4 * torch.sin(time / 2 + number)
    start = (2 + 1.2 * leader[:, :1]).expand(-1, steps)
    made = Following(start, leader, leader, torch.full((drivers,), 5.0), torch.full((drivers,), steps), number[:, 0])
    gaps = gaps_behind(made, traits, DT_S)
    moved = (leader[:, 1:] + leader[:, :-1]) / 2 - (gaps[:, 1:] - gaps[:, :-1]) / DT_S  # mean speed over each step
    speed = [leader[:, 0]]
    for step in range(steps - 1):
        speed.append(2 * moved[:, step] - speed[-1])
    return replace(made, gap_m=gaps, speed_mps=torch.stack(speed, 1))


def test_followers_are_behind_the_next_one_on_their_lane():
    tracks = [Track(x_m=20, speed_mps=10), Track(x_m=40, speed_mps=10), Track(x_m=30, speed_mps=10, lane=1)]
    following = Following.of_scenes([straight_scene(tracks, 60)], DT_S)
    assert following.drivers == 1
    assert following.gap_m[0].tolist() == pytest.approx([15.0] * 60)
    assert following.lengths_m.tolist() == [5.0]


def test_short_stretches_are_left_out_and_nobody_following_is_an_error():
    tracks = [Track(x_m=20, speed_mps=10, last=20), Track(x_m=40, speed_mps=10)]
    following = Following.of_scenes([straight_scene(tracks, 60)], DT_S)
    assert following.drivers == 0
    with pytest.raises(InputError, match="found nobody"):
        fit_drivers(following, DT_S)


def test_known_parameters_are_recovered():
    true = DriverTraits(1.6, 2.2, 2.0, 1.4, 30.0)
    fitted = fit_drivers(behind_waves(true), DT_S, FitConfig(rounds=4))
    assert fitted.typical.time_gap_s == pytest.approx(1.4, rel=0.05)
    assert fitted.typical.acceleration_mps2 == pytest.approx(1.6, rel=0.15)
    assert fitted.typical.jam_gap_m == pytest.approx(2.0, rel=0.1)
    assert fitted.drivers == 24


def test_fitted_driver_forecasts_the_gap_better_than_the_defaults():
    true = DriverTraits(1.2, 1.8, 2.0, 0.8, 30.0)
    following = behind_waves(true)
    fitted = fit_drivers(following, DT_S, FitConfig(rounds=4)).typical
    default = IDMConfig()
    highway_env = DriverTraits(*(getattr(default, name) for name in TRAITS[:-1]), 30.0)
    assert gap_error_m(following, fitted, DT_S) < 0.3
    assert gap_error_m(following, highway_env, DT_S) > 2.0
    assert gap_error_m(following, true, DT_S) == pytest.approx(0.0, abs=1e-2)


def test_spread_over_drivers_widens_when_they_differ():
    one, other = (behind_waves(DriverTraits(1.2, 1.8, 2.0, gap_s, 30.0), 12) for gap_s in (0.7, 1.9))
    mixed = Following.cat([one, replace(other, driver=other.driver + 12)])
    config = FitConfig(rounds=4)
    alike, differ = fit_drivers(one, DT_S, config), fit_drivers(mixed, DT_S, config)
    assert differ.spread.time_gap_s > 1.5 * alike.spread.time_gap_s


def test_file_is_read_as_it_was_written(tmp_path):
    fitted = FittedDrivers(DriverTraits(1.0, 2.0, 2.5, 1.2, 30.0), DriverTraits(0.1, 0.2, 0.0, 0.3, 0.1), 7)
    fitted.write(tmp_path / "some.yaml", "how it was made")
    assert FittedDrivers.read(tmp_path / "some.yaml") == fitted
    assert (tmp_path / "some.yaml").read_text().startswith("# how it was made\n")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("time_gap_s: 1.2", "time_gap: 1.2"), "expected {acceleration_mps2"),
        (("time_gap_s: 1.2", "time_gap_s: fast"), "expected numbers"),
        (("time_gap_s: 1.2", "time_gap_s: -1"), "time_gap_s: expected more than 0"),
        (("spread:", "width:"), "and their spread"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(change, message, tmp_path):
    path = tmp_path / "some.yaml"
    fitted = FittedDrivers(DriverTraits(1.0, 2.0, 2.5, 1.2, 30.0), DriverTraits(0.1, 0.2, 0.0, 0.3, 0.1), 7)
    fitted.write(path)
    path.write_text(
        path.read_text().replace(*change, 1) if change[0] != "spread:" else path.read_text().replace(*change)
    )
    with pytest.raises(InputError, match=message) as caught:
        FittedDrivers.read(path)
    assert "\n" not in str(caught.value)


def test_the_same_seed_draws_the_same_drivers_and_their_median_is_the_typical_one():
    fitted = FittedDrivers.read(FITTED)
    some, more = fitted.draw(20, 3), fitted.draw(400, 3)
    assert torch.equal(some.time_gap_s, more.time_gap_s[:20])
    assert not torch.equal(some.time_gap_s, fitted.draw(20, 4).time_gap_s)
    assert more.time_gap_s.median().item() == pytest.approx(fitted.typical.time_gap_s, rel=0.2)
    assert more.time_gap_s.log().std().item() == pytest.approx(fitted.spread.time_gap_s, rel=0.2)


def test_fitted_parameters_of_us101_are_those_of_idm_config():
    fitted = FittedDrivers.named("fitted-us101")
    assert fitted == FittedDrivers.read(FITTED)
    named = {name: getattr(fitted.typical, name) for name in TRAITS if name != "desired_speed_mps"}
    assert IDMConfig(**named).time_gap_s == fitted.typical.time_gap_s
