"""Scenes whose right answer is known: drivers solve them, and what is wrong is noticed."""

from __future__ import annotations

import pytest
import torch

from drivecast.envs.drivers import IdleDriver, IDMConfig
from drivecast.envs.evaluation.closed_loop import ClosedLoopConfig, run_episodes
from drivecast.envs.staged.problems import PROBLEMS
from drivecast.envs.staged.traffic import StagedTraffic
from drivecast.scripts.driving.drivers import make_driver
from drivecast.scripts.driving.registry import located

NAMES = [problem.name for problem in PROBLEMS]


@torch.no_grad()
def states_of(problem, driver):
    traffic = StagedTraffic(problem)
    episode = run_episodes(traffic, driver, [0], ClosedLoopConfig(batch=1, keep="all")).episodes[0]
    return episode.states


@pytest.mark.parametrize("problem", PROBLEMS, ids=NAMES)
def test_the_planner_solves_every_problem(problem):
    driver = make_driver(located("planner:pretrained:highway"), IDMConfig())
    assert problem.verdict(states_of(problem, driver)) == ""


@pytest.mark.parametrize("problem", PROBLEMS, ids=NAMES)
def test_who_does_nothing_solves_none(problem):
    assert problem.verdict(states_of(problem, IdleDriver())) != ""


def test_a_rule_that_looks_one_lane_change_ahead_waits_at_the_end_of_the_ramp():
    merge = next(problem for problem in PROBLEMS if problem.ramp)
    assert merge.verdict(states_of(merge, make_driver("idm", IDMConfig()))) == "stands on the ramp"


def test_the_others_keep_to_their_scripts():
    problem = PROBLEMS[NAMES.index("break off before who speeds up, then overtake")]
    states = states_of(problem, IdleDriver())
    speed = states.speed_mps[:, 2]
    assert speed[0] == 25.0
    assert speed[-1] == pytest.approx(25 + 1.6 * 4.5, abs=0.5)
    torch.testing.assert_close(states.speed_mps[:, 1], torch.full_like(speed, 18.0))
