"""The world model's energy: how possible a future is, given the past."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from drivecast.worldmodel.energy.latent_rollout import LatentRollout, posterior_latents, unroll
from drivecast.worldmodel.energy.reconstruction_scale import LANDMARK_S, ReconstructionScale, errors_m, landmarks
from drivecast.worldmodel.forecaster.latent import DiagonalNormal
from drivecast.worldmodel.forecaster.model import Memory, WorldModel
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import TrafficState

QUADRATIC_UP_TO = 3.0  # scales; a larger error costs in proportion to its size
LEARNING_RATE, LAST_RATE_SHARE = 0.3, 0.1  # of the search for the best latents


class Minimum(NamedTuple):
    """The best latents of each vehicle, `(batch, stretch, agent, latent)`, and their energy, `(batch, agent)`."""

    latents: Tensor
    energy: Tensor


@dataclass(frozen=True)
class ModelEnergy:
    """E(past, future, z) of each vehicle, and its free energies F(past, future).

    With x(z) the model's rollout from the past under the latents z, e_t the error of its position at landmark t (every
    0.2 s of the future in which the vehicle is seen) in the frame of the true motion, and T the seconds of these::

        E = 1/T [ sum_t rho(|(e_along / sigma_along(t), e_left / sigma_left(t))|) - log p(z) + constant ]
        rho(r) = d² (sqrt(1 + r²/d²) - 1),  d = 3:  r²/2 of usual errors, d r of wild ones
        -log p(z) = |z_1|²/2 + sum_k |z_k - rho_z z_(k-1)|² / (2 (1 - rho_z²))

    the last for autoregressive latents, one for each stretch of `latent_hold_steps`; in general (z_k - m_k)² / (2 s_k²)
    summed over what `WorldModel.prior` says, and log s_k where the prior is learned. Division by T makes energies of
    futures of different lengths comparable: nats a second, were the errors independent and normal. The scales
    sigma(t) are the model's own errors on recordings (`ReconstructionScale`).

    Free energies take the latents out (LeCun et al. 2006, "A tutorial on energy-based learning", sections 1.4, 2.3)::

        F_inf = min_z E          F_beta = -1/beta log integral exp(-beta E(z)) dz

    Vehicles are told from each other: E of a vehicle counts its own errors and its own latents, while the rollout is
    one of the whole scene. Its neighbours move under their own latents or, where `who (batch, agent)` is True, as the
    future says: with everybody else known it is the energy of one vehicle's answer to what the others did. Those
    vehicles, and those not seen now or never again, have energy 0.

    Args:
        model: The world model.
        scale: Usual errors.
    """

    model: WorldModel
    scale: ReconstructionScale = field(default_factory=ReconstructionScale.standard)

    def energy(
        self, history: TrafficState, road: Road, future: TrafficState, latents: Tensor, who: Tensor | None = None
    ) -> Tensor:
        """E, `(batch, agent)`, differentiable in the future and the latents.

        Args:
            history: `(batch, time, agent)`, the present last.
            road: The road.
            future: `(batch, time, agent)`; moments at which a vehicle is not valid don't count.
            latents: `(batch, stretch, agent, latent)`, one for each stretch of `latent_hold_steps` steps.
            who: Vehicles that move as `future` says, `(batch, agent)`.
        """
        return self._energy(self.model.observe(history, road), road, future, latents, who)

    def posterior_latents(
        self, history: TrafficState, road: Road, future: TrafficState, who: Tensor | None = None
    ) -> DiagonalNormal:
        """The posterior of each stretch, `(batch, stretch, agent, latent)`, after the mean of the one before."""
        return posterior_latents(self.model, self.model.observe(history, road), road, future, who)[1]

    def best_latents(
        self, history: TrafficState, road: Road, future: TrafficState, who: Tensor | None = None, steps: int = 30
    ) -> Minimum:
        """min_z E by `steps` steps of Adam from the posterior's mean and from z = 0, the best seen of each vehicle.

        A minimum of the sum over the scene, so a vehicle's latents may also serve its neighbours.
        """
        with torch.no_grad():
            return self._minimum(self.model.observe(history, road), road, future.detach(), who, steps)

    def free_energy(
        self,
        history: TrafficState,
        road: Road,
        future: TrafficState,
        beta: float | None = None,
        steps: int = 30,
        samples: int = 64,
        who: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """F_inf, or with `beta` F_beta: `(batch, agent)`, differentiable in the future.

        F_inf by gradient (`best_latents`); its own gradient is that of E at the minimum (Danskin). F_beta by importance
        sampling from the posterior q, stretch by stretch: -1/beta log mean_i exp(-beta E(z_i)) / q(z_i). Neighbours
        move under draws from their own posteriors, so exp(-beta E) is also averaged over these. The best latents must
        be among the draws for it to be exact: with large `beta` or many stretches take more samples, or F_inf.

        Args:
            history: `(batch, time, agent)`, the present last.
            road: The road.
            future: `(batch, time, agent)`.
            beta: Inverse temperature; None is its limit, infinity.
            steps: Steps of Adam, for F_inf.
            samples: Draws, for F_beta.
            who: Vehicles that move as `future` says, `(batch, agent)`.
            generator: Source of randomness, for F_beta.
        """
        memory = self.model.observe(history, road)
        if beta is None:
            with torch.no_grad():
                found = self._minimum(memory, road, future.detach(), who, steps)
            if not future.position_m.requires_grad:
                return found.energy
            there = self._energy(memory, road, future, found.latents, who)
            return found.energy + there - there.detach()
        if beta <= 0.0:
            raise ValueError(f"beta must be positive, not {beta}")
        return self._marginal(memory, road, future, who, beta, samples, generator)

    def over_time(self, history: TrafficState, road: Road, future: TrafficState, who: Tensor | None = None) -> Tensor:
        """E under the posterior's mean, step by step: `(batch, time, agent)`, differentiable in the future.

        Its mean over the steps is E where the future is whole: each landmark's error belongs to the steps since the one
        before, each latent's code to its stretch.
        """
        rollout, _ = posterior_latents(self.model, self.model.observe(history, road), road, future, who)
        steps, dt_s = future.valid.shape[1], self.model.config.dt_s
        moments, errors, seen = self._errors(rollout, history.valid[:, -1], future, who)
        time = torch.arange(steps, device=moments.device)
        landmark = torch.searchsorted(moments, time).clamp_max(len(moments) - 1)
        stretch = time // self.model.config.latent_hold_steps
        landmark_steps, stretch_steps = (place.bincount()[place] for place in (landmark, stretch))
        cost = torch.where(seen, errors, 0.0)[:, landmark] / landmark_steps[:, None]
        code = rollout.code[:, stretch] / stretch_steps[:, None] * seen.any(1, keepdim=True)
        return (cost + code) / dt_s

    def _energy(self, memory: Memory, road: Road, future: TrafficState, latents: Tensor, who: Tensor | None) -> Tensor:
        rollout = unroll(self.model, memory, road, future, lambda stretch, memory, last: latents[:, stretch], who)
        return self._energy_of(rollout, memory.scene.valid, future, who)

    def _energy_of(self, rollout: LatentRollout, present: Tensor, future: TrafficState, who: Tensor | None) -> Tensor:
        """E of a rollout of vehicles that are `present (batch, agent)`."""
        _, errors, seen = self._errors(rollout, present, future, who)
        seconds = LANDMARK_S * seen.sum(1)
        total = torch.where(seen, errors, 0.0).sum(1) + rollout.code.sum(1)
        return torch.where(seconds > 0, total / seconds.clamp_min(LANDMARK_S), 0.0)

    def _errors(
        self, rollout: LatentRollout, present: Tensor, future: TrafficState, who: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The landmarks `(moment,)`, rho of the errors there, and which count, `(batch, moment, agent)` each."""
        moments = landmarks(future.valid.shape[1], self.model.config.dt_s)
        along, left = errors_m(rollout.position_m, future, moments)
        along_scale, left_scale = self.scale.at(len(moments), along)
        squared = (along / along_scale[:, None]).square() + (left / left_scale[:, None]).square()
        limit = QUADRATIC_UP_TO**2
        robust = limit * ((1.0 + squared / limit).sqrt() - 1.0)
        seen = future.valid[:, moments] & present[:, None]
        if who is not None:
            seen = seen & ~who[:, None]
        return moments, robust, seen

    def _minimum(self, memory: Memory, road: Road, future: TrafficState, who: Tensor | None, steps: int) -> Minimum:
        rollout, _ = posterior_latents(self.model, memory, road, future, who)
        best = Minimum(rollout.latents, self._energy_of(rollout, memory.scene.valid, future, who))
        if not self.model.config.latent_dims:
            return best
        batch = len(future.valid)
        twice = torch.arange(batch, device=future.valid.device).repeat(2)
        memory, road, future = memory.detach()[twice], road[twice], future[twice]
        who = None if who is None else who[twice]
        latents = torch.cat([rollout.latents, torch.zeros_like(rollout.latents)])
        with torch.enable_grad():
            latents = latents.requires_grad_()
            optimiser = torch.optim.Adam([latents], LEARNING_RATE, betas=(0.8, 0.95))
            fall = LAST_RATE_SHARE ** (1.0 / max(steps, 1))
            for step in range(steps + 1):
                energy = self._energy(memory, road, future, latents, who)
                best = _better(best, latents.detach(), energy.detach())
                if step < steps:
                    (latents.grad,) = torch.autograd.grad(energy.sum(), latents)
                    optimiser.step()
                    optimiser.param_groups[0]["lr"] *= fall
        return best

    def _marginal(
        self,
        memory: Memory,
        road: Road,
        future: TrafficState,
        who: Tensor | None,
        beta: float,
        samples: int,
        generator: torch.Generator | None,
    ) -> Tensor:
        batch = len(future.valid)
        each = torch.arange(batch, device=future.valid.device).repeat(samples)
        memory, road, future = memory[each], road[each], future[each]
        who = None if who is None else who[each]
        rollout, posterior = posterior_latents(
            self.model, memory, road, future, who, draw=lambda posterior: posterior.sample(generator)
        )
        energy = self._energy_of(rollout, memory.scene.valid, future, who)
        off = (rollout.latents - posterior.mean).square() / posterior.log_variance.exp()
        log_density = -0.5 * (off + posterior.log_variance + math.log(2.0 * math.pi)).sum(-1).sum(1)
        weights = (-beta * energy - log_density).view(samples, batch, -1)
        marginal = -(torch.logsumexp(weights, 0) - math.log(samples)) / beta
        scored = future.valid.any(1) & memory.scene.valid
        if who is not None:
            scored = scored & ~who
        return torch.where(scored[:batch], marginal, 0.0)


def _better(best: Minimum, latents: Tensor, energy: Tensor) -> Minimum:
    """The better of the `best` so far and each of some, `(times batch, ...)`, for each vehicle by itself."""
    for more, value in zip(latents.split(len(best.energy)), energy.split(len(best.energy)), strict=True):
        wins = value < best.energy
        best = Minimum(torch.where(wins[:, None, :, None], more, best.latents), torch.where(wins, value, best.energy))
    return best
