"""`drivecast distil-planner`: what it leaves, that it goes on where it was stopped, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from traffic_scenes import platoon_store

from drivecast.envs.drivers.idm import IDMConfig
from drivecast.envs.evaluation.closed_loop import run_episodes
from drivecast.planner.distillation.fitting import FittingConfig
from drivecast.planner.policy.driver import load_driver
from drivecast.planner.policy.network import Policy, PolicyConfig
from drivecast.planner.policy.training import POLICY_KIND
from drivecast.scripts.driving import lessons
from drivecast.scripts.driving.drivers import TrafficSource, make_driver
from drivecast.scripts.tracking.run import ConsoleRun
from drivecast.scripts.verbs import distil_planner
from drivecast.scripts.verbs.distil_planner import DistilPlannerConfig, run
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.forecaster.model import MODEL_KIND, WorldModel, WorldModelConfig
from drivecast.worldmodel.storage.checkpoint import save_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A policy that drives by the laws, and recorded traffic in a world that keeps its speed."""
    folder = tmp_path_factory.mktemp("distil")
    torch.manual_seed(0)
    world, policy = WorldModelConfig(hidden=8, latent_dims=2), PolicyConfig(hidden=8, feedback="laws")
    save_model(folder / "policy" / "world-model.safetensors", WorldModel(world), MODEL_KIND, world)
    save_model(folder / "policy" / "policy.safetensors", Policy(policy), POLICY_KIND, policy, {"energy": {}})
    platoon_store(folder / "store")
    return folder


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(lessons, "PART", 4)


def config_of(folder, output, **changes) -> DistilPlannerConfig:
    given = {"rounds": 2, "episodes": 8, "workers": 1, "hidden": 16, "fitting": FittingConfig(epochs=4, batch=64)}
    return DistilPlannerConfig(
        str(folder / "policy"), output, **{"suites": [], "data": [folder / "store"], **given, **changes}
    )


@pytest.fixture(scope="module")
def distilled(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lessons, "PART", 4)
        config, console = config_of(folder, folder / "distilled"), ConsoleRun()
        run(config, console)
    return config, console


def test_it_leaves_a_policy_that_chooses_lanes_and_drives(distilled):
    config, console = distilled
    assert console.models == [(config.output / "policy.safetensors", "policy")]
    assert (config.output / "distillation.png").stat().st_size > 0
    assert {"val/agreement", "val/regret", "drive/speed_mps"} <= {n for _, values in console.metrics for n in values}
    traffic = TrafficSource("recorded", tuple(config.data)).open()
    driver = make_driver(f"policy:{config.output}", IDMConfig(dt_s=traffic.dt_s))
    assert driver.policy.lanes is not None
    assert len(run_episodes(traffic, driver, [0, 1]).table) == 2
    assert driver.chosen_lane is not None


def test_the_controls_stay_as_they_were(distilled, folder):
    before, after = (load_driver(path).policy for path in (folder / "policy", distilled[0].output))
    for name, weight in before.state_dict().items():
        torch.testing.assert_close(after.state_dict()[name], weight, rtol=0, atol=0)


def test_in_the_first_round_the_search_s_choices_are_driven_and_later_the_policy_s_own(distilled, monkeypatch):
    shares = []
    true_driver = lessons.TaughtDriver
    monkeypatch.setattr(
        lessons, "TaughtDriver", lambda *given, **named: shares.append(true_driver(*given, **named)) or shares[-1]
    )
    config = distilled[0]
    for number, policy in ((0, config.output / "lessons" / "begun"), (1, config.output)):
        part = distil_planner._parts(config, number, policy, config.output / "world-model.safetensors")[0]
        lessons.teach(part)
    assert [one.searched_share for one in shares] == [1.0, config.searched_share]


def test_stopped_it_goes_on_with_what_it_was_taught_and_ends_with_the_same_weights(distilled, folder, monkeypatch):
    config, _ = distilled
    output, taught = folder / "stopped", []
    true_teach = lessons.teach

    def stopping(part):
        if len(taught) == 3:
            raise KeyboardInterrupt
        taught.append(part.number)
        return true_teach(part)

    monkeypatch.setattr(distil_planner, "teach", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(replace(config, output=output), ConsoleRun())
    damaged = sorted((output / "lessons").glob("0*.safetensors"))[1]
    damaged.write_bytes(b"cut")
    again = []
    monkeypatch.setattr(distil_planner, "teach", lambda part: again.append(part.number) or true_teach(part))
    run(replace(config, output=output), ConsoleRun())
    assert (taught, again) == ([0, 1, 2], [1, 3]), "what was cut is taught again, the rest is not"
    one, other = (load_file(path / "policy.safetensors") for path in (config.output, output))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_other_settings_do_not_mix_with_what_was_taught(distilled):
    config, _ = distilled
    before = (config.output / "policy.safetensors").read_bytes()
    with pytest.raises(InputError, match="belongs to a run with other settings"):
        run(replace(config, seed=1), ConsoleRun())
    assert (config.output / "policy.safetensors").read_bytes() == before


def test_rounds_and_seeds_have_episodes_of_their_own_and_half_ask_for_the_suite_s_speed():
    def seeds(number: int, seed: int) -> list[int]:
        parts = lessons.parts_of_round(["highway", "merge"], [], 16, number, seed, (18.0, 25.0), COMMON)
        return [each for part in parts for each in part.seeds]

    groups = [seeds(number, seed) for number, seed in ((0, 0), (1, 0), (0, 1))]
    assert len({each for group in groups for each in group}) == sum(map(len, groups)) == 48
    parts = lessons.parts_of_round(["highway", "merge"], [], 160, 0, 0, (18.0, 25.0), COMMON)
    assert {part.source.environment for part in parts} == {"highway-v0", "merge-v1"}
    wishes = [part.source.highway.desired_speed_mps for part in parts]
    assert {wish == 30.0 or 18.0 <= wish <= 25.0 for wish in wishes} == {True}
    assert 8 < sum(wish == 30.0 for wish in wishes) < 32


COMMON = {"policy": None, "world_model": None, "searched_share": 0.2}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"suites": ["motorway"]}, "suites: expected some of highway"),
        ({"rounds": 0}, "rounds: expected at least 1"),
        ({"searched_share": 1.5}, "searched_share: expected 0 to 1"),
        ({"data": []}, "give --suites NAME or --data DIR"),
        ({"desired_speed_mps": (30.0, 20.0)}, "two rising speeds"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(folder, tmp_path, changes, said):
    with pytest.raises(InputError, match=said):
        config_of(folder, tmp_path / "out", **changes)


def test_a_policy_without_its_world_model_says_what_is_missing(folder, tmp_path):
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "policy.safetensors").write_bytes((folder / "policy" / "policy.safetensors").read_bytes())
    with pytest.raises(InputError, match=r"no world-model.safetensors beside it"):
        run(replace(config_of(folder, tmp_path / "out"), policy=str(alone)), ConsoleRun())


def test_a_full_disk_is_told_as_such_and_what_was_taught_stays(distilled, tmp_path, monkeypatch):
    taught = distil_planner._read(distilled[0].output / "lessons" / "00000.safetensors")
    file = tmp_path / "00000.safetensors"
    distil_planner._write(file, taught)
    before = file.read_bytes()

    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        distil_planner._write(file, taught)
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]
