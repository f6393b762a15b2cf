"""`python -m scripts.check_parity`: the batched simulator against highway-env, on many seeds and environments."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from envs.batched.parity import Parity, compare

CONTINUOUS = {"type": "ContinuousAction"}
TEN_HERTZ = {"action": CONTINUOUS, "simulation_frequency": 10, "policy_frequency": 10}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "highway-fast-v0": ("highway-fast-v0", {}),
    "highway-v0 10 Hz continuous": ("highway-v0", TEN_HERTZ),
    "merge-v0": ("merge-v0", {}),
    "merge-v1": ("merge-v1", {}),
    "merge-v1 10 Hz continuous": ("merge-v1", TEN_HERTZ),
    "merge-generic-v1": ("merge-generic-v1", {"lanes_count": 3, "vehicles_count": 8}),
    "highway-v0": ("highway-v0", {}),
}


PART = 10  # seeds


def main() -> int:
    """Compare, print a line per case as it is done; 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--case", action="append", choices=list(CASES))
    parser.add_argument("--journal", type=Path, help="what is done is noted here, and not done again")
    given = parser.parse_args()
    journal: dict[str, dict[str, Any]] = {}
    if given.journal and given.journal.exists():
        journal = {entry["part"]: entry for entry in map(json.loads, given.journal.read_text().splitlines())}
    differ = False
    with ProcessPoolExecutor(given.workers, get_context("spawn")) as pool:
        for case in given.case or CASES:
            began = time.monotonic()
            parts = [tuple(range(n, min(n + PART, given.seeds))) for n in range(0, given.seeds, PART)]
            names = {f"{case}, {given.steps} steps, seeds {seeds[0]}-{seeds[-1]}": seeds for seeds in parts}
            total = Parity()
            waiting = {
                pool.submit(_part, case, names[name], given.steps): name for name in names if name not in journal
            }
            for name in names:
                if name in journal:
                    total.add(Parity(**{key: journal[name][key] for key in asdict(total)}))
            for done, future in enumerate(as_completed(waiting), 1):
                parity = future.result()
                total.add(parity)
                if given.journal:
                    with given.journal.open("a") as file:
                        file.write(json.dumps({"part": waiting[future], **asdict(parity)}) + "\n")
                took = time.monotonic() - began
                left = took / done * (len(waiting) - done)
                sys.stderr.write(f"{case}: {done}/{len(waiting)} parts, {took:.0f} s, {left:.0f} s left\n")
            differ |= bool(total.forks)
            sys.stdout.write(f"{case}: {json.dumps({'seeds': given.seeds, **asdict(total)})}\n")
            sys.stdout.flush()
    return 1 if differ else 0


def _part(case: str, seeds: Sequence[int], steps: int) -> Parity:
    torch.set_num_threads(1)
    return compare(*CASES[case], list(seeds), steps)


if __name__ == "__main__":
    sys.exit(main())
