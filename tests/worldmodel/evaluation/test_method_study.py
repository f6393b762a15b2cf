"""Claims about how energies of futures are examined, and about the study of all methods."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from traffic_scenes import platoon_store

from drivecast.scripts.tools.energy_methods import main
from drivecast.worldmodel.energy_methods.gaussian import GaussianEnergy
from drivecast.worldmodel.energy_methods.langevin import LangevinConfig
from drivecast.worldmodel.energy_methods.methods import BY_NAME
from drivecast.worldmodel.energy_methods.recorded_examples import recorded_examples
from drivecast.worldmodel.energy_methods.training import MethodTrainingConfig, train
from drivecast.worldmodel.evaluation import method_exam, method_study
from drivecast.worldmodel.evaluation.corruptions import CORRUPTIONS
from drivecast.worldmodel.evaluation.method_exam import (
    OF_ANOTHER,
    Exam,
    energies,
    exam_of,
    is_impossible,
    landscape,
    mild,
    sample_quality,
    sampled,
    summary,
    told_apart,
)
from drivecast.worldmodel.recordings.store import WindowStore

HORIZON_S = 2.0


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> WindowStore:
    return platoon_store(tmp_path_factory.mktemp("platoons") / "store")


@pytest.fixture(scope="module")
def exam(store) -> Exam:
    _, coordinates = recorded_examples(store, "train", HORIZON_S, 400, 0, None)
    return exam_of(store, "test", HORIZON_S, coordinates, 60, 0)


def test_each_gross_corruption_stands_there_whole_and_by_a_tenth(exam):
    for corruption in CORRUPTIONS:
        rows, spoilt = exam.corrupted[corruption.name]
        if corruption.is_gross:
            same, tenth = exam.corrupted[mild(corruption.name)]
            assert torch.equal(rows, same)
            own = exam.recorded.future[rows]
            torch.testing.assert_close(own + 0.1 * (spoilt - own), tenth, atol=1e-3, rtol=1e-3)
    rows, others = exam.corrupted[OF_ANOTHER]
    assert torch.equal(others.sort(0).values, exam.recorded.future[rows].sort(0).values)


def test_a_gaussian_finds_gross_corruptions_and_not_whose_future_it_is(exam):
    told = told_apart(GaussianEnergy(), exam)
    assert told[OF_ANOTHER]["auroc"] == pytest.approx(0.5)
    means = summary(told)
    assert means["gross"] > 0.95
    assert means["gross"] >= means["mild"] > 0.6
    assert means["all"] == pytest.approx((means["gross"] + means["mild"] + means["another"]) / 3)


def test_a_latent_model_learns_whose_future_it_is(exam, store):
    examples, _ = recorded_examples(store, "train", HORIZON_S, 400, 0, exam.coordinates)
    kind = BY_NAME["latent"]
    method = kind.seeded(exam.coordinates, 1.0, 0)
    train(method, examples, MethodTrainingConfig(steps=150), seed=0)
    for by_beta in (False, True):
        assert told_apart(method, exam, by_beta)[OF_ANOTHER]["paired"] > 0.65


def test_the_truth_is_a_perfect_sample_and_worse_ones_score_worse(exam):
    truth = exam.path_m[:, None].expand(-1, 3, -1, -1)
    best = sample_quality(truth, exam)
    assert best["min_ade_m"] == best["ade_m"] == best["energy_score_m"] == 0.0
    worse = sample_quality(truth + torch.tensor([3.0, 4.0]), exam)
    assert worse["ade_m"] == pytest.approx(5.0, rel=1e-4)
    one_right = sample_quality(torch.cat([truth[:, :1], truth[:, :1] + 3.0], 1), exam)
    assert one_right["min_ade_m"] == 0.0 < one_right["ade_m"]


def test_leaving_the_road_and_overlapping_are_impossible(exam):
    past, own = exam.recorded.past, exam.path_m[:, None]
    assert not bool(is_impossible(own, past).any())
    left = own + torch.stack([torch.zeros(len(own)), past.edge_m[:, 0] + 10.0], -1)[:, None, None]
    assert bool(is_impossible(left, past).all())
    with_other = past.other_valid[:, 0]
    onto = past.other_path_m[:, None, :, 0]
    assert bool(is_impossible(onto, past)[with_other].all())
    nobody = replace(past, other_valid=torch.zeros_like(past.other_valid))
    assert float(is_impossible(onto, nobody).double().mean()) < 1.0


def test_samples_of_a_gaussian_are_as_wide_as_the_data(exam):
    """Langevin steps from E = |u|² / 2 end where they began: at mean 0 and spread 1."""
    path = sampled(GaussianEnergy(), exam, 1.0, 0)
    assert path.shape == (len(exam.recorded), 6, 10, 2)
    past = exam.recorded.past
    vector = exam.coordinates.vector(path, past)
    assert float(vector.std()) == pytest.approx(1.0, abs=0.1)
    cold = exam.coordinates.vector(sampled(GaussianEnergy(), exam, 0.1, 0), past)
    assert float(cold.std()) < 0.6


def test_the_landscape_is_the_energy_of_paths_that_bend_away(exam):
    past = exam.recorded.past[torch.tensor([0])]
    ends = torch.tensor([[0.0, 0.0], [6.0, 0.0], [0.0, 3.0]])
    found = landscape(GaussianEnergy(), past, exam.coordinates, ends)
    time = torch.arange(1, 11) / 10
    path = past.velocity_mps * 0.2 * torch.arange(1, 11)[:, None] + ends[:, None] * time[:, None].square()
    vector = exam.coordinates.vector(path[None], past)[0]
    torch.testing.assert_close(found, vector.square().sum(-1) / 2, rtol=1e-3, atol=1e-3)


def test_energies_of_all_examples_are_those_one_by_one(exam):
    method = BY_NAME["InfoNCE"].seeded(exam.coordinates, 0.5, 0)
    whole = energies(method, exam.recorded.past, exam.recorded.future)
    rows = torch.tensor([5, 9])
    torch.testing.assert_close(energies(method, exam.recorded.past[rows], exam.recorded.future[rows]), whole[rows])


def test_the_tool_makes_tables_and_figures_and_goes_on_where_it_stopped(store, tmp_path, capsys, monkeypatch):
    few = tuple(BY_NAME[name] for name in ("InfoNCE", "latent"))
    monkeypatch.setattr(method_study, "METHODS", few)
    monkeypatch.setattr(method_exam, "SAMPLING", LangevinConfig(5, 0.1, 0.005))
    arguments = ["--data", str(store.directory), "--output", str(tmp_path), "--horizon-s", "1", "--other-horizons-s"]
    arguments += ["--seeds", "1", "--effort", "0.001", "--examples", "200", "--plan-scenes", "0"]
    arguments += ["--vehicles", "20", "--sampled", "10"]
    assert main(arguments) == 0
    first = capsys.readouterr()
    assert "| latent, F_inf |" in first.out
    assert (tmp_path / "landscapes.png").stat().st_size > 10_000
    assert main(arguments) == 0
    again = capsys.readouterr()
    assert again.out == first.out
    assert "validation" in first.err
    assert "validation" not in again.err
    assert main([*arguments, "--examples", "300"]) == 2
    assert "another study" in capsys.readouterr().err
