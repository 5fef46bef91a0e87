"""Intervals against SciPy, landmarks of curves by hand, and every word of a verdict."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from nnjax.statistics import (
    Interval,
    Peak,
    interior_peak,
    interval_verdict,
    resampled_t_interval,
    share_interval,
    standard_error,
    t_interval,
    verdict,
)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.999])
@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_t_interval_is_scipys(n, level):
    samples = np.random.default_rng(n).normal(3, 2, (n, 4))
    expected = scipy.stats.t.interval(level, n - 1, samples.mean(0), scipy.stats.sem(samples))
    made = t_interval(samples, level)
    np.testing.assert_allclose(made.mean, samples.mean(0), rtol=1e-14)
    np.testing.assert_allclose(made.low, expected[0], rtol=1e-12)
    np.testing.assert_allclose(made.high, expected[1], rtol=1e-12)
    np.testing.assert_allclose(standard_error(samples), scipy.stats.sem(samples), rtol=1e-14)
    turned = t_interval(samples.T, level, axis=1)
    np.testing.assert_allclose(turned, made, rtol=1e-14)


@pytest.mark.parametrize(("n", "level"), [(3, 0.95), (5, 0.9), (20, 0.95)])
def test_coverage_is_the_level(n, level):
    repeats = 20_000
    made = t_interval(np.random.default_rng(0).normal(1.5, 7, (n, repeats)), level)
    share = np.mean((made.low < 1.5) & (made.high > 1.5))
    assert abs(share - level) < 4 * np.sqrt(level * (1 - level) / repeats)


def test_one_sample_has_no_interval_and_none_is_an_error():
    made = t_interval(np.array([[1.0, 2.0]]))
    np.testing.assert_array_equal(made.mean, [1, 2])
    assert np.isnan(made.low).all()
    assert np.isnan(made.high).all()
    assert made.low.shape == (2,)
    assert np.isnan(t_interval([3.0]).low)
    assert np.isnan(standard_error([3.0]))
    assert standard_error(np.ones((1, 2, 3)), axis=0).shape == (2, 3)
    with pytest.raises(ValueError, match="at least one sample"):
        t_interval([])
    for level in (0, 1, -0.1, 95, np.nan):
        with pytest.raises(ValueError, match="between 0 and 1"):
            t_interval([1.0, 2.0], level)


def test_missing_samples_are_not_hidden():
    made = t_interval(np.array([[1.0, 1.0], [2.0, np.nan], [3.0, 3.0]]))
    assert np.isnan([value[1] for value in made]).all()
    assert np.isfinite([value[0] for value in made]).all()


def test_an_interval_is_written_with_four_digits():
    assert str(Interval(0.5, 0.123456, 1234.56)) == "[0.1235, 1235]"
    assert str(t_interval([1.0])) == "[nan, nan]"


@pytest.mark.parametrize(
    ("low", "high", "limits", "word"),
    [
        (0.1, 0.4, {"below": 0.5}, "holds"),
        (0.1, 0.5, {"below": 0.5}, "open"),  # a limit that is reached is not kept
        (0.4, 0.6, {"below": 0.5}, "open"),
        (0.5, 0.6, {"below": 0.5}, "fails"),
        (0.6, 0.7, {"below": 0.5}, "fails"),
        (0.1, 0.4, {"above": 0.0}, "holds"),
        (0.0, 0.4, {"above": 0.0}, "open"),
        (-0.1, 0.4, {"above": 0.0}, "open"),
        (-0.4, 0.0, {"above": 0.0}, "fails"),
        (0.0, 0.0, {"above": 0.0}, "fails"),  # equal in every sample
        (-0.4, -0.1, {"above": 0.0}, "fails"),
        (-0.4, 0.4, {"above": -0.5, "below": 0.5}, "holds"),
        (-0.6, 0.4, {"above": -0.5, "below": 0.5}, "open"),
        (-0.6, 0.6, {"above": -0.5, "below": 0.5}, "open"),
        (-0.7, -0.5, {"above": -0.5, "below": 0.5}, "fails"),
        (0.5, 0.7, {"above": -0.5, "below": 0.5}, "fails"),
        (np.nan, np.nan, {"below": 0.5}, "open"),
        (np.nan, np.nan, {"above": -0.5, "below": 0.5}, "open"),
    ],
)
def test_verdicts_of_an_interval(low, high, limits, word):
    assert interval_verdict(Interval(np.asarray(0.0), np.asarray(low), np.asarray(high)), **limits) == word
    turned = {{"above": "below", "below": "above"}[name]: -limit for name, limit in limits.items()}
    assert interval_verdict(Interval(np.asarray(0.0), np.asarray(-high), np.asarray(-low)), **turned) == word


@pytest.mark.parametrize("limits", [{}, {"above": 1.0, "below": 1.0}, {"above": 1.0, "below": 0.0}, {"below": np.nan}])
def test_an_interval_needs_a_limit_to_be_judged_by(limits):
    with pytest.raises(ValueError, match="give one limit, or two"):
        interval_verdict(t_interval([0.0, 1.0]), **limits)


# Peaks


@pytest.mark.parametrize(
    ("curve", "peak"),
    [
        ([0, 3, 1], Peak(1, 2)),
        ([5, 1, 4, 2, 2], Peak(2, 2)),
        ([5, 1, 4, 0, 2], Peak(2, 3)),
        ([2, 1, 4, 3.5, 0], Peak(2, 3)),
        ([0, 2, 0, 9, 8], Peak(1, 2)),  # 9 stands only 1 above its right side
        ([1, 1, 1, 1], Peak(1, 0)),
        ([1, 5, 5, 1], Peak(1, 4)),  # of equal peaks the first
        ([0, 1, np.nan, 7, np.nan, 0], Peak(3, 7)),
        ([np.nan, 1, 3, 2], Peak(2, 1)),
        ([0, np.inf, 4, 1], Peak(2, 3)),
    ],
)
def test_peaks_by_hand(curve, peak):
    assert interior_peak(curve) == peak


@pytest.mark.parametrize("curve", [[1, 2, 3, 4], [4, 3, 2, 1], [3, 1, 2], [2, 1, 1, 2], [np.nan] * 4, [1, np.nan, 2]])
def test_no_interior_peak_no_prominence(curve):
    assert interior_peak(curve).prominence <= 0


@given(st.lists(st.integers(-9, 9), min_size=3, max_size=12))
def test_peaks_against_the_definition(curve):
    heights = [curve[i] - max(min(curve[:i]), min(curve[i + 1 :])) for i in range(1, len(curve) - 1)]
    assert interior_peak(curve) == Peak(1 + heights.index(max(heights)), max(heights))


@pytest.mark.parametrize("shape", [(2,), (0,), (3, 3), ()])
def test_a_peak_needs_three_points_in_a_row(shape):
    with pytest.raises(ValueError, match="at least 3 points"):
        interior_peak(np.zeros(shape))


# Verdicts: 20 samples whose mean is exact and whose 90 % and 95 % t-intervals are +-half and +-1.21 half


def samples(mean, half=0.1, n=20):
    noise = np.random.default_rng(0).normal(size=n)
    noise = (noise - noise.mean()) / noise.std(ddof=1)
    return mean + noise * half * np.sqrt(n) / scipy.stats.t.ppf(0.95, n - 1)


def test_the_samples_have_the_interval_they_are_made_for():
    np.testing.assert_allclose(t_interval(samples(2.0, 0.3), 0.9), (2.0, 1.7, 2.3), rtol=1e-12)


@pytest.mark.parametrize(
    ("mean", "half", "word"),
    [
        (1.0, 0.1, "reproduced"),
        (1.39, 0.1, "reproduced"),
        (0.61, 0.1, "reproduced"),
        (1.41, 0.1, "inconclusive"),
        (1.59, 0.1, "inconclusive"),
        (1.0, 0.51, "inconclusive"),
        (1.61, 0.1, "not reproduced"),
        (0.39, 0.1, "not reproduced"),
    ],
)
def test_verdicts_without_a_baseline(mean, half, word):
    assert verdict(samples(mean, half), published=1.0, tolerance=0.5) == word


CASES = [  # published 1, baseline 0, tolerance 0.5
    (1.0, 0.1, "reproduced"),
    (0.61, 0.1, "reproduced"),
    (1.61, 0.1, "better"),
    (0.55, 0.1, "direction only"),  # the interval leaves the tolerance
    (0.3, 0.1, "direction only"),  # outside it, yet above the baseline
    (1.55, 0.1, "direction only"),
    (1.0, 0.8, "direction only"),
    (0.11, 0.1, "not reproduced"),  # 95 % interval (-0.01, 0.23) holds the baseline
    (0.0, 0.1, "not reproduced"),  # the broken control
    (-1.0, 0.1, "not reproduced"),
    (1.0, 1.0, "inconclusive"),
    (0.3, 0.3, "inconclusive"),
    (0.0, 0.45, "not reproduced"),
    (0.0, 0.55, "inconclusive"),
]


@pytest.mark.parametrize(("mean", "half", "word"), CASES)
def test_verdicts_with_a_baseline(mean, half, word):
    measured = samples(mean, half)
    assert verdict(measured, 1.0, 0.5, baseline=0.0) == word
    # The same claim of a decrease, and the same claim elsewhere.
    assert verdict(-measured, -1.0, 0.5, baseline=0.0) == word
    assert verdict(measured + 7, 8.0, 0.5, baseline=7.0) == word
    assert verdict(3 - measured, 2.0, 0.5, baseline=3.0) == word


def test_a_broken_control_does_not_pass():
    """Noise round the baseline, twenty seeds, many times: never reproduced, whatever its spread."""
    rng = np.random.default_rng(1)
    for spread in (0.01, 0.3, 1.0, 3.0):
        words = {verdict(rng.normal(0, spread, 20), 1.0, 0.5, baseline=0.0) for _ in range(100)}
        assert not words & {"reproduced", "better"}
    wrong = {verdict(rng.normal(-1, 0.3, 20), 1.0, 0.5, baseline=0.0) for _ in range(100)}
    assert wrong == {"not reproduced"}


def test_too_few_or_diverged_seeds_are_inconclusive():
    good = samples(1.0)
    assert verdict(good[:19], 1.0, 0.5) == "inconclusive"
    assert verdict(samples(1.0, n=4), 1.0, 0.5) == "inconclusive"
    assert verdict(samples(1.0, half=0.4, n=5), 1.0, 0.5) == "inconclusive"  # the tolerance is 1.2 deviations
    assert verdict(samples(1.0, n=5), 1.0, 0.5) == "reproduced"  # and here 4.8
    for bad in (np.nan, np.inf, -np.inf):
        assert verdict(np.append(good, bad), 1.0, 0.5) == "inconclusive"
    assert verdict(np.full(20, 1.0), 1.0, 0.0) == "reproduced"
    assert verdict(np.full(20, 1.1), 1.0, 0.0) == "not reproduced"


def test_resampled_interval_is_wider_by_the_shared_examples():
    samples = np.random.default_rng(0).normal(size=(10, 3))
    plain = t_interval(samples)
    np.testing.assert_allclose(resampled_t_interval(samples, 0.0), plain)
    wide = resampled_t_interval(samples, 0.3)
    # 1/10 + 0.3 = 4/10: twice as wide.
    np.testing.assert_allclose(wide.high - wide.low, 2 * (plain.high - plain.low))
    np.testing.assert_allclose(wide.mean, plain.mean)
    with pytest.raises(ValueError, match="test_ratio=-1"):
        resampled_t_interval(samples, -1)


def test_resampled_interval_covers_where_the_plain_one_does_not():
    # A mean over re-deals of one data set, as an estimate of the population's: the parts of a re-deal overlap.
    rng = np.random.default_rng(1)
    hits = np.zeros(2)
    for _ in range(300):
        pool = rng.normal(size=60)
        deals = np.array([rng.permutation(pool)[:20].mean() for _ in range(15)])
        for at, found in enumerate((t_interval(deals), resampled_t_interval(deals, 20 / 40))):
            hits[at] += found.low <= 0 <= found.high
    assert hits[0] / 300 < 0.8 < 0.9 < hits[1] / 300


def test_interval_of_a_share_is_the_exact_one():
    for count, n in ((0, 20), (7, 20), (20, 20), (83, 100), (1, 1)):
        for level in (0.9, 0.95):
            found = share_interval(count, n, level)
            expected = scipy.stats.binomtest(count, n).proportion_ci(level, "exact")
            np.testing.assert_allclose([found.mean, found.low, found.high], [count / n, *expected], atol=1e-12)
    for count, n in ((-1, 5), (6, 5), (0, 0)):
        with pytest.raises(ValueError, match=f"count={count} must lie between 0 and n={n}"):
            share_interval(count, n)
    with pytest.raises(ValueError, match="level=1"):
        share_interval(1, 2, 1)
