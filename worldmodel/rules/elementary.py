"""Sine and its relatives, by torch or, to compare with highway-env to the last bit, by NumPy.

Both are right to about the last bit, not in the last bit. highway-env's steering is unstable for a car that rolls
backwards (it comes to that behind a crash): there a last bit grows to metres within seconds, so that two correct
simulations part. `numpy_functions()` lets the comparison take that cause away: with it the states are equal in all
their bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

_by_numpy = False


@contextmanager
def numpy_functions() -> Iterator[None]:
    """Within this, the functions here are NumPy's, without gradients."""
    global _by_numpy
    before, _by_numpy = _by_numpy, True
    try:
        yield
    finally:
        _by_numpy = before


def _either(of_torch: Callable[..., Tensor], of_numpy: Any) -> Callable[..., Tensor]:
    def function(*values: Tensor) -> Tensor:
        if not _by_numpy:
            return of_torch(*values)
        return torch.from_numpy(np.asarray(of_numpy(*(np.asarray(value) for value in values))))

    return function


sin = _either(torch.sin, np.sin)
cos = _either(torch.cos, np.cos)
tan = _either(torch.tan, np.tan)
asin = _either(torch.asin, np.arcsin)
atan = _either(torch.atan, np.arctan)
power = _either(torch.pow, np.power)
