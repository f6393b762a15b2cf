"""Inference by gradient over any of the three: the code of a concept, whom it is about, or what the ego does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from drivecast.worldmodel.concepts.relation_energy import RelationEnergy
from drivecast.worldmodel.errors import InputError

Energy = Callable[[Tensor], Tensor]  # of what is inferred, (batch, ...), to (batch,)


@dataclass(frozen=True)
class InferenceConfig:
    """Inference by gradient, with Langevin noise.

    Args:
        code_steps: Steps of the code's inference.
        code_noise: Standard deviation of the noise of each of them, in training.
        code_pull: How strongly codes are held at zero.
        drive_steps: Steps of the inference of what the ego does.
        drive_step_mps2: How far each of them moves the knots, m/s², at first; it falls to a fifth.
        drive_noise_mps2: Standard deviation of the noise of each, at first, m/s².
        drive_pull: How strongly knots are held at zero: nobody accelerates for nothing.
        drive_graph_steps: In training the gradient flows through so many of them, the last ones.
        mask_steps: Steps of the inference of whom a concept is about, where that is not tried one by one.
        mask_step: How far each moves the logits.
    """

    code_steps: int = 10
    code_noise: float = 0.02
    code_pull: float = 0.02
    drive_steps: int = 12
    drive_step_mps2: float = 0.5
    drive_noise_mps2: float = 0.1
    drive_pull: float = 0.02
    drive_graph_steps: int = 4
    mask_steps: int = 20
    mask_step: float = 1.0

    def __post_init__(self) -> None:
        for name in ("code_steps", "drive_steps", "mask_steps"):
            if getattr(self, name) < 1:
                raise InputError(f"inference.{name}: expected at least 1, got {getattr(self, name)}")


def inferred_code(
    model: RelationEnergy,
    energy: Energy,
    batch: int,
    config: InferenceConfig,
    noise: torch.Generator | None = None,
    differentiable: bool = False,
) -> Tensor:
    """The code `(batch, code)` of least `energy`, found from zero on.

    Args:
        model: Whose codes these are; how far each dimension is moved is learned.
        energy: Mean energy of a concept's demonstrations under `(batch, code)`.
        batch: How many concepts.
        config: The inference.
        noise: Of the Langevin steps; None: none.
        differentiable: Let the gradient flow through the inference.
    """
    code = model.log_code_step.new_zeros(batch, model.config.code_dims).requires_grad_(True)
    for _ in range(config.code_steps):
        with torch.enable_grad():
            value = energy(code) + config.code_pull * code.square().sum(-1)
            (gradient,) = torch.autograd.grad(value.sum(), code, create_graph=differentiable)
        # as far as is learned, whatever the size of the energy; less where it is flat
        gradient = gradient / (1.0 + gradient.norm(dim=-1, keepdim=True))
        code = code - model.log_code_step.exp() * gradient
        if noise is not None:
            code = code + config.code_noise * torch.randn(code.shape, generator=noise, device=noise.device)
        if not differentiable:
            code = code.detach().requires_grad_(True)
    return code if differentiable else code.detach()


def taught_code(
    model: RelationEnergy,
    pairs: Tensor,
    counts: Tensor,
    attention: Tensor,
    shots: int,
    config: InferenceConfig,
    noise: torch.Generator | None = None,
    differentiable: bool = False,
) -> Tensor:
    """Codes `(batch, code)` of demonstrations, `shots` of each concept, whose relations are `(batch · shot, ...)`."""
    batch = len(pairs) // shots

    def energy(code: Tensor) -> Tensor:
        return model(pairs, counts, attention, code.repeat_interleave(shots, 0)).view(batch, shots).mean(1)

    return inferred_code(model, energy, batch, config, noise, differentiable)


def inferred_drive(
    energy: Energy,
    first: Tensor,
    config: InferenceConfig,
    noise: torch.Generator | None = None,
    differentiable: bool = False,
    steps: int | None = None,
) -> Tensor:
    """Knots `(batch, knot, 2)` of low `energy`, found from `first` on.

    Each step is of a set length, shorter from step to step: the energy's size says nothing about how far to go.
    """
    knots = first.detach().requires_grad_(True)
    count = config.drive_steps if steps is None else steps
    for step in range(count):
        share = 1.0 - 0.8 * step / max(count - 1, 1)
        through = differentiable and step >= count - config.drive_graph_steps
        with torch.enable_grad():
            value = energy(knots) + config.drive_pull * knots.square().mean((1, 2))
            (gradient,) = torch.autograd.grad(value.sum(), knots, create_graph=through)
        length = (gradient.square().mean((1, 2), keepdim=True) + 1e-6).sqrt()
        knots = knots - config.drive_step_mps2 * share * gradient / length
        if noise is not None:
            drawn = torch.randn(knots.shape, generator=noise, device=noise.device)
            knots = knots + config.drive_noise_mps2 * share * drawn
        if not through:
            knots = knots.detach().requires_grad_(True)
    return knots if differentiable else knots.detach()


def inferred_mask(energy: Energy, first: Tensor, config: InferenceConfig) -> Tensor:
    """Attention `(batch, entity)` in [0, 1] of least `energy`, from logits `first (batch, entity)` on."""
    logits = first.detach().requires_grad_(True)
    for _ in range(config.mask_steps):
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(energy(logits.sigmoid()).sum(), logits)
        length = (gradient.square().mean(1, keepdim=True) + 1e-12).sqrt()
        logits = (logits - config.mask_step * gradient / length).detach().requires_grad_(True)
    return logits.detach().sigmoid()


def masks(entities: int, counts: tuple[int, ...] = (1, 2)) -> Tensor:
    """Every way to attend to so many others, one or two: `(mask, entity)`; entity 0 always counts."""
    ones = torch.eye(entities)[1:]
    rows = [ones]
    if 2 in counts:
        first, second = torch.combinations(torch.arange(entities - 1), 2).T
        rows.append(ones[first] + ones[second])
    found = torch.cat(rows if 1 in counts else rows[1:])
    found[:, 0] = 1.0
    return found
