"""NET:DRIVER, wherever drivers are named."""

from __future__ import annotations

from pathlib import Path

import pytest
from policies import write_policy

from drivecast.envs.drivers import IDMConfig
from drivecast.scripts.command.output import input_paths
from drivecast.scripts.driving.drive import Drive, labels, short_name
from drivecast.scripts.driving.driver_kinds import kind_of, kind_under_net
from drivecast.scripts.driving.drivers import (
    TrafficSource,
    check_driver,
    check_policy_file,
    driver_path,
    make_driver,
    training_seed,
)
from drivecast.scripts.driving.registry import located
from drivecast.scripts.driving.sitting import Sitting
from drivecast.scripts.driving.snapshot import driver_snapshot
from drivecast.scripts.verbs.evaluate import EvaluateConfig
from drivecast.worldmodel.errors import InputError


def test_it_is_its_driver_under_a_net(tmp_path):
    policy = write_policy(tmp_path / "policy", 7)
    name = f"rss:{policy}"
    check_driver(name, "highway-v0")
    check_policy_file(name)
    assert make_driver(name, IDMConfig()).name == name
    assert driver_path(name) == driver_path(policy)
    assert training_seed(name) == 7
    assert located("r157:pretrained:highway") == f"r157:{located('pretrained:highway')}"
    assert (kind_of(name), kind_under_net(name), kind_under_net(policy)) == ("policy", "rss:policy", "policy")


def test_it_is_called_by_both_names(tmp_path):
    assert short_name("rss:idm:25") == "rss-idm-25"
    named = labels(["policy:runs/a", "rss:policy:runs/a", "r157:idle"])
    assert list(named.values()) == ["policy-a", "rss-policy-a", "r157-idle"]
    given = EvaluateConfig(tmp_path / "out", ["rss:policy:runs/a", "policy:runs/b"], environment=["highway-v0"])
    assert [path for path in input_paths(given) if path.parts[0] == "runs"] == [Path("runs/a"), Path("runs/b")]


def test_episodes_with_and_without_it_are_not_taken_for_each_other(tmp_path):
    policy = write_policy(tmp_path / "policy", 0)
    source = TrafficSource("highway-v0")
    loop = EvaluateConfig(tmp_path).loop

    def identity(name: str) -> str:
        plan = Drive(source, name, (1, 2), loop, tmp_path)
        return Sitting(plan, tmp_path, {"model": driver_snapshot(name)}).identity

    identities = {name: identity(name) for name in (policy, f"rss:{policy}", f"r157:{policy}")}
    assert len(set(identities.values())) == 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rss:human", "human cannot be overridden"),
        ("r157:ceiling", "ceiling cannot be overridden"),
        ("rss:wizard", "driver 'wizard': expected one of"),
        ("rss:rss:idm", "expected one of"),
        ("rss:", "expected one of"),
        ("rss:idm:fast", "expected idm:SPEED"),
    ],
)
def test_what_cannot_be_is_refused(name, message):
    with pytest.raises(InputError, match=message):
        check_driver(name, "recorded")
