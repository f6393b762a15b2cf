"""Claims about concepts in the plane: rules, inference and a short training."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from drivecast.worldmodel.concepts.inference import InferenceConfig
from drivecast.worldmodel.concepts.plane import MOST_ATTENDED, NOBODY, Scenes, attentions, draw_events, held, possible
from drivecast.worldmodel.concepts.plane_energy import (
    PlacingConfig,
    energy_of,
    energy_of_attentions,
    identified,
    inferred_places,
    plane_relations,
    scattered,
    taught,
)
from drivecast.worldmodel.concepts.plane_rules import BY_NAME, CONCEPTS, FRAMES, HELD_OUT, TRAINED
from drivecast.worldmodel.concepts.plane_training import PLANE_MODEL, EventBank, PlaneTrainingConfig, loss_of, train
from drivecast.worldmodel.concepts.relation_energy import RelationEnergy
from drivecast.worldmodel.errors import InputError

SMALL = replace(PLANE_MODEL, hidden=16, relation_dims=8, outputs=4, code_dims=4)
EASY = tuple(name for name in TRAINED if name.startswith(("distance", "together")))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def untrained() -> RelationEnergy:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return RelationEnergy(SMALL)


@pytest.fixture(scope="module")
def every_event():
    """60 events of each concept, by number of frames: drawn at once, for each draw asks all concepts."""
    return {
        frames: draw_events([concept.name for concept in CONCEPTS if concept.frames == frames], 60, seeded())
        for frames in (1, FRAMES)
    }


@pytest.mark.parametrize("concept", CONCEPTS, ids=lambda concept: concept.name)
def test_a_concept_holds_of_its_events_and_rarely_of_scattered_ones(concept, every_event):
    events = every_event[concept.frames]
    events = events[events.concept == BY_NAME[concept.name]]
    assert len(events.concept) == 60
    roles = len(concept.colours)
    alone = events.alone
    assert bool(concept.holds(alone.position[:, :, :roles], alone.colour[:, :roles]).all())
    assert float(events.position.abs().max()) <= 1.0
    moved = scattered(alone, events.moves, seeded(1))
    assert float(concept.holds(moved.position[:, :, :roles], moved.colour[:, :roles]).float().mean()) < 0.4


@pytest.mark.parametrize("name", ["between-red", "inside-red", "offset-45-blue", "together-3-green", "red-then-blue"])
def test_it_does_not_matter_in_which_order_entities_are_named(name):
    concept = CONCEPTS[BY_NAME[name]]
    events = draw_events([name], 30, seeded())
    roles = len(concept.colours)
    turned = events.alone.of(torch.arange(roles).flip(0).expand(30, -1))
    assert bool(concept.holds(turned.position, turned.colour).all())


def test_what_was_attended_to_is_among_the_right_attentions():
    names = ["distance-0.3-red", "line-30", "circle-0.5"]
    events = draw_events(names, 40, seeded())
    own = torch.zeros_like(events.colour, dtype=torch.bool)
    for column in range(MOST_ATTENDED):
        there = events.attended[:, column] != NOBODY
        own[there, events.attended[there, column]] = True
    found = (own[:, None] == attentions()).all(-1)
    assert bool((found & events.positives).any(1).all())
    assert not bool((events.positives & ~possible(events.scenes)).any())
    assert bool(events.also.gather(1, events.concept[:, None]).all())


def test_a_distance_tells_its_neighbours_apart():
    near, far = CONCEPTS[BY_NAME["distance-0.3-red"]], draw_events(["distance-0.45-red"], 60, seeded()).alone
    assert not bool(near.holds(far.position[:, :, :2], far.colour[:, :2]).any())


def test_order_matters_in_time():
    events = draw_events(["red-then-blue"], 60, seeded())
    there, back = (CONCEPTS[BY_NAME[name]] for name in ("red-then-blue", "blue-then-red"))
    alone = events.alone.of(torch.tensor([0, 1, 2]).expand(60, -1))
    assert bool(there.holds(alone.position, alone.colour).all())
    assert not bool(back.holds(alone.position, alone.colour).any())
    assert bool(back.holds(alone.position.flip(1), alone.colour).float().mean() > 0.8)


def test_the_energy_sees_the_order_of_frames():
    """A mean over time would not, but for the time that is said of each pair."""
    events = draw_events(["red-then-blue"], 4, seeded())
    model, alone, code = untrained(), events.alone, torch.zeros(4, SMALL.code_dims)
    flipped = replace(alone, position=alone.position.flip(1))
    change = energy_of(model, alone, code) - energy_of(model, flipped, code)
    assert bool((change.abs() > 1e-6).all())


def test_the_energy_is_the_same_anywhere_and_in_any_order():
    events = draw_events(["between-red", "line-30"], 4, seeded())
    model, alone = untrained(), events.alone
    code = torch.randn(8, SMALL.code_dims, generator=seeded())
    energy = energy_of(model, alone, code)
    shifted = replace(alone, position=alone.position + torch.tensor([0.3, -0.2]))
    torch.testing.assert_close(energy_of(model, shifted, code), energy, rtol=1e-4, atol=1e-5)
    turned = alone.of(torch.tensor([3, 1, 0, 2]).expand(8, -1))
    torch.testing.assert_close(energy_of(model, turned, code), energy, rtol=1e-4, atol=1e-5)


def test_whoever_is_not_attended_to_does_not_count():
    events = draw_events(["between-red"], 6, seeded())
    model, code = untrained(), torch.randn(6, SMALL.code_dims, generator=seeded())
    own = torch.zeros(6, events.colour.shape[1])
    own.scatter_(1, events.attended[:, :3], 1.0)
    pairs, counts = plane_relations(events.scenes)
    whole = model(pairs, counts, own, code)
    torch.testing.assert_close(whole, energy_of(model, events.alone, code), rtol=1e-4, atol=1e-5)


def test_the_gradient_of_positions_is_that_of_finite_differences():
    events = draw_events(["between-red"], 1, seeded())
    model = untrained().double()
    alone = events.alone.map(lambda values: values.double() if values.is_floating_point() else values)
    code = torch.randn(1, SMALL.code_dims, generator=seeded()).double()

    def energy(position: torch.Tensor) -> torch.Tensor:
        return energy_of(model, replace(alone, position=position), code)

    assert torch.autograd.gradcheck(energy, alone.position[:, :, :].clone().requires_grad_(True), atol=1e-6)


def test_a_loss_reaches_every_weight_through_the_inference_of_the_code():
    bank = EventBank(["distance-0.3-red", "between-red"], 8, seeded())
    model = untrained()
    demonstrations, _ = bank.task(0, torch.tensor([0, 1]), 3, seeded())
    code = taught(model, demonstrations, 3, InferenceConfig(code_steps=3), differentiable=True)
    code.square().sum().backward()
    for name, weights in model.named_parameters():
        assert weights.grad is not None, name
        assert bool((weights.grad != 0).any()), name


def test_codes_of_a_concept_are_those_of_less_energy():
    bank = EventBank(["distance-0.3-red", "between-red"], 8, seeded())
    model = untrained()
    demonstrations, _ = bank.task(0, torch.tensor([0, 1]), 3, seeded())
    code = taught(model, demonstrations, 3, InferenceConfig(code_pull=0.0))
    assert code.shape == (2, SMALL.code_dims)
    before = energy_of(model, demonstrations, torch.zeros(6, SMALL.code_dims)).view(2, 3).mean(1)
    after = energy_of(model, demonstrations, code.repeat_interleave(3, 0)).view(2, 3).mean(1)
    assert bool((after < before).all())


def test_placing_lowers_the_energy_and_moves_only_those_who_move():
    events = draw_events(["between-red"], 12, seeded())
    model, code = untrained(), torch.randn(12, SMALL.code_dims, generator=seeded())
    start = scattered(events.alone, events.moves, seeded(1))
    made = inferred_places(model, start, events.moves, code, PlacingConfig(steps=30, step=0.1, noise=0.0))
    change = energy_of(model, made, code) - energy_of(model, start, code)
    assert bool(change.mean() < 0.0)
    still = ~events.moves
    torch.testing.assert_close(made.position[:, 0][still], start.position[:, 0][still])
    assert bool((made.position[:, 0] != start.position[:, 0]).any(-1)[events.moves].all())


def test_the_sampler_s_term_learns_through_its_steps_alone():
    """Weights are frozen where its energy is read: with samplers that pass no gradient on, nothing would be learned."""
    bank = EventBank(["distance-0.3-red", "distance-0.6-red"], 8, seeded())
    model = untrained()
    demonstrations, query = bank.task(0, torch.tensor([0, 1]), 2, seeded())
    config = PlaneTrainingConfig()
    parts = loss_of(model, demonstrations, query, 2, config, seeded(1))
    weights = list(model.parameters())
    through = torch.autograd.grad(parts["sampler"], weights, allow_unused=True)
    assert any(gradient is not None and bool((gradient != 0).any()) for gradient in through)
    still = replace(config, placing=PlacingConfig(step=0.0))
    parts = loss_of(model, demonstrations, query, 2, still, seeded(1))
    through = torch.autograd.grad(parts["sampler"], weights, allow_unused=True)
    assert all(gradient is None or not bool((gradient != 0).any()) for gradient in through)


def test_a_scene_needs_those_attended_to():
    events = draw_events(["together-2-red"], 5, seeded())
    few = Scenes(events.position, torch.where(torch.arange(8) < 2, 0, NOBODY).expand(5, -1))
    model, code = untrained(), torch.zeros(5, SMALL.code_dims)
    energy = energy_of_attentions(model, few, code)
    assert int((energy < 1e3).sum(1).max()) == 1  # one pair of two entities
    assert not bool(held(CONCEPTS[BY_NAME["together-3-red"]], few).any())


def test_unknown_concepts_and_mixed_frames_are_refused():
    with pytest.raises(InputError, match="got nowhere"):
        draw_events(["nowhere"], 2, seeded())
    with pytest.raises(InputError, match="number of frames"):
        draw_events(["between-red", "red-then-blue"], 2, seeded())
    assert CONCEPTS[BY_NAME["red-then-blue"]].frames == FRAMES


def test_no_held_out_concept_is_trained():
    assert not set(HELD_OUT) & set(TRAINED)
    assert {*HELD_OUT, *TRAINED} == set(BY_NAME)
    assert len(BY_NAME) == len(CONCEPTS)


@pytest.fixture(scope="module")
def short_training():
    config = PlaneTrainingConfig(steps=50, batch=12, events=40)
    return config, train(config, 0, EASY, replace(PLANE_MODEL, hidden=32))


def test_a_short_training_identifies_above_chance(short_training):
    config, model = short_training
    bank, generator = EventBank(EASY, 16, seeded(5)), seeded(6)
    concepts = torch.arange(len(EASY)).repeat_interleave(8)
    demonstrations, events = bank.task(0, concepts, 3, generator)
    code = taught(model, demonstrations, 3, config.inference)
    least = energy_of_attentions(model, events.scenes, code).argmin(1)
    right = float(events.positives[torch.arange(len(least)), least].float().mean())
    chance = float((events.positives.sum(1) / possible(events.scenes).sum(1)).mean())
    assert right > 0.5 > 5 * chance
    mask = identified(model, events.scenes, code, config.inference, 2, generator)
    assert bool(((mask >= 0) & (mask <= 1)).all())
    assert not bool((mask[events.colour == NOBODY] > 0).any())


def test_a_short_training_places_more_than_chance(short_training):
    config, model = short_training
    names = [name for name in EASY if name.startswith("distance")]
    bank, generator = EventBank(names, 24, seeded(7)), seeded(8)
    concepts = torch.arange(len(names)).repeat_interleave(16)
    demonstrations, events = bank.task(0, concepts, 3, generator)
    code = taught(model, demonstrations, 3, config.inference)
    start = scattered(events.alone, events.moves, generator)
    made = inferred_places(model, start, events.moves, code, PlacingConfig(steps=30, step=0.15), generator)

    def share(scenes: Scenes) -> float:
        fine = [
            CONCEPTS[number].holds(scenes.position[row : row + 1, :, :2], scenes.colour[row : row + 1, :2])
            for row, number in enumerate(events.concept.tolist())
        ]
        return float(torch.cat(fine).float().mean())

    assert share(made) > 0.6 > 5 * share(start)


def test_training_is_the_same_twice():
    config = PlaneTrainingConfig(steps=2, batch=4, events=10)
    one, other = (train(config, 3, EASY, SMALL) for _ in range(2))
    for first, second in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(first, second)
