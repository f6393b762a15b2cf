"""`python -m scripts.check_parity`: the batched simulator against highway-env, on many seeds and environments."""

from __future__ import annotations

import argparse
import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from typing import Any

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


def main() -> int:
    """Compare, print a line per case as it is done, and a JSON object at the end; 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--case", action="append", choices=list(CASES))
    given = parser.parse_args()
    found: dict[str, Any] = {}
    pool = ProcessPoolExecutor(given.workers, get_context("spawn"))
    for case in given.case or CASES:
        began = time.monotonic()
        parts = [list(range(first, min(first + 25, given.seeds))) for first in range(0, given.seeds, 25)]
        total = None
        for done, parity in enumerate(pool.map(_part, [case] * len(parts), parts, [given.steps] * len(parts)), 1):
            total = parity if total is None else total
            if total is not parity:
                total.add(parity)
            sys.stderr.write(f"{case}: {done}/{len(parts)} parts, {time.monotonic() - began:.0f} s\n")
        assert total is not None
        found[case] = {"seeds": given.seeds, **asdict(total)}
        sys.stdout.write(f"{case}: {json.dumps(found[case])}\n")
        sys.stdout.flush()
    pool.shutdown()
    return 1 if any(one["forks"] for one in found.values()) else 0


def _part(case: str, seeds: list[int], steps: int) -> Any:
    import torch

    from envs.batched.parity import compare

    torch.set_num_threads(1)
    return compare(*CASES[case], seeds, steps)


if __name__ == "__main__":
    sys.exit(main())
