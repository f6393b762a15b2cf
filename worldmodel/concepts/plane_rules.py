"""Concepts of the plane by rule: who plays which role, where they are, and how far that is from holding."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations

import torch
from torch import Tensor

COLOURS = ("red", "green", "blue")
FRAMES = 4  # of the concepts that say what happens first
JITTER = 0.02  # standard deviation of demonstrated positions about what the rule says

Place = Callable[[int, torch.Generator], Tensor]  # how many, to positions (scene, time, role, 2)
Deviation = Callable[[Tensor], Tensor]  # of positions (..., time, role, 2), to (...): 1 at the tolerance


@dataclass(frozen=True)
class PlaneConcept:
    """One concept: who plays which role, and where they are.

    Attributes:
        name: Of the concept.
        family: Concepts that differ in a number or a colour.
        colours: Of each role, the colours that it may have.
        moves: Of each role, whether it is moved to make the concept hold; the others are where they are.
        place: Draws positions in which it holds; those outside the square or beyond the tolerance are left out later.
        deviation: How far from holding, in tolerances: it holds up to 1.
        frames: Of its scenes.
    """

    name: str
    family: str
    colours: tuple[tuple[int, ...], ...]
    moves: tuple[bool, ...]
    place: Place
    deviation: Deviation
    frames: int = 1

    def holds(self, position: Tensor, colour: Tensor) -> Tensor:
        """Bool `(...)`: it holds of entities `position (..., time, n, 2)`, `colour (..., n)`, whoever plays which role.

        It never holds of more or fewer than it has roles, nor in scenes of another number of frames.
        """
        found = torch.zeros(colour.shape[:-1], dtype=torch.bool, device=colour.device)
        if colour.shape[-1] != len(self.colours) or position.shape[-3] != self.frames:
            return found
        allowed = torch.zeros(len(self.colours), len(COLOURS), dtype=torch.bool, device=colour.device)
        for role, some in enumerate(self.colours):
            allowed[role, list(some)] = True
        for order in _orders(self.colours, self.moves):
            roles = colour[..., order]
            fits = (roles >= 0).all(-1) & allowed[torch.arange(len(order)), roles.clamp_min(0)].all(-1)
            found = found | (fits & (self.deviation(position[..., order, :]) <= 1.0))
        return found


def _orders(colours: tuple[tuple[int, ...], ...], moves: tuple[bool, ...]) -> list[list[int]]:
    """Who may play which role; where all roles are alike, one order stands for all."""
    count = len(colours)
    alike = len(set(colours)) == 1 and all(moves)
    return [list(range(count))] if alike else [list(order) for order in permutations(range(count))]


def uniform(generator: torch.Generator, *shape: int) -> Tensor:
    """Numbers of a shape, anywhere in [-1, 1]."""
    return 2.0 * torch.rand(*shape, generator=generator) - 1.0


def _about(generator: torch.Generator, *shape: int) -> Tensor:
    return JITTER * torch.randn(*shape, generator=generator)


def _towards(angle: Tensor) -> Tensor:
    return torch.stack([angle.cos(), angle.sin()], -1)


def _still(roles: Sequence[Tensor]) -> Tensor:
    """Positions `(scene, 1, role, 2)` of roles `(scene, 2)`."""
    return torch.stack(list(roles), 1)[:, None]


def length_of(vector: Tensor) -> Tensor:
    """Lengths `(...)` of `(..., 2)`, with a gradient at zero, too."""
    return (vector.square().sum(-1) + 1e-9).sqrt()


def _not(colour: int) -> tuple[int, ...]:
    return tuple(other for other in range(len(COLOURS)) if other != colour)


ANY = tuple(range(len(COLOURS)))


def _distance(colour: int, distance: float) -> PlaneConcept:
    """One is `distance` from one of the colour."""

    def place(count: int, generator: torch.Generator) -> Tensor:
        mark = uniform(generator, count, 2)
        away = distance * _towards(math.pi * uniform(generator, count))
        return _still([mark + away + _about(generator, count, 2), mark])

    def deviation(position: Tensor) -> Tensor:
        return (length_of(position[..., 0, 0, :] - position[..., 0, 1, :]) - distance).abs() / 0.07

    name = f"distance-{distance:g}-{COLOURS[colour]}"
    return PlaneConcept(name, "distance", (_not(colour), (colour,)), (True, False), place, deviation)


def _offset(colour: int, degrees: int) -> PlaneConcept:
    """One is 0.4 from one of the colour, in a direction."""
    offset = 0.4 * _towards(torch.tensor(math.radians(degrees)))

    def place(count: int, generator: torch.Generator) -> Tensor:
        mark = uniform(generator, count, 2)
        return _still([mark + offset + _about(generator, count, 2), mark])

    def deviation(position: Tensor) -> Tensor:
        return length_of(position[..., 0, 0, :] - position[..., 0, 1, :] - offset.to(position)) / 0.12

    name = f"offset-{degrees}-{COLOURS[colour]}"
    return PlaneConcept(name, "offset", (_not(colour), (colour,)), (True, False), place, deviation)


def _between(colour: int) -> PlaneConcept:
    """One of the colour is midway between two of other colours."""

    def place(count: int, generator: torch.Generator) -> Tensor:
        ends = [uniform(generator, count, 2) for _ in range(2)]
        return _still([(ends[0] + ends[1]) / 2 + _about(generator, count, 2), *ends])

    def deviation(position: Tensor) -> Tensor:
        middle, first, second = position[..., 0, :, :].unbind(-2)
        off = length_of(middle - (first + second) / 2) / 0.12
        return torch.where(length_of(first - second) < 0.6, torch.inf, off)

    roles = ((colour,), _not(colour), _not(colour))
    return PlaneConcept(f"between-{COLOURS[colour]}", "between", roles, (True, False, False), place, deviation)


def _inside(colour: int) -> PlaneConcept:
    """One of the colour is inside the triangle of three of other colours."""

    def place(count: int, generator: torch.Generator) -> Tensor:
        corners = uniform(generator, count, 3, 2)
        share = torch.rand(count, 3, generator=generator) + 0.1
        share = share / share.sum(1, keepdim=True)
        return _still([(share[..., None] * corners).sum(1), *corners.unbind(1)])

    def deviation(position: Tensor) -> Tensor:
        one, *corners = position[..., 0, :, :].unbind(-2)
        sides = list(zip(corners, [*corners[1:], corners[0]], strict=True))
        parts = torch.stack([_cross(end - begin, one - begin) for begin, end in sides], -1)
        whole = parts.sum(-1)
        least = (parts / torch.where(whole.abs() < 1e-6, 1e-6, whole)[..., None]).amin(-1)  # barycentric coordinate
        return torch.where(whole.abs() / 2 < 0.15, torch.inf, 2.0 - least / 0.05)

    roles = ((colour,), *[_not(colour)] * 3)
    return PlaneConcept(f"inside-{COLOURS[colour]}", "inside", roles, (True, False, False, False), place, deviation)


def _cross(one: Tensor, other: Tensor) -> Tensor:
    return one[..., 0] * other[..., 1] - one[..., 1] * other[..., 0]


def _line(degrees: int) -> PlaneConcept:
    """Three are on a line of a direction, over at least 0.6 of it."""
    along = _towards(torch.tensor(math.radians(degrees)))
    across = torch.stack([-along[1], along[0]])

    def place(count: int, generator: torch.Generator) -> Tensor:
        middle = uniform(generator, count, 1, 2)
        far = torch.tensor([-1.0, 0.0, 1.0]) * (0.35 + 0.35 * torch.rand(count, 1, generator=generator))
        far = far + 0.1 * uniform(generator, count, 3)
        return (middle + far[..., None] * along + _about(generator, count, 3, 2))[:, None]

    def deviation(position: Tensor) -> Tensor:
        three = position[..., 0, :, :]
        three = three - three.mean(-2, keepdim=True)
        off = (three @ across.to(three)).abs().amax(-1) / 0.08
        reach = three @ along.to(three)
        return torch.where(reach.amax(-1) - reach.amin(-1) < 0.6, torch.inf, off)

    return PlaneConcept(f"line-{degrees}", "line", (ANY,) * 3, (True,) * 3, place, deviation)


def _circle(radius: float) -> PlaneConcept:
    """Four are on a circle about their mean, no two of them together."""

    def place(count: int, generator: torch.Generator) -> Tensor:
        turn = math.pi * uniform(generator, count, 1) + torch.arange(4) * math.pi / 2
        middle = uniform(generator, count, 1, 2)
        return (middle + radius * _towards(turn) + _about(generator, count, 4, 2))[:, None]

    def deviation(position: Tensor) -> Tensor:
        four = position[..., 0, :, :]
        off = (length_of(four - four.mean(-2, keepdim=True)) - radius).abs().amax(-1) / 0.07
        first, second = torch.combinations(torch.arange(4), 2).T
        nearest = length_of(four[..., first, :] - four[..., second, :]).amin(-1)
        return torch.where(nearest < 0.7 * radius, torch.inf, off)

    return PlaneConcept(f"circle-{radius:g}", "circle", (ANY,) * 4, (True,) * 4, place, deviation)


def _together(count_of: int, colour: int) -> PlaneConcept:
    """So many of the colour are within 0.25 of their mean: a number, a colour and a place."""

    def place(count: int, generator: torch.Generator) -> Tensor:
        far = 0.2 * torch.rand(count, count_of, 1, generator=generator).sqrt()
        spread = far * _towards(math.pi * uniform(generator, count, count_of))
        return (uniform(generator, count, 1, 2) + spread)[:, None]

    def deviation(position: Tensor) -> Tensor:
        some = position[..., 0, :, :]
        return length_of(some - some.mean(-2, keepdim=True)).amax(-1) / 0.25

    name = f"together-{count_of}-{COLOURS[colour]}"
    return PlaneConcept(name, "together", ((colour,),) * count_of, (True,) * count_of, place, deviation)


def _then(first: int, second: int) -> PlaneConcept:
    """One comes to one of the first colour, and only later to one of the second; it has the third colour."""
    near = 0.15

    def place(count: int, generator: torch.Generator) -> Tensor:
        marks = uniform(generator, count, 2, 2)
        early = torch.randint(2, (count,), generator=generator)
        late = 2 + torch.randint(2, (count,), generator=generator)
        frame = torch.arange(FRAMES)
        share = ((frame - early[:, None]) / (late - early)[:, None]).unsqueeze(-1)
        path = marks[:, :1] + share * (marks[:, 1:] - marks[:, :1]) + 0.05 * uniform(generator, count, FRAMES, 2)
        return torch.cat([path[:, :, None], marks[:, None].expand(-1, FRAMES, -1, -1)], 2)

    def deviation(position: Tensor) -> Tensor:
        to_first, to_second = (length_of(position[..., 0, :] - position[..., role, :]) for role in (1, 2))
        before = to_second.cummin(-1).values  # (..., time): how near it has been to the second so far
        ways = [
            torch.where(before[..., one] < near, torch.inf, torch.maximum(to_first[..., one], to_second[..., other]))
            for one, other in combinations(range(FRAMES), 2)
        ]
        return torch.stack(ways, -1).amin(-1) / near

    roles = (tuple(set(ANY) - {first, second}), (first,), (second,))
    name = f"{COLOURS[first]}-then-{COLOURS[second]}"
    return PlaneConcept(name, "then", roles, (True, False, False), place, deviation, FRAMES)


def _corner(colour: int) -> PlaneConcept:
    """One of the colour is the right angle of a triangle whose short sides are 0.4. No trained family is like it."""

    def place(count: int, generator: torch.Generator) -> Tensor:
        corner, turn = uniform(generator, count, 2), math.pi * uniform(generator, count)
        arms = [corner + 0.4 * _towards(angle) for angle in (turn, turn + math.pi / 2)]
        return _still([corner + _about(generator, count, 2), *arms])

    def deviation(position: Tensor) -> Tensor:
        corner, first, second = position[..., 0, :, :].unbind(-2)
        wanted = ((first - corner, 0.4), (second - corner, 0.4), (first - second, 0.4 * math.sqrt(2.0)))
        return torch.stack([(length_of(side) - long).abs() / 0.1 for side, long in wanted], -1).amax(-1)

    roles = ((colour,), _not(colour), _not(colour))
    return PlaneConcept(f"corner-{COLOURS[colour]}", "corner", roles, (True, False, False), place, deviation)


CONCEPTS: tuple[PlaneConcept, ...] = (
    *(_distance(colour, distance) for distance in (0.15, 0.3, 0.45, 0.6, 0.75) for colour in range(3)),
    *(_offset(colour, degrees) for degrees in range(0, 360, 45) for colour in range(3)),
    *(_between(colour) for colour in range(3)),
    *(_inside(colour) for colour in range(3)),
    *(_line(degrees) for degrees in range(0, 180, 30)),
    *(_circle(radius) for radius in (0.2, 0.35, 0.5, 0.65)),
    *(_together(count, colour) for count in (2, 3, 4) for colour in range(3)),
    *(_then(first, second) for first, second in permutations(range(3), 2)),
    _corner(0),
)
BY_NAME = {concept.name: number for number, concept in enumerate(CONCEPTS)}
# never in training: numbers and directions in between, colours that a family is not seen with, an order, a family
HELD_OUT = (
    *(f"distance-0.45-{colour}" for colour in COLOURS),
    *(f"offset-135-{colour}" for colour in COLOURS),
    "offset-0-red",
    "between-blue",
    "inside-green",
    "line-60",
    "circle-0.35",
    "together-3-green",
    "blue-then-red",
    "corner-red",
)
TRAINED = tuple(concept.name for concept in CONCEPTS if concept.name not in HELD_OUT)
