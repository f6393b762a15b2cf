"""The energy of a concept: a relation network over entities, whom it is about, and a code of what it is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.scene.relations import RELATION_FEATURES


@dataclass(frozen=True)
class RelationEnergyConfig:
    """The network.

    Args:
        features: Numbers that say how one entity stands to another.
        code_dims: Dimensions of a concept's code.
        hidden: Width of its layers.
        relation_dims: Numbers that a pair of entities is summed up in.
        outputs: Numbers whose squares are the energy.
        all_pairs: Relations between any two entities; if False, only those of entity 0 to the others.
    """

    features: int = RELATION_FEATURES
    code_dims: int = 12
    hidden: int = 64
    relation_dims: int = 32
    outputs: int = 16
    all_pairs: bool = False

    def __post_init__(self) -> None:
        for name in ("features", "code_dims", "hidden", "relation_dims", "outputs"):
            if getattr(self, name) < 1:
                raise InputError(f"model.{name}: expected at least 1, got {getattr(self, name)}")


class RelationEnergy(nn.Module):
    """E(x, a, w) = |f(1/T sum over t, i, j of a_i a_j g(x_i, x_j, w), w)|², low where the concept w holds of a in x.

    Of the relations x `(batch, time, i, j, feature)` between entities, the attention a `(batch, entity)` in [0, 1] and
    the code w `(batch, code)`. Source: Mordatch 2018 (arXiv 1811.02486), section 2; the mean over time instead of the
    sum makes energies of stretches of different lengths comparable.
    """

    def __init__(self, config: RelationEnergyConfig) -> None:
        super().__init__()
        self.config = config
        hidden, code = config.hidden, config.code_dims
        self.first = nn.Linear(config.features, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.summed_up = nn.Linear(hidden, config.relation_dims)
        self.code_first = nn.Linear(code, hidden, bias=False)
        self.code_second = nn.Linear(code, hidden, bias=False)
        self.judge = nn.Sequential(
            nn.Linear(config.relation_dims + code, hidden), nn.SiLU(), nn.Linear(hidden, config.outputs)
        )
        # how far codes are moved by each step of their inference; learned
        self.log_code_step = nn.Parameter(torch.full((code,), 0.5))

    def relations(self, pairs: Tensor, counts: Tensor, code: Tensor) -> Tensor:
        """How each pair stands, a mean over the frames that count: `(batch, i, j, relation)`.

        Args:
            pairs: `(batch, time, i, j, feature)`.
            counts: Bool `(batch, time, i, j)`.
            code: `(batch, code)`.
        """
        shape = (len(pairs), 1, 1, 1, -1)
        hidden = torch.nn.functional.silu(self.first(pairs) + self.code_first(code).view(shape))
        hidden = torch.nn.functional.silu(self.second(hidden) * (1.0 + self.code_second(code).view(shape)))
        weight = counts.to(hidden)
        weight = weight / weight.sum(1, keepdim=True).clamp_min(1.0)
        return self.summed_up((hidden * weight[..., None]).sum(1)) * counts.any(1)[..., None]

    def judged(self, relations: Tensor, attention: Tensor, code: Tensor) -> Tensor:
        """Energy `(batch, ...)` of `relations (batch, i, j, relation)` under `attention (batch, ..., entity)`.

        Entity 0 is always attended to where only its relations count.
        """
        if self.config.all_pairs:
            summed = torch.einsum("bijr,b...i,b...j->b...r", relations, attention, attention)
        else:
            summed = torch.einsum("bjr,b...j->b...r", relations[:, 0, 1:], attention[..., 1:])
        code = code.view(len(code), *[1] * (summed.dim() - 2), -1).expand(*summed.shape[:-1], -1)
        return self.judge(torch.cat([summed, code], -1)).square().sum(-1)

    def forward(self, pairs: Tensor, counts: Tensor, attention: Tensor, code: Tensor) -> Tensor:
        """Energy, `(batch,)`; see `relations` and `judged`."""
        return self.judged(self.relations(pairs, counts, code), attention, code)

    def frozen(self, pairs: Tensor, counts: Tensor, attention: Tensor, code: Tensor) -> Tensor:
        """The same as a function of what is given alone: the weights do not learn from it."""
        weights = {name: value.detach() for name, value in self.named_parameters()}
        return functional_call(self, weights, (pairs, counts, attention, code))
