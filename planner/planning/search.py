"""Beam search over sequences of manoeuvres in imagination: which lane to steer for now, and what it leads to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from drivecast.planner.costs.energy import Energy
from drivecast.planner.costs.trajectory import Trajectory
from drivecast.planner.imagination.world import World
from drivecast.planner.manoeuvres.manoeuvre import Law, LawConfig, Manoeuvre, keeping, wished_mps
from drivecast.planner.manoeuvres.open_lanes import lanes_open
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.scene.contact import ego_separation_m, separation_m
from drivecast.worldmodel.scene.lane_neighbours import single_lane
from drivecast.worldmodel.scene.road import NO_LANE, Road
from drivecast.worldmodel.scene.traffic import Controls, Goal, TrafficState, along_and_left

FASTER_S, MOST_FASTER_MPS2 = 1.5, 4.0  # how long, and how hard, somebody goes on speeding up


@dataclass(frozen=True)
class SearchConfig:
    """The search.

    Args:
        horizon_s: How far plans reach, s.
        branch_every_s: Time between two choices of a lane within a plan, s.
        beam: Plans of an episode that are kept at each choice.
        time_gaps_s: Time gaps of which each plan keeps one, s.
        slower_mps: Each plan wants the goal's speed, or so much less than the ego's present one, m/s; with concepts.
        futures: Futures of the others in which each plan is driven.
        worst_share: Plans are judged by the mean over this share of their futures, the worst ones (CVaR); 1: over all.
        contact_cost: Energy of a contact at once; at the horizon's end it costs half of it.
        margin_m: Room around the ego's box that counts as a contact, m.
        bumper_m: So much more ahead of the ego's box and behind it, m.
        change_cost: Energy of each lane change, against dithering.
        imposed_mps2: A lane change is not considered if the next behind on that lane would have to brake harder, m/s²:
            imagined drivers may yield where real ones do not.
        stubborn_s: So far ahead a plan must not be in the way of those who come from behind and do not yield, s.
        stubborn_cost: Energy of being it.
        goal_cost: Energy of each lane that a plan's end is away from the one that the goal names, if it names one.
        terminal_s: The speed term at a plan's end counts for so many more seconds.
    """

    horizon_s: float = 6.0
    branch_every_s: float = 1.5
    beam: int = 8
    time_gaps_s: tuple[float, ...] = (0.3,)
    slower_mps: tuple[float, ...] = ()
    futures: int = 1
    worst_share: float = 1.0
    contact_cost: float = 50.0
    margin_m: float = 0.1
    bumper_m: float = 0.5
    change_cost: float = 0.05
    imposed_mps2: float = 1.0
    stubborn_s: float = 3.0
    stubborn_cost: float = 20.0
    goal_cost: float = 5.0
    terminal_s: float = 6.0

    def __post_init__(self) -> None:
        for name in ("horizon_s", "branch_every_s", "beam", "futures", "worst_share"):
            if getattr(self, name) <= 0:
                raise InputError(f"search.{name}: expected more than 0, got {getattr(self, name)}")
        if not self.time_gaps_s:
            raise InputError("search.time_gaps_s: expected at least one")


@dataclass(frozen=True)
class Stretch:
    """What plans drive between two choices.

    Attributes: `plan` and `future` are the leading dimensions.
        parent: Long `(plan,)`. The plan of the stretch before that each goes on from; the episode, of the first.
        lane: Long `(plan,)`. Steered for.
        states: After each step, `(plan and future, time, agent)`, futures innermost.
        cost: By term, `(plan, future, time)`.
    """

    parent: Tensor
    lane: Tensor
    states: TrafficState
    cost: dict[str, Tensor]


@dataclass
class Found:
    """All plans that were followed to the horizon.

    Attributes:
        episode: Long `(plan,)`.
        energy: `(plan,)`, lower is better.
        lane: Long `(plan,)`. Steered for now.
        manoeuvre: What each does at its end: its time gap and whether it brakes hold for all of it.
        ends: What each costs beside its way, `(plan,)` by term: its end, its lane changes.
        stretches: From now to the horizon; the last one's plans are these.
    """

    episode: Tensor
    energy: Tensor
    lane: Tensor
    manoeuvre: Manoeuvre
    ends: dict[str, Tensor]
    stretches: list[Stretch]

    def best(self, episodes: int) -> Tensor:
        """The plan of least energy of each episode, long `(episode,)`."""
        return least_of_each(self.episode, self.energy, episodes)

    def way(self, plan: Tensor) -> list[Tensor]:
        """Which row of each stretch led to `plan (n,)`, long `(n,)` each."""
        rows = [plan]
        for stretch in reversed(self.stretches[1:]):
            rows.append(stretch.parent[rows[-1]])
        return rows[::-1]


@dataclass
class _Plans:
    """Plans on their way: `(plan,)` each; their worlds have a row per plan and future, futures innermost."""

    world: World
    episode: Tensor
    first_lane: Tensor
    manoeuvre: Manoeuvre
    changes: Tensor
    cost: Tensor  # (plan, future), so far

    def picked(self, plans: Tensor, futures: int) -> _Plans:
        rows = (plans[:, None] * futures + torch.arange(futures, device=plans.device)).flatten()
        return _Plans(
            self.world.picked(rows),
            self.episode[plans],
            self.first_lane[plans],
            self.manoeuvre[plans],
            self.changes[plans],
            self.cost[plans],
        )


def least_of_each(episode: Tensor, cost: Tensor, episodes: int) -> Tensor:
    """Of plans of `episode (plan,)`, the one of least `cost (plan,)` of each, long `(episodes,)`."""
    order = cost.argsort(descending=True, stable=True)
    best = torch.zeros(episodes, dtype=torch.long, device=order.device)
    best[episode[order]] = order  # the last one written is the least
    return best


class Stubborn:
    """Those who come from behind on another way than the ego's, and do not yield: a future that must stay open.

    They keep their speed, and speed up as they just did for a while. Who is in the ego's way already is not one of
    them: it has seen the ego.

    Args:
        scene: The present, `(episode, agent)`.
        before: One step earlier.
        dt_s: Time step, s.
    """

    def __init__(self, scene: TrafficState, before: TrafficState, dt_s: float) -> None:
        known = scene.valid & before.valid
        self._scene, self._dt_s = scene, dt_s
        self._faster_mps2 = ((scene.speed_mps - before.speed_mps) / dt_s * known).clamp(0.0, MOST_FASTER_MPS2)
        along, left = along_and_left(scene.position_m - scene.position_m[:, :1], scene.direction[:, :1])
        beside = left.abs() > (scene.width_m + scene.width_m[:, :1]) / 2
        self._counts = scene.valid & beside & (along < 0)
        self._counts[:, 0] = False

    def touched(self, ego: TrafficState, episode: Tensor, steps: Tensor) -> Tensor:
        """Bool `(plan, time)`: whether the plan's ego `(plan, time)` is in their way at `steps (time,)` from now."""
        scene, faster = self._scene[episode], self._faster_mps2[episode]
        time_s = (steps * self._dt_s)[:, None]
        gained_s = time_s.clamp_max(FASTER_S)
        way_m = scene.speed_mps[:, None] * time_s + faster[:, None] * gained_s * (time_s - gained_s / 2)
        there = scene.map(lambda values: values[:, None].expand(-1, len(steps), *values.shape[1:]))
        there = replace(there, position_m=there.position_m + there.direction * way_m[..., None])
        apart = separation_m(ego.map(lambda values: values[:, :, None]), there)
        return ((apart < 0.0) & self._counts[episode][:, None]).any(-1)


