"""Five situations that show how somebody drives, as film strips: `... tools.gallery --driver NAME --output FILE.png`.

The clearest overtaking, the tightest lane change, one that is broken off, a cut-in that is survived, and a failure, in
episodes on training seeds. A situation that did not occur is left out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from drivecast.envs.drivers import IDMConfig
from drivecast.envs.evaluation.closed_loop import ClosedLoopConfig, run_episodes
from drivecast.envs.evaluation.suites import SUITES, simulated
from drivecast.envs.replay.drawing import TrafficDrawing
from drivecast.envs.replay.episode import Episode
from drivecast.envs.replay.frame import font_of
from drivecast.envs.replay.lens import TravellingLens
from drivecast.envs.replay.palette import THEMES
from drivecast.scripts.driving.drivers import TrafficSource, check_driver, highway_of, make_driver
from drivecast.scripts.driving.registry import located
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.storage.files import atomic_file

FIRST_SEED = 7_700_000  # of training; suites begin at 3,000,000,000
FRAMES, STRIP = 3, (1300, 200)  # pictures of a strip, and their width and height
VISIBLE_M, BELOW = 110.0, 24
NEAR_M, OVERTAKEN_S, BROKEN_OFF_S = 30.0, 12.0, 6.0


@dataclass(frozen=True)
class Moment:
    """A situation: how well it shows what it is to show, from which step to which, in words."""

    worth: float
    begins: int
    ends: int
    words: str


@dataclass(frozen=True)
class Traces:
    """An episode as arrays `(time, agent)`; lanes are the nearest, `along_m` counts from the ego, bumper to bumper."""

    along_m: np.ndarray
    gap_m: np.ndarray
    lane: np.ndarray
    across_m: np.ndarray
    speed_mps: np.ndarray
    dt_s: float

    @staticmethod
    def of(episode: Episode) -> Traces:
        states, steps = episode.states, episode.states.valid.shape[0]
        road = episode.road[np.zeros(steps, int)]
        own = road.project(
            states.position_m, road.project(states.position_m[:, :1]).lane.expand(-1, states.valid.shape[1])
        )
        here = road.project(states.position_m)
        along = (own.along_m - own.along_m[:, :1]).double().numpy()
        along[~states.valid.numpy()] = np.nan
        length = states.length_m.double().numpy()
        gap = np.abs(along) - (length + length[:, :1]) / 2
        across, speed = here.across_m.double().numpy(), states.speed_mps.double().numpy()
        return Traces(along, gap, here.lane.numpy(), across, speed, episode.metadata.dt_s)

    def changes(self) -> Iterator[int]:
        """Steps at which the ego crosses a marking."""
        yield from (np.flatnonzero(np.diff(self.lane[:, 0])) + 1).tolist()


def overtaking(traces: Traces, episode: Episode) -> Iterator[Moment]:
    """Most cars passed within `OVERTAKEN_S`, with a lane change."""
    window, changes = round(OVERTAKEN_S / traces.dt_s), list(traces.changes())
    for begins in range(0, len(traces.lane) - window, 10):
        inside = [step for step in changes if begins < step < begins + window]
        first, last = traces.along_m[begins], traces.along_m[begins + window]
        passed = int(((first > 0) & (last < 0) & (np.abs(first) < 120)).sum() - ((first < 0) & (last > 0)).sum())
        if inside and passed > 0:
            yield Moment(passed + 0.1 * len(inside), begins, begins + window, f"passes {passed} in {OVERTAKEN_S:.0f} s")


def squeezing(traces: Traces, episode: Episode) -> Iterator[Moment]:
    """The least room ahead and behind when the ego crosses a marking."""
    for step in traces.changes():
        beside = (traces.lane[step] == traces.lane[step, 0]) & (np.arange(traces.lane.shape[1]) > 0)
        ahead = traces.gap_m[step][beside & (traces.along_m[step] > 0)].min(initial=np.inf)
        behind = traces.gap_m[step][beside & (traces.along_m[step] < 0)].min(initial=np.inf)
        if 0 < ahead < NEAR_M and 0 < behind < NEAR_M:
            words = f"changes lane with {ahead:.0f} m ahead and {behind:.0f} m behind"
            yield Moment(-(ahead + behind), step - round(3 / traces.dt_s), step + round(3 / traces.dt_s), words)


def breaking_off(traces: Traces, episode: Episode) -> Iterator[Moment]:
    """The furthest that the ego left the middle of its lane and came back to it."""
    off, lane = np.abs(traces.across_m[:, 0]), traces.lane[:, 0]
    span = round(BROKEN_OFF_S / traces.dt_s)
    for step in np.flatnonzero(off > 0.7).tolist():
        begins, ends = step - span // 2, step + span // 2
        if begins < 0 or ends >= len(off) or len(set(lane[begins:ends].tolist())) > 1:
            continue
        if off[begins] < 0.25 and off[ends] < 0.25:
            yield Moment(off[step], begins, ends, f"is {off[step]:.1f} m off the middle of its lane, and goes back")


def cut_in(traces: Traces, episode: Episode) -> Iterator[Moment]:
    """The nearest that somebody slower moves over ahead of the ego, in an episode that ends well."""
    if episode.metadata.outcome != "completed":
        return
    own = traces.lane[:, :1] == traces.lane
    kept = traces.lane[1:, 0] == traces.lane[:-1, 0]
    came = own[1:] & ~own[:-1] & kept[:, None] & (traces.along_m[1:] > 0) & (traces.gap_m[1:] < NEAR_M)
    for step, agent in np.argwhere(came).tolist():
        gap, closing = traces.gap_m[step + 1, agent], traces.speed_mps[step, 0] - traces.speed_mps[step, agent]
        if agent and closing > 1.0:
            begins, ends = step - round(2 / traces.dt_s), step + round(4 / traces.dt_s)
            yield Moment(closing / gap, begins, ends, f"is cut in on: {gap:.0f} m ahead, {closing:.0f} m/s slower")


def failing(traces: Traces, episode: Episode) -> Iterator[Moment]:
    """The end of an episode with a contact."""
    if episode.metadata.outcome == "collision":
        fault = "at fault" if episode.metadata.at_fault else "not its fault"
        steps = len(traces.lane) - 1
        yield Moment(1.0, steps - round(4 / traces.dt_s), steps, f"touches somebody, {fault}")


SITUATIONS: dict[str, Callable[[Traces, Episode], Iterator[Moment]]] = {
    "overtakes": overtaking,
    "squeezes in": squeezing,
    "breaks off": breaking_off,
    "cut-in": cut_in,
    "fails": failing,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Drive, find, draw."""
    parser = argparse.ArgumentParser(prog="python -m drivecast.scripts.tools.gallery", description=__doc__)
    parser.add_argument("--driver", required=True, help="as of `drivecast evaluate`")
    parser.add_argument("--suite", default="highway-mixed", help="whose traffic")
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--output", type=Path, required=True, help="picture to write")
    given = parser.parse_args(arguments)
    try:
        if given.suite not in simulated():
            raise InputError(f"suite: expected one of {', '.join(simulated())}; got '{given.suite}'")
        suite = SUITES[given.suite]
        check_driver(given.driver, suite.environment)
        traffic = TrafficSource(suite.environment, highway=highway_of(suite)).open()
        driver = make_driver(located(given.driver), IDMConfig(dt_s=traffic.dt_s))
    except InputError as error:
        sys.stderr.write(f"gallery: {error}\n")
        return 2
    driver.name = given.driver
    seeds = range(FIRST_SEED, FIRST_SEED + given.episodes)
    loop = ClosedLoopConfig(batch=given.episodes, keep="all", imagine_every_s=1e6)  # what it expects is not drawn
    episodes = run_episodes(traffic, driver, seeds, loop).episodes
    found = situations(episodes)
    for name, (episode, moment) in found.items():
        sys.stdout.write(
            f"{name:12s} seed {episode.metadata.seed}, from {moment.begins * traffic.dt_s:.1f} s: {moment.words}\n"
        )
    draw(found, given.output)
    sys.stdout.write(f"{given.output}\n")
    return 0


