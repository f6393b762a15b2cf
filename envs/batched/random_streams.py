"""NumPy's random generators of many episodes, drawn from together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from drivecast.worldmodel.errors import InputError

BLOCK = 256  # words drawn ahead; what is not used is given back
HALF = np.uint64(32)
LOW_HALF = np.uint64(2**32 - 1)
DOUBLE_BITS, DOUBLE_UNIT = np.uint64(11), 2.0**-53


class RandomStreams:
    """What `numpy.random.Generator` gives for each of many generators, in one operation for all of them.

    A generator turns 64-bit words into numbers: one word into a uniform number, half a word into an integer, whose
    other half waits for the next one (NumPy, `random/src/distributions/distributions.c`: `next_double`,
    `buffered_bounded_lemire_uint32`). Once `close` was called, each generator is where it would be had it drawn the
    numbers itself.

    Args:
        generators: Of the episodes, as gymnasium's `seeding.np_random` makes them.

    Raises:
        InputError: A generator is not one of PCG64.
    """

    def __init__(self, generators: Sequence[np.random.Generator]) -> None:
        self._bits: list[np.random.PCG64] = []
        for generator in generators:
            bits = generator.bit_generator
            if type(bits) is not np.random.PCG64:
                raise InputError(f"random generator: expected PCG64, got {type(bits).__name__}")
            self._bits.append(bits)
        self._before = [bits.state for bits in self._bits]
        self._words = np.stack([bits.random_raw(BLOCK) for bits in self._bits])
        self._rows = np.arange(len(generators))
        self._used = np.zeros(len(generators), dtype=np.int64)
        self._has_half = np.array([state["has_uint32"] for state in self._before], dtype=np.bool_)
        self._half = np.array([state["uinteger"] for state in self._before], dtype=np.uint64)

    @property
    def count(self) -> int:
        """Number of generators."""
        return len(self._rows)

    def uniform(
        self, low: float = 0.0, high: float = 1.0, among: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float64]:
        """`generator.uniform(low, high)` of each, `(episode,)`.

        Args:
            low, high: Range.
            among: Bool `(episode,)`: only these draw, the numbers of the others mean nothing. None: everyone.
        """
        rows = self._rows if among is None else np.flatnonzero(among)
        numbers = np.zeros(self.count)
        numbers[rows] = low + (high - low) * ((self._next(rows) >> DOUBLE_BITS).astype(np.float64) * DOUBLE_UNIT)
        return numbers

    def integers(self, count: int, among: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
        """`generator.integers(count)` of each, `(episode,)`: from 0 to `count` - 1. `among` as for `uniform`."""
        numbers = np.zeros(self.count, dtype=np.int64)
        rows = self._rows if among is None else np.flatnonzero(among)
        if count == 1:  # NumPy draws nothing
            return numbers
        unfair = np.uint64((2**32 - count) % count)
        while len(rows):  # Lemire's method: the few that would make some numbers likelier draw again
            product = self._next_half(rows) * np.uint64(count)
            numbers[rows] = product >> HALF
            rows = rows[(product & LOW_HALF) < unfair]
        return numbers

    def close(self) -> None:
        """Put every generator where it would be had it drawn the numbers itself."""
        for bits, state, used, has_half, half in zip(
            self._bits, self._before, self._used.tolist(), self._has_half.tolist(), self._half.tolist(), strict=True
        ):
            bits.state = state
            bits.advance(used)
            if has_half:
                bits.state = {**bits.state, "has_uint32": 1, "uinteger": half}

    def _next(self, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        at = self._used[rows]
        if at.size and at.max() >= self._words.shape[1]:
            self._words = np.hstack([self._words, np.stack([bits.random_raw(BLOCK) for bits in self._bits])])
        self._used[rows] = at + 1
        return self._words[rows, at]

    def _next_half(self, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        waiting = self._has_half[rows]
        halves = self._half[rows]
        fresh = rows[~waiting]
        words = self._next(fresh)
        halves[~waiting] = words & LOW_HALF
        self._half[fresh] = words >> HALF
        self._has_half[rows] = ~waiting
        return halves
