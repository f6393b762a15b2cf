"""How much of what will be lies open in each representation, by linear probes 1 to 5 s ahead."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.evaluation.probe_targets import BINARY, LANE_CHANGE_S, QUANTITIES, probe_targets
from drivecast.worldmodel.evaluation.probes import Probed, ridge_probe, scored
from drivecast.worldmodel.evaluation.representations import Representation
from drivecast.worldmodel.recordings.sampling import WindowRequest, WindowSampler
from drivecast.worldmodel.recordings.store import WindowStore

SPLITS = ("train", "val", "test")
GROUP_S = 10.0  # samples of one recording and so much time go together


@dataclass(frozen=True)
class ProbeConfig:
    """Probing.

    Args:
        seconds: How far ahead, s.
        windows: To fit probes on; a quarter as many to choose their strength, a third to judge them.
        max_agents: Vehicles of a window at most.
        history_s: Of the past, s.
        batch: Windows at once.
    """

    seconds: tuple[int, ...] = (1, 2, 3, 4, 5)
    windows: int = 6000
    max_agents: int = 12
    history_s: float = 2.0
    batch: int = 200

    def __post_init__(self) -> None:
        if not self.seconds or min(self.seconds) < 1 or self.windows < 12 or self.batch < 1:
            raise InputError("probes: expected seconds of at least 1, 12 windows and a batch of 1")


@torch.no_grad()
def probe_table(
    representations: Mapping[str, Representation],
    store: WindowStore,
    config: ProbeConfig,
    seed: int = 0,
    device: torch.device | str = "cpu",
    on_progress: Callable[[float], None] = lambda share: None,
) -> dict[str, dict[str, list[Probed]]]:
    """Of each representation and quantity, the score at each of `seconds`. All see the same windows.

    Probes are fitted on the store's `train` split, their strength chosen on `val`, and judged on `test`.
    """
    features: dict[str, list[Tensor]] = {name: [] for name in representations}
    targets: list[dict[str, Tensor]] = []
    groups: list[Tensor] = []
    for number, split in enumerate(SPLITS):
        count = (config.windows, config.windows // 4, config.windows // 3)[number]
        found, target, group = _collected(representations, store, split, count, config, seed + number, device)
        for name, values in found.items():
            features[name].append(values)
        targets.append(target)
        groups.append(group)
        on_progress((number + 1) / (len(SPLITS) + 1))
    table: dict[str, dict[str, list[Probed]]] = {}
    for name, parts in features.items():
        table[name] = {quantity: [] for quantity in QUANTITIES}
        for quantity in QUANTITIES:
            for at in range(len(config.seconds)):
                fit, choose, test = (part[:, at] for part in parts)
                predicted, _ = ridge_probe((fit, choose, test), _of(targets, quantity, at))
                truth = targets[2][quantity][:, at].double()
                table[name][quantity].append(scored(predicted, truth, groups[2], quantity in BINARY))
    on_progress(1.0)
    return table


def _of(targets: list[dict[str, Tensor]], quantity: str, at: int) -> tuple[Tensor, Tensor, Tensor]:
    fit, choose, test = (target[quantity][:, at] for target in targets)
    return fit, choose, test


def _collected(
    representations: Mapping[str, Representation],
    store: WindowStore,
    split: str,
    count: int,
    config: ProbeConfig,
    seed: int,
    device: torch.device | str,
) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    """Features, targets `(window, second, ...)` and groups `(window,)` of random windows of a split."""
    future = round((max(config.seconds) + LANE_CHANGE_S) / store.dt_s)
    request = WindowRequest(round(config.history_s / store.dt_s), future, config.max_agents)
    sampler, generator = WindowSampler([store], split, request), torch.Generator().manual_seed(seed)
    features: dict[str, list[Tensor]] = {name: [] for name in representations}
    targets: dict[str, list[Tensor]] = {name: [] for name in QUANTITIES}
    groups = []
    for begin in range(0, count, config.batch):
        (window,) = sampler.draw(min(config.batch, count - begin), generator)
        moment = (window.frame * store.dt_s / GROUP_S).long()
        groups.append(window.recording * 1_000_000 + moment)
        window = window.to(device)
        for name, represent in representations.items():
            features[name].append(represent(window, config.seconds).float().cpu())
        for quantity, values in probe_targets(window, config.seconds, store.dt_s).items():
            targets[quantity].append(values.cpu())
    joined = {name: torch.cat(parts) for name, parts in features.items()}
    return joined, {name: torch.cat(parts) for name, parts in targets.items()}, torch.cat(groups)
