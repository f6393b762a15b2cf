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


def drives_of(driver, problems=PROBLEMS):
    """States `(time, agent)` of a drive through each problem, side by side in one batch."""
    # nobody looks at what it imagines, and to ask for that takes as long as the drive
    config = ClosedLoopConfig(batch=len(problems), keep="all", imagine_every_s=1e3)
    result = run_episodes(StagedTraffic(problems), driver, range(len(problems)), config)
    return [episode.states for episode in result.episodes]


def verdicts_on(driver, problems=PROBLEMS):
    each = zip(problems, drives_of(driver, problems), strict=True)
    return {problem.name: problem.verdict(states) for problem, states in each}


def test_the_planner_solves_every_problem():
    verdicts = verdicts_on(make_driver(located("planner:pretrained:highway"), IDMConfig()))
    assert verdicts == dict.fromkeys(NAMES, "")


def test_who_does_nothing_solves_none():
    assert all(verdicts_on(IdleDriver()).values())


def test_a_rule_that_looks_one_lane_change_ahead_waits_at_the_end_of_the_ramp():
    merge = next(problem for problem in PROBLEMS if problem.ramp)
    assert verdicts_on(make_driver("idm", IDMConfig()), [merge]) == {merge.name: "stands on the ramp"}


def test_the_others_keep_to_their_scripts():
    problem = PROBLEMS[NAMES.index("break off before who speeds up, then overtake")]
    (states,) = drives_of(IdleDriver(), [problem])
    speed = states.speed_mps[:, 2]
    assert speed[0] == 25.0
    assert speed[-1] == pytest.approx(25 + 1.6 * 4.5, abs=0.5)
    torch.testing.assert_close(states.speed_mps[:, 1], torch.full_like(speed, 18.0))
