"""Traffic of different drivers, from timid to aggressive: what the suite `highway-mixed` drives in."""

from __future__ import annotations

import numpy as np

HIGHWAY_ENVS_NAMES = {  # of what `DriverParameters` calls otherwise
    "time_gap_s": "TIME_WANTED",
    "jam_distance_m": "DISTANCE_WANTED",
    "comfort_acceleration_mps2": "COMFORT_ACC_MAX",
    "comfort_braking_mps2": "COMFORT_ACC_MIN",  # negative there
    "politeness": "POLITENESS",
    "least_gain_mps2": "LANE_CHANGE_MIN_ACC_GAIN",
    "most_imposed_mps2": "LANE_CHANGE_MAX_BRAKING_IMPOSED",
}
COLUMNS = ("speed_factor", *HIGHWAY_ENVS_NAMES)
# least and greatest of each column, drawn evenly between. The first two lie within what `drivecast record` draws for
# the others (`recording_cast.VARIED_PARAMETERS`), which a model may have seen; the last three lie outside of it.
KINDS: dict[str, tuple[tuple[float, float], ...]] = {
    "usual": ((0.9, 1.1), (1.2, 1.8), (9, 11), (2.5, 3.5), (5, 5), (0.0, 0.3), (0.2, 0.2), (2, 2)),
    "varied": ((0.8, 1.2), (1.0, 2.0), (8, 12), (2.0, 4.0), (5, 5), (0.0, 0.5), (0.2, 0.2), (2, 2)),
    "aggressive": ((1.1, 1.35), (0.5, 0.9), (6.5, 8), (3.5, 5.0), (5, 7), (0.0, 0.0), (0.05, 0.1), (3, 5)),
    "timid": ((0.65, 0.85), (2.1, 3.0), (12, 16), (1.0, 1.8), (2, 4), (0.6, 1.0), (0.3, 0.6), (0.5, 1.5)),
    # following as fitted to US-101 (5 to 95 % of drivers, configs/idm/fitted-us101.yaml), where lane changes are rare
    "us101": ((0.8, 1.1), (0.3, 2.2), (6.3, 8.1), (0.4, 1.6), (0.4, 1.7), (0.2, 0.5), (0.2, 0.4), (1.5, 3)),
}
SHARES = {"usual": 0.25, "varied": 0.25, "aggressive": 0.2, "timid": 0.15, "us101": 0.15}
STREAM = 7_301  # keeps these draws apart from the scene's


def draw_drivers(seed: int, others: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Parameters of the `others` of the episode `seed`, `(other,)` each, and the factors on their target speeds."""
    draw = np.random.default_rng([seed, STREAM])
    kinds = draw.choice(len(KINDS), others, p=[SHARES[kind] for kind in KINDS])
    low, high = np.array(list(KINDS.values())).transpose(2, 0, 1)  # (kind, column) each
    values = draw.uniform(low[kinds], high[kinds])
    factor, *columns = values.T
    return dict(zip(HIGHWAY_ENVS_NAMES, columns, strict=True)), factor
