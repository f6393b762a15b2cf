"""Claims about the scores of sampled forecasts."""

import pytest
import torch

from drivecast.worldmodel.energy.scoring import fair_crps, fair_energy_score, rank_of_truth, region_coverage


def test_the_crps_of_normal_samples_is_that_of_the_normal_distribution_for_any_number_of_samples():
    torch.manual_seed(0)
    truth = torch.linspace(-2, 2, 5).double()
    standard = torch.distributions.Normal(0.0, 1.0)
    density = standard.log_prob(truth).exp()
    expected = truth * (2 * standard.cdf(truth) - 1) + 2 * density - torch.pi**-0.5  # Gneiting & Raftery 2007, p. 367
    for count in (2, 5, 20):
        samples = torch.randn(count, 40_000, 5).double()
        scores = fair_crps(samples, truth.expand(40_000, 5)).mean(0)
        torch.testing.assert_close(scores, expected, atol=0.02, rtol=0)


def test_the_energy_score_of_one_dimension_is_the_crps():
    torch.manual_seed(1)
    samples, truth = torch.randn(7, 11), torch.randn(11)
    torch.testing.assert_close(fair_energy_score(samples[..., None], truth[..., None]), fair_crps(samples, truth))


def test_the_energy_score_of_a_scene_tells_whether_its_parts_fit_together():
    """Same marginals, but the truth's parts move together: so should those of the samples."""
    torch.manual_seed(2)
    truth = torch.randn(4_000, 1).expand(-1, 6)
    together = torch.randn(12, 4_000, 1).expand(-1, -1, 6)
    apart = torch.randn(12, 4_000, 6)
    assert fair_energy_score(together, truth).mean() < fair_energy_score(apart, truth).mean() - 0.05
    crps = [float(fair_crps(samples, truth).mean()) for samples in (together, apart)]
    assert crps[0] == pytest.approx(crps[1], abs=0.03)


def test_scores_are_lowest_for_the_right_spread():
    torch.manual_seed(3)
    truth, noise = torch.randn(20_000), torch.randn(8, 20_000)
    scores = [float(fair_crps(spread * noise, truth).mean()) for spread in (0.5, 1.0, 2.0)]
    assert scores[1] < min(scores[0], scores[2]) - 0.02


def test_ranks_of_a_calibrated_forecast_are_uniform_and_regions_hold_what_they_should():
    torch.manual_seed(4)
    ranks = torch.bincount(rank_of_truth(torch.randn(20, 100_000), torch.randn(100_000)), minlength=21)
    assert ranks.min() > 0.9 * 100_000 / 21
    for share in (0.5, 0.8, 0.95):
        covered, ideal = region_coverage(ranks.double(), share)
        assert float(covered) == pytest.approx(ideal, abs=0.01)
        assert ideal == pytest.approx(share, abs=0.05)
    narrow = torch.bincount(rank_of_truth(0.5 * torch.randn(20, 100_000), torch.randn(100_000)), minlength=21)
    covered, ideal = region_coverage(narrow.double(), 0.8)
    assert float(covered) < ideal - 0.2


def test_samples_equal_to_the_truth_count_half_as_below():
    assert int(rank_of_truth(torch.zeros(4, 1), torch.zeros(1))) == 2
