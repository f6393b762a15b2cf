"""Ranks candidate plans by their cost in imagined futures, against the truth: `... tools.plan_ranking --model M`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from drivecast.planner.costs.readout import load_readout
from drivecast.scripts.driving.candidate_plans import CandidatePlans, CandidatePlansConfig, candidate_plans
from drivecast.scripts.driving.plan_ranking import (
    PlanRanking,
    cost_in,
    embedded_cost,
    imagined_worlds,
    ranking,
    rule_worlds,
)
from drivecast.scripts.driving.registry import resolve_model
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.forecaster.loading import load_world_model
from drivecast.worldmodel.joint_embedding.loading import load_joint_embedding


def line(name: str, ranked: PlanRanking) -> str:
    """One row of the table, as Markdown."""
    rank, regret = ranked.spearman, ranked.regret
    cells = [
        f"{rank.value:.3f} [{rank.low:.3f}, {rank.high:.3f}]",
        f"{regret.value:.3f} [{regret.low:.3f}, {regret.high:.3f}]",
        f"{ranked.picks_contact:.1%}",
    ]
    return f"| {name} | " + " | ".join(cells) + " |"


HEAD = ("| estimate | Spearman [95 %] | regret [95 %] | picks end in contact |", "|---|---|---|---|")


def estimates(
    plans: CandidatePlans, config: CandidatePlansConfig, model: str, embeddings: Sequence[Path], futures: int, seed: int
) -> dict[str, Tensor]:
    """Estimated costs `(scene, plan)` by name."""
    embedded = {}
    for folder in embeddings:
        joint = load_joint_embedding(folder)
        embedded[f"{folder}, embedded"] = embedded_cost(joint, load_readout(folder, joint), plans, config)
    network = load_world_model(resolve_model(model)).eval().requires_grad_(False)
    noise = torch.randn(plans.cost.shape, generator=torch.Generator().manual_seed(seed))
    return {
        "the true cost": plans.cost,
        f"{model}, {futures} futures": cost_in(imagined_worlds(network, futures, seed), plans, config, futures),
        f"{model}, likeliest future": cost_in(imagined_worlds(network, 1, seed), plans, config, 1),
        **embedded,
        "others follow by IDM": cost_in(rule_worlds(True, plans.dt_s), plans, config, 1),
        "others hold their speed": cost_in(rule_worlds(False, plans.dt_s), plans, config, 1),
        "random numbers": noise,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m drivecast.scripts.tools.plan_ranking", description=__doc__)
    parser.add_argument("--model", required=True, help="world model: file, folder or pretrained:NAME")
    parser.add_argument("--joint-embedding", type=Path, action="append", default=[], help="folder; several: each a row")
    parser.add_argument("--scenes", type=int, default=CandidatePlansConfig.scenes, help="moments")
    parser.add_argument("--plans", type=int, default=CandidatePlansConfig.plans, help="of each moment")
    parser.add_argument("--horizon-s", type=float, default=CandidatePlansConfig.horizon_s, help="length of a plan, s")
    parser.add_argument("--vehicles", type=int, default=CandidatePlansConfig.vehicles, help="beside the ego")
    parser.add_argument("--density", type=float, default=CandidatePlansConfig.density, help="of them at the start")
    parser.add_argument("--futures", type=int, default=4, help="that the model imagines")
    parser.add_argument("--seed", type=int, default=0, help="of moments, plans and futures")
    given = parser.parse_args(arguments)
    began = time.process_time()
    try:
        config = CandidatePlansConfig(
            given.scenes, given.plans, given.horizon_s, vehicles=given.vehicles, density=given.density
        )
        plans = candidate_plans(config, given.seed)
        found = estimates(plans, config, given.model, given.joint_embedding, given.futures, given.seed)
    except InputError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    rows = [line(name, ranking(values, plans, given.seed)) for name, values in found.items()]
    sys.stdout.write("\n".join([*HEAD, *rows]) + "\n")
    contact, took = float(plans.ends_in_contact.double().mean()), time.process_time() - began
    size = f"{given.scenes} scenes, {given.plans} plans of {given.horizon_s:g} s"
    sys.stdout.write(f"{size}: {contact:.1%} of them end in a contact; {took:.0f} s of a core\n")
    return 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
