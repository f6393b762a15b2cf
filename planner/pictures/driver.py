"""The policy that sees pictures as a Driver: it draws what it sees, and acts on nothing else."""

from __future__ import annotations

from pathlib import Path

import torch

from drivecast.planner.costs.energy import Energy, EnergyConfig
from drivecast.planner.pictures.policy import PicturePolicy, PicturePolicyConfig
from drivecast.planner.pictures.rollouts import looked_at, own_of
from drivecast.planner.pictures.sight import LAGS
from drivecast.worldmodel.forecaster.loading import PICTURE_POLICY_FILE
from drivecast.worldmodel.raster.clips import seen_in
from drivecast.worldmodel.raster.view import View
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import Controls, Goal, TrafficState
from drivecast.worldmodel.storage.checkpoint import config_from_dict, frozen, holds_model, load_model

PICTURE_POLICY_KIND = "picture-policy"


class PictureDriver:
    """Drives by pictures of the traffic from above; it keeps to lanes, and cannot be told one.

    Args:
        policy: The policy.
        energy: What it was trained to lower; scores drives.
        name: The driver's.
    """

    history_steps = LAGS[-1] + 1

    def __init__(self, policy: PicturePolicy, energy: Energy, name: str = "policy") -> None:
        self.policy, self.energy, self.name = policy, energy, name

    def reset(self, scene: TrafficState, road: Road, goal: Goal) -> None:
        pass

    @torch.no_grad()
    def act(self, history: TrafficState, road: Road, goal: Goal) -> Controls:
        config, given = self.policy.config, history.valid.device
        device = next(self.policy.parameters()).device
        history, road, goal = history.to(device), road.to(device), goal.to(device)
        now, before = history[:, -1], history[:, -min(2, history.valid.shape[1])]
        view = View.of(now, road)
        seen = seen_in(history, road, view, self.history_steps, config.dt_s, config.picture)
        acceleration = (now.speed_mps[:, 0] - before.speed_mps[:, 0]) / config.dt_s
        own = own_of(now[:, 0], acceleration, view, goal)
        here = torch.zeros_like(own.speed_mps)
        return self.policy(looked_at(seen, own, view, here, here, config.picture, config.dt_s), own).to(given)


def is_picture_policy(name: Path | str) -> bool:
    """Whether that file is one, or that folder holds one."""
    return holds_model(name, PICTURE_POLICY_FILE)


def load_picture_driver(path: Path | str, device: str = "cpu", name: str = "") -> PictureDriver:
    """The driver in `path`: a policy file, or the folder that holds it.

    Raises:
        InputError: It is missing, damaged, or no policy that sees pictures.
    """
    loaded = load_model(path, PICTURE_POLICY_KIND)
    policy = PicturePolicy(config_from_dict(PicturePolicyConfig, loaded.config))
    energy = Energy(config_from_dict(EnergyConfig, loaded.extra["energy"]))
    return PictureDriver(frozen(policy, loaded, "policy on pictures", device), energy, name or f"policy:{path}")
