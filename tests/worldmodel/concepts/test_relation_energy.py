"""The energy of a concept: of whom it is, not of the order in which they stand; low where it was shown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from moving_entities import entities, moving
from traffic_scenes import platoon_store

from drivecast.worldmodel.concepts.demonstrations import labelled, stretches
from drivecast.worldmodel.concepts.ego_drive import driven, fitted
from drivecast.worldmodel.concepts.examination import examined, recognised
from drivecast.worldmodel.concepts.inference import InferenceConfig, inferred_drive, inferred_mask
from drivecast.worldmodel.concepts.loading import ConceptModel, TaughtConcept, load_concepts
from drivecast.worldmodel.concepts.objective import Tasks, energy_of, loss_of, taught
from drivecast.worldmodel.concepts.relation_energy import RelationEnergy, RelationEnergyConfig
from drivecast.worldmodel.concepts.rivals import DirectClassifier, by_nearest, summary, trained
from drivecast.worldmodel.concepts.rules import RULES, Rule, Standing
from drivecast.worldmodel.concepts.teaching import Demonstration, taught_concept
from drivecast.worldmodel.concepts.trainer import ConceptTrainer, ConceptTrainingConfig
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.scene.entities import FRAME_S
from drivecast.worldmodel.scene.relations import ego_relations

SMALL = RelationEnergyConfig(code_dims=6, hidden=24, relation_dims=12, outputs=6)
CARS = ((0.0, 0.0, 20.0, 0.0), (30.0, 0.0, 18.0, 0.0), (-25.0, 4.0, 21.0, 4.0), (12.0, -4.0, 20.0, -4.0))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return RelationEnergy(SMALL).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return platoon_store(tmp_path_factory.mktemp("platoons"))


def test_energy_does_not_depend_on_the_order_of_the_others(model):
    found, code = entities(*CARS), torch.randn(1, 6, generator=torch.Generator().manual_seed(1))
    mixed = found.entities(torch.tensor([[3, 1, 2]]))
    torch.testing.assert_close(energy_of(model, found, code), energy_of(model, mixed, code))


def test_who_is_not_attended_to_does_not_matter(model):
    code = torch.randn(1, 6, generator=torch.Generator().manual_seed(1))
    near, far = entities(*CARS), entities(*CARS[:2], (90.0, 4.0, 30.0, 4.0), CARS[3])
    attention = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    one, two = (model(*ego_relations(each), attention, code) for each in (near, far))
    torch.testing.assert_close(one, two)
    assert not torch.allclose(one, model(*ego_relations(near), torch.ones(1, 4), code))


def test_a_longer_stretch_of_the_same_has_the_same_energy(model):
    steady = entities(*[(x, y, 20.0, y) for x, y, _, _ in CARS])
    code = torch.randn(1, 6, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        energy_of(model, steady, code), energy_of(model, steady.frames(0, 5), code), atol=1e-4, rtol=1e-4
    )


def test_gradient_of_the_energy_through_the_drive_is_that_of_finite_differences():
    torch.manual_seed(0)
    model = RelationEnergy(SMALL).double()
    found = entities(*CARS).map(lambda values: values.double() if values.is_floating_point() else values)
    start, knots = fitted(found)
    code = torch.randn(1, 6, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda each: energy_of(model, driven(found, start, each), code), knots.requires_grad_()
    )


def test_the_gradient_flows_through_the_inference_of_a_code_only_where_it_is_asked_to(model):
    found = entities(*CARS).entities(torch.tensor([[1, -1]]))
    for differentiable in (True, False):
        network = RelationEnergy(SMALL)
        code = taught(network, found, 1, InferenceConfig(), differentiable=differentiable)
        assert code.requires_grad == differentiable
    assert torch.equal(taught(model, found, 1, InferenceConfig()), taught(model, found, 1, InferenceConfig()))


def test_an_inferred_code_fits_its_demonstrations_better_than_none(model):
    found = entities(*CARS).entities(torch.tensor([[1, -1]]))
    code = taught(model, found, 1, InferenceConfig())
    assert float(energy_of(model, found, code)) < float(energy_of(model, found, torch.zeros_like(code)))


def test_an_inferred_drive_comes_to_rest_near_the_least_energy():
    wanted = torch.tensor([[[1.0, -0.5]] * 5, [[-2.0, 0.0]] * 5])
    config = InferenceConfig(drive_noise_mps2=0.0, drive_pull=0.0)
    found = inferred_drive(lambda knots: (knots - wanted).square().sum((1, 2)), torch.zeros(2, 5, 2), config, steps=20)
    assert float((found - wanted).abs().max()) < 0.25


def test_an_inferred_mask_attends_to_whom_the_energy_is_lowest_of():
    found = following()
    pairs, counts = ego_relations(entities(*CARS))
    code = torch.zeros(1, 6)
    relations = found.energy.relations(pairs, counts, code)

    def energy(attention):  # of somebody: the attention of all others sums to one
        share = attention[:, 1:] / attention[:, 1:].sum(1, keepdim=True)
        return found.energy.judged(relations, torch.cat([attention[:, :1], share], 1), code)

    attention = inferred_mask(energy, torch.zeros(1, 4), InferenceConfig())
    assert int(attention[0, 1:].argmax()) == 0
    assert bool(((attention >= 0) & (attention <= 1)).all())


def test_every_part_of_the_loss_reaches_the_weights(store):
    found = labelled(stretches([store], "train", 400, torch.Generator().manual_seed(0)))
    tasks = Tasks(found, found.names, 2)
    torch.manual_seed(0)
    network = RelationEnergy(SMALL)
    task = tasks.draw(6, 2, torch.Generator().manual_seed(1), 6)
    config = ConceptTrainingConfig()
    for part in ("masks", "concepts", "shifted", "drives", "sampler"):
        network.zero_grad()
        parts = loss_of(network, task, 2, config.objective, config.inference, torch.Generator().manual_seed(2))
        parts[part].backward()
        reached = sum(float(each.grad.abs().sum()) for each in network.parameters() if each.grad is not None)
        assert reached > 0 or part == "sampler", part  # the sampler's energy is of frozen weights, through its steps
        assert bool(torch.isfinite(parts["loss"]))


def test_what_a_short_training_learned_is_who_is_meant(store, tmp_path):
    """Identification from two demonstrations, on recordings that were not trained on; a random network guesses."""
    learned = ("left-of-behind", "right-of-ahead", "right-of-level")
    config = ConceptTrainingConfig(
        steps=80,
        batch=8,
        shots=2,
        stretches=600,
        validation_tasks=16,
        learning_rate=5e-3,
        held_out=tuple(rule.name for rule in RULES if rule.name not in learned),
        validate_every=50,
    )
    trainer = ConceptTrainer(SMALL, config, [store], tmp_path)
    names = tuple(name for name in trainer.tasks.names)
    torch.manual_seed(5)

    def right(network):
        found = examined(network, trainer.unseen, names, 2, 16, config.inference, 3)
        return sum(each.identified for each in found.values()) / len(found)

    before = right(RelationEnergy(SMALL))
    trainer.train(lambda *_: None)
    assert right(load_concepts(tmp_path).energy) > max(before, 0.5)


def test_resume_is_bit_exact(store, tmp_path):
    config = ConceptTrainingConfig(
        steps=4, batch=4, shots=1, stretches=200, validate_every=2, validation_tasks=4, checkpoint_every=2
    )
    whole = ConceptTrainer(SMALL, config, [store], tmp_path / "whole")
    whole.train(lambda *_: None)
    cut = ConceptTrainer(SMALL, config, [store], tmp_path / "cut")
    for _ in range(2):
        cut.optimisation._advance(cut._step, cut._validate, "val", lambda *_: None, lambda *_: None)
    again = ConceptTrainer(SMALL, config, [store], tmp_path / "cut")
    assert again.resume() == 2
    again.train(lambda *_: None)
    for one, two in zip(whole.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(one, two)


def test_a_store_without_concepts_is_refused_in_one_line(store, tmp_path):
    config = ConceptTrainingConfig(held_out=tuple(rule.name for rule in RULES))
    with pytest.raises(InputError, match="none of the concepts often enough"):
        ConceptTrainer(SMALL, config, [store], tmp_path)


def test_labels_say_of_whom_a_rule_holds():
    found = labelled(entities((0.0, 0.0, 20.0, 0.0), (37.0, 0.0, 20.0, 0.0), (2.0, 4.0, 20.0, 4.0)))
    named = {found.names[concept]: about.tolist() for concept, about in zip(found.concept, found.about, strict=True)}
    assert named["follow-1.6"] == [1, -1]
    assert named["right-of-level"] == [2, -1]
    assert "follow-0.8" not in named
    assert "left-of-level" not in named


def test_rivals_learn_from_the_same_tasks(store):
    found = labelled(stretches([store], "train", 600, torch.Generator().manual_seed(0)))
    unseen = labelled(stretches([store], "val", 300, torch.Generator().manual_seed(1)))
    tasks = Tasks(found, found.names, 2)
    torch.manual_seed(0)
    direct = DirectClassifier()
    trained(direct, tasks, 60, 2, 0, batch=12)
    spread = summary(unseen.entities)[:, 1:].flatten(0, 1).std(0) + 0.05
    for recognise in (direct.recogniser(), by_nearest(spread)):
        rows = recognised(recognise, unseen, tasks.names, 2, 16, 0)
        assert sum(row.identified for row in rows.values()) > sum(row.by_chance for row in rows.values())


# ---- teaching ---------------------------------------------------------------------------------------------------


def following() -> ConceptModel:
    """A model whose energy is how far the other one is from 30 m ahead on the same lane, whatever the code."""

    class Thirty(RelationEnergy):
        def relations(self, pairs, counts, code):
            apart = (pairs[..., :1] * 20.0 - 30.0).square() / 100.0 + pairs[..., 5:6].square()
            weight = counts.to(pairs)[..., None]
            value = (apart * weight).sum(1) / weight.sum(1).clamp_min(1.0)
            return value.expand(*value.shape[:-1], self.config.relation_dims)

        def judged(self, relations, attention, code):
            of_pairs = torch.einsum("bjr,b...j->b...r", relations[:, 0, 1:], attention[..., 1:]).mean(-1)
            return of_pairs + code.square().sum(-1).view(-1, *[1] * (of_pairs.dim() - 1))

    return ConceptModel(Path("here"), "here", Thirty(SMALL), InferenceConfig(), (), (), "0")


def test_whom_a_demonstration_is_about_is_found_where_nobody_says_so():
    states, road = moving(*CARS)
    shown = Demonstration(states, road, FRAME_S)
    concept, fits = taught_concept(following(), [shown], "follow", ["shown"])
    assert fits[0].about == (1,)
    assert fits[0].higher == 1.0
    assert concept.attends_to == 1
    assert len(concept.code) == 6


def test_whom_several_demonstrations_are_about_is_found_one_after_the_other():
    orders = ([0, 1, 2, 3], [0, 2, 1, 3], [0, 3, 2, 1], [0, 2, 3, 1], [0, 1, 3, 2])
    shown = []
    for order in orders:
        states, road = moving(*[CARS[number] for number in order])
        shown.append(Demonstration(states, road, FRAME_S))
    _, fits = taught_concept(following(), shown, "follow", ["shown"] * 5)
    assert [fit.about for fit in fits] == [(order.index(1),) for order in orders]


@pytest.mark.parametrize("frames", [(0, 4), (0, 16)])
def test_a_stretch_that_is_too_short_or_about_somebody_far_away_is_refused(frames):
    states, road = moving(CARS[0], (400.0, 0.0, 20.0, 0.0))
    shown = Demonstration(states[:, frames[0] : frames[1]], road, FRAME_S, (1,))
    with pytest.raises(InputError, match=r"1 to 6 s|within 100 m"):
        taught_concept(following(), [shown], "far", ["shown"])


def test_what_is_said_of_whom_it_is_about_counts():
    states, road = moving(*CARS)
    _, fits = taught_concept(following(), [Demonstration(states, road, FRAME_S, (3,))], "other", ["shown"])
    assert fits[0].about == (3,)
    assert fits[0].higher < 1.0


def test_a_concept_s_file_is_read_as_it_was_written(tmp_path):
    concept = TaughtConcept("follow", torch.tensor([0.5, -1.25]), 2, "m", "d", ("a@0-3",), 0.125)
    concept.write(tmp_path / "follow.json")
    again = TaughtConcept.read(tmp_path / "follow.json")
    assert torch.equal(again.code, concept.code)
    assert replace(again, code=concept.code) == concept


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not readable as a concept"),
        ("[1, 2]", "no concept"),
        ('{"format": "drivecast concept", "format_version": 9}', "format 9"),
        ('{"format": "drivecast concept", "format_version": 1}', "'code' is missing"),
        (
            '{"format": "drivecast concept", "format_version": 1, "code": [NaN], "attends_to": 1, "name": "",'
            ' "model": "", "digest": "", "demonstrations": [], "energy": 0}',
            "must be finite",
        ),
    ],
)
def test_a_damaged_concept_is_refused_in_one_line(tmp_path, text, says):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(InputError, match=says) as refused:
        TaughtConcept.read(tmp_path / "c.json")
    assert "\n" not in str(refused.value)


def test_every_rule_is_judged_of_everybody():
    standing = Standing.of(entities(*CARS))
    for rule in RULES:
        assert isinstance(rule, Rule)
        assert rule.holds(standing).shape == (1, 4)
        assert rule.violation(standing).shape == (1, 16, 4)
        assert bool(rule.violation(standing).isfinite().all())
