"""The batched simulator against highway-env, on many seeds and environments (see docs/simulator.md)."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from drivecast.envs.batched.parity import Parity, compare
from drivecast.scripts.driving.workers import Workers

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
    with Workers(given.workers) as pool:
        for case in given.case or CASES:
            began = time.monotonic()
            parts = [tuple(range(n, min(n + PART, given.seeds))) for n in range(0, given.seeds, PART)]
            names = {f"{case}, {given.steps} steps, seeds {seeds[0]}-{seeds[-1]}": seeds for seeds in parts}
            total = Parity()
            waiting = [(name, seeds) for name, seeds in names.items() if name not in journal]
            for name in names:
                if name in journal:
                    total.add(Parity(**{key: journal[name][key] for key in asdict(total)}))
            work = partial(_part, case, given.steps)
            for done, ((name, _), parity) in enumerate(pool.run(work, waiting), 1):
                total.add(parity)
                if given.journal:
                    with given.journal.open("a") as file:
                        file.write(json.dumps({"part": name, **asdict(parity)}) + "\n")
                took = time.monotonic() - began
                left = took / done * (len(waiting) - done)
                sys.stderr.write(f"{case}: {done}/{len(waiting)} parts, {took:.0f} s, {left:.0f} s left\n")
            differ |= bool(total.forks)
            sys.stdout.write(f"{case}: {json.dumps({'seeds': given.seeds, **asdict(total)})}\n")
            sys.stdout.flush()
    return 1 if differ else 0


def _part(case: str, steps: int, named: tuple[str, Sequence[int]]) -> Parity:
    return compare(*CASES[case], list(named[1]), steps)


if __name__ == "__main__":
    sys.exit(main())
