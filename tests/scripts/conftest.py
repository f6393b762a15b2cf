"""What tests of the command share."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from drivecast.envs.evaluation import latency


@pytest.fixture(scope="module", autouse=True)
def decisions_are_timed_briefly() -> Iterator[None]:
    """An evaluation times 110 decisions of each driver: here that would be most of its time, and 15 say as much."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency, "decision_ms", partial(latency.decision_ms, calls=5))
        yield
