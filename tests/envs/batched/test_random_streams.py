"""Many of NumPy's generators drawn from at once give what each gives alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivecast.envs.batched.random_streams import BLOCK, RandomStreams
from drivecast.worldmodel.errors import InputError

CALLS = st.lists(
    st.one_of(st.integers(1, 9), st.tuples(st.floats(-50, 50), st.floats(0, 99)), st.sampled_from([2**31 + 1, 2**32])),
    max_size=40,
)


@settings(deadline=None, max_examples=40)
@given(calls=CALLS, seed=st.integers(0, 2**32), more=CALLS)
def test_any_calls_give_what_each_generator_gives_alone(calls, seed, more):
    together = [np.random.default_rng([seed, number]) for number in range(4)]
    alone = [np.random.default_rng([seed, number]) for number in range(4)]
    alone[1].integers(7), together[1].integers(7)  # half a word of this one waits already
    for part in (calls, more):  # the second time from where the first one left them
        streams = RandomStreams(together)
        for call in part:
            if isinstance(call, tuple):
                low, high = call[0], call[0] + call[1]
                ours, theirs = streams.uniform(low, high), [one.uniform(low, high) for one in alone]
            else:
                ours, theirs = streams.integers(call), [one.integers(call) for one in alone]
            assert ours.tolist() == theirs
        streams.close()
    for ours, theirs in zip(together, alone, strict=True):
        assert [ours.integers(5), ours.random(), ours.integers(5)] == [
            theirs.integers(5),
            theirs.random(),
            theirs.integers(5),
        ]


def test_some_draw_and_the_others_do_not():
    together, alone = ([np.random.default_rng(number) for number in range(3)] for _ in range(2))
    streams, among = RandomStreams(together), np.array([True, False, True])
    for _ in range(BLOCK):  # more than one block of words
        ours = [streams.integers(3, among), streams.uniform(0, 1, among), streams.uniform(0, 1, among)]
        for row in (0, 2):
            theirs = [alone[row].integers(3), alone[row].uniform(), alone[row].uniform()]
            assert [numbers[row] for numbers in ours] == theirs
    streams.close()
    assert [one.random() for one in together] == [one.random() for one in alone]


def test_another_kind_of_generator_is_refused():
    with pytest.raises(InputError, match="expected PCG64, got MT19937"):
        RandomStreams([np.random.Generator(np.random.MT19937(0))])
