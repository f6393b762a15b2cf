"""The methods by name, with the values among which each one's main knob is chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from drivecast.worldmodel.energy_methods.contrastive_divergence import (
    ContrastiveDivergence,
    DivergenceConfig,
    PersistentDivergence,
)
from drivecast.worldmodel.energy_methods.contrasts import InfoNCE, Margin, NegativesConfig
from drivecast.worldmodel.energy_methods.coordinates import FutureCoordinates
from drivecast.worldmodel.energy_methods.joint_embedding import JointEmbedding, TrafficEmbeddings, VICRegConfig
from drivecast.worldmodel.energy_methods.langevin import LangevinConfig
from drivecast.worldmodel.energy_methods.latent_variable import LatentConfig, LatentVariable, TrafficLatentNetworks
from drivecast.worldmodel.energy_methods.method import Method
from drivecast.worldmodel.energy_methods.networks import EnergyNetwork
from drivecast.worldmodel.energy_methods.score_matching import DenoisingScoreMatching


@dataclass(frozen=True)
class MethodKind:
    """One way to train.

    Attributes:
        name: Of it.
        knob: What its main setting is.
        values: Those tried.
        steps: Of a training, so that all take about as long.
        made: A method with untrained weights, for futures in these coordinates, at a value of the knob.
    """

    name: str
    knob: str
    values: tuple[float, ...]
    steps: int
    made: Callable[[FutureCoordinates, float], Method]

    def seeded(self, coordinates: FutureCoordinates, value: float, seed: int) -> Method:
        """`made` with weights of `seed`; the global generator stays as it is."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.made(coordinates, value)


def _info_nce(coordinates: FutureCoordinates, spread: float) -> Method:
    return InfoNCE(EnergyNetwork(coordinates), NegativesConfig(spread=spread))


def _margin(coordinates: FutureCoordinates, others: float) -> Method:
    return Margin(EnergyNetwork(coordinates), NegativesConfig(others=int(others)), margin=1.0)


def _divergence(coordinates: FutureCoordinates, step_size: float) -> Method:
    return ContrastiveDivergence(EnergyNetwork(coordinates), DivergenceConfig(LangevinConfig(10, step_size)))


def _persistent(coordinates: FutureCoordinates, step_size: float) -> Method:
    return PersistentDivergence(EnergyNetwork(coordinates), DivergenceConfig(LangevinConfig(10, step_size)))


def _denoising(coordinates: FutureCoordinates, spread: float) -> Method:
    return DenoisingScoreMatching(EnergyNetwork(coordinates), spread)


def _latent(coordinates: FutureCoordinates, information_cost: float) -> Method:
    config = LatentConfig(information_cost=information_cost)
    return LatentVariable(TrafficLatentNetworks(coordinates, config.dims), config)


def _embedding(coordinates: FutureCoordinates, invariance: float) -> Method:
    config = VICRegConfig(invariance=invariance)
    return JointEmbedding(TrafficEmbeddings(coordinates, config.dims), config)


METHODS = (
    MethodKind("InfoNCE", "spread of the noised negatives", (0.2, 0.5, 1.0), 600, _info_nce),
    MethodKind("margin", "other pasts' futures among the negatives", (6, 1, 0), 600, _margin),
    MethodKind("CD-10", "Langevin step size", (0.01, 0.03, 0.1), 250, _divergence),
    MethodKind("persistent CD", "Langevin step size", (0.01, 0.03, 0.1), 250, _persistent),
    MethodKind("denoising", "spread of the noise", (0.2, 0.4, 0.8), 800, _denoising),
    MethodKind("latent", "weight of the information", (0.3, 1.0, 3.0), 1100, _latent),
    MethodKind("VICReg", "weight of the invariance", (0.3, 1.0, 3.0), 1600, _embedding),
)
BY_NAME = {kind.name: kind for kind in METHODS}
