"""Episodes whose driver was taught a concept."""

from __future__ import annotations

from dataclasses import replace

import torch

from drivecast.envs.replay.episode import Episode


def attending(episode: Episode, *agents: int, since: int = 0) -> Episode:
    """The same, in which the driver's concept is about `agents` from step `since` on, before that about nobody."""
    everyone = torch.arange(episode.states.speed_mps.shape[1])
    attended = torch.isin(everyone, torch.tensor(agents, dtype=torch.long))[None]
    imaginations = {
        step: replace(imagined, attended=attended & (step >= since)) for step, imagined in episode.imaginations.items()
    }
    return replace(episode, imaginations=imaginations)