def situations(episodes: Sequence[Episode]) -> dict[str, tuple[Episode, Moment]]:
    """Of each kind that occurred, the moment that shows it best."""
    found: dict[str, tuple[Episode, Moment]] = {}
    for episode in episodes:
        traces = Traces.of(episode)
        for name, finds in SITUATIONS.items():
            for moment in finds(traces, episode):
                if moment.begins < 0 or moment.ends > episode.steps:
                    continue
                if name not in found or moment.worth > found[name][1].worth:
                    found[name] = episode, moment
    return {name: found[name] for name in SITUATIONS if name in found}


def draw(found: dict[str, tuple[Episode, Moment]], path: Path) -> None:
    """A strip of `FRAMES` pictures per situation, one below the other."""
    width, height = STRIP
    colours = THEMES["light"]
    rows = []
    for episode, moment in found.values():
        traffic, lens = TrafficDrawing(episode, colours), TravellingLens(episode, 0, 2 * width, 2 * height, VISIBLE_M)
        rows.append(
            _caption(f"{episode.metadata.driver}, seed {episode.metadata.seed}: {moment.words}", width, colours)
        )
        for t in np.linspace(moment.begins, moment.ends, FRAMES):
            image = Image.new("RGB", (2 * width, 2 * height), colours["verge"])
            picture = ImageDraw.Draw(image, "RGBA")
            traffic.draw(picture, lens.at(float(t)), float(t))
            seconds = f"{t * episode.metadata.dt_s:.1f} s,  {traffic.speed_mps[int(t), 0]:.1f} m/s"
            picture.text((16, 10), seconds, "white", font_of(32, False))
            rows.append(image.reduce(2))
    whole = Image.new("RGB", (width, sum(row.height + 4 for row in rows) or 1), colours["page"])
    top = 0
    for row in rows:
        whole.paste(row, (0, top))
        top += row.height + 4
    with atomic_file(path) as temporary:
        whole.save(temporary, format="png", optimize=True)


def _caption(text: str, width: int, colours: dict[str, str]) -> Image.Image:
    image = Image.new("RGB", (width, BELOW), colours["page"])
    ImageDraw.Draw(image).text((8, BELOW / 2), text, colours["text"], font_of(15, False), "lm")
    return image


if __name__ == "__main__":
    sys.exit(main())