class ManoeuvreSearch:
    """Beam search: every `branch_every_s` a plan may keep its lane or go for a neighbouring one.

    Each plan is driven by the laws of `Manoeuvre` in the same imagined futures, in which the others answer it, and
    costs the energy of what comes of it. At each choice the `beam` best plans of each episode go on, of plans that have
    come to the same place the best. Full braking in the present lane is always among the plans.

    Overtaking in traffic takes two or three lane changes in a row: plans of one change, however finely timed, do not
    see what they lead to.

    Args:
        config: The search.
        law: How manoeuvres are carried out.
        energy: What plans cost.
        dt_s: Time step, s.
    """

    def __init__(self, config: SearchConfig, law: LawConfig, energy: Energy, dt_s: float) -> None:
        self.config, self.law, self.energy, self.dt_s = config, law, energy, dt_s
        self.steps = max(1, round(config.branch_every_s / dt_s))  # of a stretch
        self.stretches = max(1, round(config.horizon_s / config.branch_every_s))

    def stretch_by_stretch(self, world: World, goal: Goal, bound: Tensor) -> Iterator[Found | None]:
        """Search from `world`, in pieces: None after each stretch of the plans, and after the last what was found.

        Args:
            world: The present, a row per episode and future, futures innermost.
            goal: Of each episode.
            bound: Long `(episode,)`. The lane that each steers for now.
        """
        with torch.no_grad():
            plans, futures = self._begun(world, goal, bound), self.config.futures
            behind = Stubborn(world.scene[::futures], world.before[::futures], self.dt_s)
        found: list[Stretch] = []
        parent = plans.episode
        for number in range(self.stretches):
            with torch.no_grad():
                if number:
                    plans, parent = self._branched(plans, self._pruned(plans))
                plans, stretch = self._drive(plans, goal, number, parent, behind)
            found.append(stretch)
            if number + 1 < self.stretches:
                yield None
        end, changes = self.terminal(plans.world, goal, plans.episode), self.config.change_cost * plans.changes
        energy = self.judged(plans.cost + end) + changes
        ends = {"after": end.mean(1), "changes": changes.to(energy)}
        yield Found(plans.episode, energy, plans.first_lane, plans.manoeuvre, ends, found)

    def keeping(self, goal: Goal, road: Road, lane: Tensor) -> Manoeuvre:
        """Keeping `lane (episode,)` at the first of the time gaps."""
        return keeping(goal, road, lane, self.config.time_gaps_s[0])

    def _begun(self, world: World, goal: Goal, bound: Tensor) -> _Plans:
        """The choices of now: the lane that is steered for, the one that it is on and those beside, and to brake."""
        futures, episodes = self.config.futures, len(bound)
        scene, road = world.scene[::futures], world.road[::futures]
        here = road.project(scene.position_m[:, :1]).lane[:, 0]
        lanes = torch.stack([here, *lanes_open(scene, road, here, self.config.imposed_mps2), bound], 1)
        offered = lanes != NO_LANE
        offered[:, 3] &= (lanes[:, :3] != bound[:, None]).all(1)
        gaps = torch.tensor(self.config.time_gaps_s, device=bound.device, dtype=scene.speed_mps.dtype)
        fastest = wished_mps(goal, road, here)[:, None]
        slower = torch.tensor(self.config.slower_mps, device=bound.device, dtype=scene.speed_mps.dtype)
        wishes = torch.cat([fastest, (scene.speed_mps[:, :1] - slower).clamp_min(0.0).minimum(fastest)], 1)
        speeds = wishes.shape[1]
        count = len(gaps) * speeds
        lanes = torch.cat([lanes.repeat_interleave(count, 1), here[:, None]], 1)
        offered = torch.cat([offered.repeat_interleave(count, 1), torch.ones_like(offered[:, :1])], 1)
        gap = torch.cat([gaps.repeat_interleave(speeds).repeat(4), gaps[:1]]).expand(episodes, -1)
        wish = torch.cat([wishes.repeat(1, 4 * len(gaps)), fastest], 1)
        brakes = torch.zeros_like(offered)
        brakes[:, -1] = True
        episode, option = offered.nonzero(as_tuple=True)
        nothing = scene.speed_mps.new_zeros(episodes, futures)
        lane = lanes[episode, option]
        manoeuvre = Manoeuvre(lane, gap[episode, option], wish[episode, option], brakes[episode, option])
        rows = (episode[:, None] * futures + torch.arange(futures, device=episode.device)).flatten()
        changes = (lane != bound[episode]).long()
        return _Plans(world.picked(rows), episode, lane, manoeuvre, changes, nothing[episode])

    def _drive(
        self, plans: _Plans, goal: Goal, number: int, parent: Tensor, behind: Stubborn
    ) -> tuple[_Plans, Stretch]:
        """One stretch on, and what it costs."""
        world = plans.world
        law = Law(plans.manoeuvre.repeated(self.config.futures), world.road, self.law)
        world.announce(law.manoeuvre.lane)

        def control(step: int) -> Controls:
            return law.controls(world.scene)

        begun = number * self.steps
        terms, states = self.unroll(world, goal, plans.episode, self.steps, control, begun)
        if begun * self.dt_s < self.config.stubborn_s:
            ego = states[:, :, 0].map(lambda values: values[:: self.config.futures])
            terms["stubborn"] = self._in_their_way(ego, behind, plans.episode, begun).expand_as(terms["contact"])
        total = sum(terms.values(), torch.zeros_like(terms["contact"])).sum(2) * self.dt_s
        return replace(plans, cost=plans.cost + total), Stretch(parent, plans.manoeuvre.lane, states, terms)

    def laws(
        self, plan: Manoeuvre, lanes: Tensor, road: Road, begun: int = 0
    ) -> Callable[[int, TrafficState], Controls]:
        """How `plan (row,)` is driven: controls at a step, counted from `begun` steps after the decision, in a scene.

        `lanes (row, stretch)` are steered for one after the other; the last one goes on.
        """
        made: dict[int, Law] = {}

        def control(step: int, scene: TrafficState) -> Controls:
            stretch = min((begun + step) // self.steps, lanes.shape[1] - 1)
            if stretch not in made:
                made[stretch] = Law(replace(plan, lane=lanes[:, stretch]), road, self.law)
            return made[stretch].controls(scene)

        return control

    def unroll(
        self,
        world: World,
        goal: Goal,
        episode: Tensor,
        steps: int,
        control: Callable[[int], Controls],
        begun: int,
    ) -> tuple[dict[str, Tensor], TrafficState]:
        """Drive on in `world`, by `control` of each further step.

        Args:
            world: A row per plan and future, futures innermost.
            goal: Of each episode.
            episode: Long `(plan,)`.
            steps: How many.
            control: Gives the controls `(row,)`; asked as often as the others decide.
            begun: Steps that the plans have driven before.

        Returns:
            The cost by term `(plan, future, step)`, contacts by exact boxes among them; and the states after each step.
        """
        futures = len(world.scene.valid) // len(episode)
        before = first_acceleration = world.first_acceleration
        scenes: list[TrafficState] = []
        controls: list[Controls] = []
        every = world.decide_steps  # as seldom as the others
        for step in range(steps):
            if step % every == 0:
                chosen = self.law.eased(control(step), before, self.dt_s if step == 0 else every * self.dt_s)
                before = chosen.acceleration_mps2
            scenes.append(world.advance(chosen))
            controls.append(chosen)
        states, driven = TrafficState.stack(scenes, 1), Controls.stack(controls, 1)
        of_row = goal[episode.repeat_interleave(futures)]
        terms = self.energy.terms(Trajectory(states, driven, first_acceleration, world.road, of_row, self.dt_s))
        terms["contact"] = self._contact(states, begun)
        shape = (len(episode), futures, steps)
        return {name: cost.view(shape) for name, cost in terms.items()}, states

    @torch.no_grad()
    def _contact(self, states: TrafficState, begun: int) -> Tensor:
        """Cost of touching somebody, `(row, time)`: the nearer in time, the more."""
        config = self.config
        ego_length = states.length_m.clone()
        ego_length[..., 0] += 2 * config.bumper_m
        touches_someone = ego_separation_m(replace(states, length_m=ego_length)).amin(-1) < config.margin_m
        steps = torch.arange(begun + 1, begun + 1 + touches_someone.shape[1], device=states.valid.device)
        weight = 1.0 - 0.5 * steps * self.dt_s / config.horizon_s
        return config.contact_cost * weight * touches_someone

    def _in_their_way(self, ego: TrafficState, behind: Stubborn, episode: Tensor, begun: int) -> Tensor:
        """Cost of running into who does not yield, `(plan, 1, 1)`, spread over the stretch; `ego (plan, time)`."""
        steps = torch.arange(begun + 1, begun + 1 + ego.valid.shape[1], device=ego.valid.device)
        near = steps * self.dt_s <= self.config.stubborn_s + 1e-6
        hit = (behind.touched(ego, episode, steps) & near).any(1, keepdim=True)
        return (hit * self.config.stubborn_cost / (len(steps) * self.dt_s)).to(ego.speed_mps)[:, None]

    def judged(self, cost: Tensor) -> Tensor:
        """Of costs `(plan, future)`: the mean over the worst of them, `(plan,)`. Rockafellar & Uryasev 2000 (CVaR)."""
        worst = max(1, round(self.config.worst_share * cost.shape[1]))
        return cost.topk(worst, 1).values.mean(1) if worst < cost.shape[1] else cost.mean(1)

    def terminal(self, world: World, goal: Goal, episode: Tensor) -> Tensor:
        """What the ends of plans cost, `(plan, future)`: their speed, held on; and the way still to go to the goal."""
        futures = len(world.scene.valid) // len(episode)
        of_row = goal[episode.repeat_interleave(futures)]
        return self.terminal_of(world.scene, world.road, of_row).view(-1, futures)

    def terminal_of(self, scene: TrafficState, road: Road, goal: Goal) -> Tensor:
        """The same of ends `scene (row, agent)` with a goal each, `(row,)`."""
        off = (scene.speed_mps[:, 0] - goal.desired_speed_mps) / 10.0
        cost = self.energy.config.weights.speed * ((off**2 + 0.01).sqrt() - 0.1) * self.config.terminal_s
        there = single_lane(road, goal.lane).project(scene.position_m[:, :1])
        lanes_off = (there.across_m.abs() / there.width_m)[:, 0] * (goal.lane != NO_LANE)
        return cost + self.config.goal_cost * lanes_off

    def _pruned(self, plans: _Plans) -> Tensor:
        """Which plans go on: of each episode the `beam` best, none twice in the same place, and full braking."""
        futures, world = self.config.futures, plans.world
        value = self.judged(plans.cost) + self.config.change_cost * plans.changes
        scene = world.scene[::futures]
        place = (scene.position_m[:, 0, 0] + 1e3 * scene.position_m[:, 0, 1].round()).round().long()
        order = value.argsort(stable=True)
        order = order[plans.episode[order].argsort(stable=True)]  # by episode, the best first
        manoeuvre = plans.manoeuvre
        kind = [(manoeuvre.time_gap_s * 100).long(), (manoeuvre.wish_mps * 100).long(), manoeuvre.brakes.long()]
        what = [plans.episode, manoeuvre.lane, place, plans.first_lane, *kind]
        key = torch.stack(what, 1)[order]
        _, group = torch.unique(key, dim=0, return_inverse=True)
        first = torch.full((int(group.max()) + 1,), len(group), device=order.device)
        first = first.scatter_reduce(0, group, torch.arange(len(group), device=order.device), "amin")
        kept = order[first.sort().values]
        episode = plans.episode[kept]
        begins = torch.searchsorted(episode, episode)  # sorted: where its episode begins
        rank = torch.arange(len(kept), device=kept.device) - begins
        return kept[(rank < self.config.beam) | manoeuvre.brakes[kept]]

    def _branched(self, plans: _Plans, kept: Tensor) -> tuple[_Plans, Tensor]:
        """Each kept plan goes on, and to both sides where it has settled on its lane; and who each goes on from."""
        futures = self.config.futures
        scene, road = (part[::futures][kept] for part in (plans.world.scene, plans.world.road))
        lane = plans.manoeuvre.lane[kept]
        there = single_lane(road, lane).project(scene.position_m[:, :1])
        settled = (there.across_m.abs() < there.width_m / 4)[:, 0] & ~plans.manoeuvre.brakes[kept]
        sides = [
            torch.where(settled, side, NO_LANE) for side in lanes_open(scene, road, lane, self.config.imposed_mps2)
        ]
        options = torch.stack([lane, *sides], 1)
        row, option = (options != NO_LANE).nonzero(as_tuple=True)
        parent = kept[row]
        branched = plans.picked(parent, futures)
        lane = options[row, option]
        changes = branched.changes + (option > 0)
        return replace(branched, manoeuvre=replace(branched.manoeuvre, lane=lane), changes=changes), parent
