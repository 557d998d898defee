"""MVE and STEVE against sums over every combination in float64, and what they reduce to."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from episode_rows import assert_close, float32

from jaxmbrl import values
from jaxmbrl.values.expansion import COVARIANCE_RIDGE, MIN_VARIANCE

H, M, L, K = 3, 4, 2, 3


def one_rollout(seed=0):
    random = np.random.default_rng(seed)
    return random.normal(size=H + 1), 0.9 * random.uniform(size=H + 1), random.normal(size=H + 1)


def ensemble(seed=0):
    """Rollouts by M models, rewards by L functions, values by K critics; step 0 is real, the same for all."""
    random = np.random.default_rng(seed)
    reward, value = random.normal(size=(H + 1, M, L)), random.normal(size=(H + 1, M, K))
    discount = 0.9 * random.uniform(size=(H + 1, M))
    reward[0], discount[0], value[0] = reward[0, 0, 0], 0.9, value[0, 0]
    return reward, discount, value


def target(reward, discount, value, start, stop):
    """Steps start to stop, then the value of the state after the last of them."""
    weights = np.concatenate([[1.0], np.cumprod(discount[start : stop + 1])])
    return weights[:-1] @ reward[start : stop + 1] + weights[-1] * value[stop]


def test_mve_targets_are_the_sums_from_each_state_on():
    reward, discount, value = one_rollout()
    expected = [target(reward, discount, value, k, H) for k in range(H + 1)]
    assert_close(jax.jit(values.mve)(*float32(reward, discount, value[-1])), expected)
    assert_close(values.reach(*float32(discount)), np.cumprod([1.0, *discount[:-1]]))


def test_mve_without_imagination_is_the_td_target():
    np.testing.assert_allclose(values.mve(jnp.ones(1), jnp.full(1, 0.9), jnp.float32(5.0)), [1 + 0.9 * 5], rtol=1e-6)


def test_targets_of_every_horizon():
    reward, discount, value = one_rollout(1)
    row = float32(reward, discount, value)
    targets = jax.jit(values.horizon_targets)(*row)
    assert_close(targets, [target(reward, discount, value, 0, h) for h in range(H + 1)])
    assert_close(targets[0], row[0][0] + row[1][0] * row[2][0])
    assert_close(targets[-1], values.mve(row[0], row[1], row[2][-1])[0])


def test_a_perfect_model_gives_the_n_step_returns():
    """Imagined rewards that come true: horizon h is the (h + 1)-step return of the real row, and STEVE their mean."""
    reward, discount, value = one_rollout(2)
    row = float32(reward, discount, value)
    real = [values.n_step_returns(*row, jnp.zeros(H + 1, bool), n=h + 1)[0] for h in range(H + 1)]
    assert_close(values.horizon_targets(*row), real)
    exact = values.candidate_targets(
        jnp.broadcast_to(row[0][:, None, None], (H + 1, M, L)),
        jnp.broadcast_to(row[1][:, None], (H + 1, M)),
        jnp.broadcast_to(row[2][:, None, None], (H + 1, M, K)),
    )
    assert_close(exact, np.broadcast_to(np.asarray(real)[:, None], exact.shape))


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_nothing_counts_beyond_a_certain_end(poison):
    reward, discount, value = one_rollout(3)
    discount[1] = 0.0
    sound = target(reward, discount, np.zeros(H + 1), 0, 1)
    reward[2:], value[1:] = poison, poison
    row = float32(reward, discount, value)
    with jax.debug_nans(False):
        assert_close(values.mve(row[0], row[1], row[2][-1])[:2], [sound, reward[1]])
        assert_close(values.horizon_targets(*row)[1:], [sound] * H)


def test_candidates_are_all_combinations():
    reward, discount, value = ensemble()
    expected = [
        [
            target(reward[:, m, j], discount[:, m], value[:, m, k], 0, h)
            for m, j, k in itertools.product(range(M), range(L), range(K))
        ]
        for h in range(H + 1)
    ]
    assert_close(jax.jit(values.candidate_targets)(*float32(reward, discount, value)), expected)


@pytest.mark.parametrize("covariance", [False, True])
def test_steve_is_the_weighted_mean(covariance):
    """Inverse variances, or the solution of the scatter matrix; in float64, from the candidates themselves."""
    (candidates,) = float32(np.asarray(values.candidate_targets(*float32(*ensemble(1)))))
    samples = np.asarray(candidates, np.float64)
    if covariance:
        deviation = samples - samples.mean(axis=1, keepdims=True)
        certainty = np.linalg.inv(deviation @ deviation.T + COVARIANCE_RIDGE * np.eye(H + 1)).sum(axis=1)
    else:
        certainty = 1.0 / (samples.var(axis=1) + MIN_VARIANCE)
    weight = certainty / certainty.sum()
    result = jax.jit(lambda x: values.steve(x, covariance=covariance))(candidates)
    np.testing.assert_allclose(result.weight, weight, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(result.target, weight @ samples.mean(axis=1), rtol=1e-4)


@pytest.mark.parametrize("covariance", [False, True])
def test_without_variance_all_horizons_count_equally(covariance):
    """A single model, reward and critic leaves nothing to choose by."""
    reward, discount, value = one_rollout(4)
    single = [x[:, None, None] for x in float32(reward, value)]
    candidates = values.candidate_targets(single[0], jnp.asarray(discount, jnp.float32)[:, None], single[1])
    result = values.steve(candidates, covariance=covariance)
    np.testing.assert_allclose(result.weight, np.full(H + 1, 1 / (H + 1)), rtol=1e-6)
    assert_close(result.target, np.mean([target(reward, discount, value, 0, h) for h in range(H + 1)]))


def test_steve_of_one_model_and_one_horizon_is_mve():
    """Only the candidates of the longest horizon: the weight has nowhere else to go."""
    reward, discount, value = one_rollout(5)
    row = float32(reward, discount, value)
    only = values.horizon_targets(*row)[-1:, None]
    np.testing.assert_allclose(values.steve(only).target, values.mve(row[0], row[1], row[2][-1])[0], rtol=1e-6)


@pytest.mark.parametrize("covariance", [False, True])
@pytest.mark.parametrize("beyond", [1e30, np.inf, np.nan])
def test_infinite_variance_beyond_h_leaves_the_h_step_target(covariance, beyond):
    """Horizon 1 is certain, horizon 0 is not, and whatever lies beyond is wild or not even finite."""
    candidates = jnp.array([[-10.0, 10.0], [2.0, 2.001], [-beyond, beyond], [-beyond, beyond]], jnp.float32)
    with jax.debug_nans(False):  # they are what is tested
        result = values.steve(candidates, covariance=covariance)
    np.testing.assert_allclose(result.weight[2:], 0.0, atol=1e-6)
    np.testing.assert_allclose(result.target, 2.0005, rtol=2e-3)


def test_targets_of_a_batch_are_vmapped():
    rows = [float32(*ensemble(seed)) for seed in range(3)]
    batch = [jnp.stack(leaves) for leaves in zip(*rows, strict=True)]
    many = jax.jit(jax.vmap(lambda *row: values.steve(values.candidate_targets(*row)).target))(*batch)
    one_by_one = [values.steve(values.candidate_targets(*row)).target for row in rows]
    np.testing.assert_allclose(many, one_by_one, rtol=1e-5)


def test_shapes_are_checked():
    with pytest.raises(AssertionError):
        values.mve(jnp.ones(3), jnp.ones(3), jnp.ones(3))
    with pytest.raises(AssertionError):
        values.candidate_targets(jnp.ones((3, 2)), jnp.ones((3, 2)), jnp.ones((3, 2)))
    with pytest.raises(AssertionError):
        values.steve(jnp.ones(3))
