"""One-step models: what they see, what they predict, and that maximum likelihood finds a known system."""

import functools

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import systems
from scipy import stats

from jaxmbrl.config import ConfigError
from jaxmbrl.models import angles, one_step
from jaxmbrl.types import Box, Spec, TimeStep, Transition

ARM = Spec(
    name="arm",
    observation=jax.ShapeDtypeStruct((4,), jnp.float32),
    action=Box(np.full(2, -1.0, np.float32), np.full(2, 1.0, np.float32)),
    episode_length=10,
    angles=(1, 3),
)
LEARN_ALL = {"learn_reward": True, "learn_continuation": True}


def arm_transitions(key, num):
    """Transitions of nothing in particular, whose angles (entries 1 and 3) cross the border at pi."""
    keys = jax.random.split(key, 5)
    obs = 3.0 * jax.random.normal(keys[0], (num, 4)) + 1.0
    action = jax.random.uniform(keys[1], (num, 2), minval=-1.0)
    next_obs = obs + 2.0 * jax.random.normal(keys[2], (num, 4))
    ends = jax.random.bernoulli(keys[4], 0.3, (num,))
    return Transition(obs, action, jax.random.normal(keys[3], (num,)), next_obs, ends, jnp.zeros(num, bool))


def twin_inputs(batch):
    obs, action = np.asarray(batch.obs, np.float64), np.asarray(batch.action, np.float64)
    angle = obs[:, [1, 3]]
    return np.concatenate([obs[:, [0, 2]], np.sin(angle), np.cos(angle), action], axis=1)


def twin_targets(batch):
    change = np.asarray(batch.next_obs, np.float64) - np.asarray(batch.obs, np.float64)
    for index in (1, 3):
        change[:, index] = np.arctan2(np.sin(change[:, index]), np.cos(change[:, index]))
    return np.concatenate([change, np.asarray(batch.reward, np.float64)[:, None]], axis=1)


def test_encode_replaces_angles():
    obs = jnp.array([1.0, 0.3, 2.0, -2.5])
    expected = [1.0, 2.0, np.sin(0.3), np.sin(-2.5), np.cos(0.3), np.cos(-2.5)]
    np.testing.assert_allclose(angles.encode(obs, (1, 3)), expected, rtol=1e-6)
    assert angles.encode(obs, ()) is obs


def test_wrap_takes_the_short_way_round():
    change = jnp.array([5.0, 2 * np.pi - 0.1, 7.0, -np.pi - 0.2])
    np.testing.assert_allclose(angles.wrap(change, (1, 3)), [5.0, -0.1, 7.0, np.pi - 0.2], atol=1e-5)
    np.testing.assert_array_equal(angles.wrap(change, ()), change)


def test_predictions_do_not_depend_on_whole_turns(key):
    model = one_step.make(ARM, one_step.Config(hidden=(8,), **LEARN_ALL))
    params, obs, turn = (
        jax.jit(model.init)(key),
        jnp.array([1.0, 0.3, 2.0, -2.5]),
        jnp.array([0.0, 2 * np.pi, 0.0, -4 * np.pi]),
    )
    here, there = (model.mean_outcome(params, x, jnp.zeros(2)) for x in (obs, obs + turn))
    np.testing.assert_allclose(here.next_obs, there.next_obs - turn, atol=1e-5)
    np.testing.assert_allclose(here.reward, there.reward, atol=1e-5)


def test_normaliser_holds_the_moments_of_the_weighted_data(key):
    model = one_step.make(ARM, one_step.Config(hidden=(8,), **LEARN_ALL))
    batch = arm_transitions(key, 60)
    mask = np.arange(60) % 3 != 0
    garbage = jax.tree.map(lambda leaf: jnp.where(mask.reshape((-1,) + (1,) * (leaf.ndim - 1)), leaf, 77), batch)
    normaliser = model.calibrate(jax.jit(model.init)(key), garbage, jnp.asarray(mask, jnp.float32)).normaliser
    inputs, targets = twin_inputs(batch)[mask], twin_targets(batch)[mask]
    np.testing.assert_allclose(normaliser.input_mean, inputs.mean(axis=0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(normaliser.input_std, inputs.std(axis=0), rtol=1e-5)
    np.testing.assert_allclose(normaliser.target_mean, targets.mean(axis=0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(normaliser.target_std, targets.std(axis=0), rtol=1e-5)


def test_a_feature_that_never_varies_is_not_scaled(key):
    model = one_step.make(systems.KNOWN, one_step.Config(hidden=(8,)))
    batch = systems.transitions(key, 30)
    batch = batch._replace(obs=batch.obs.at[:, 0].set(3.0))
    params = model.calibrate(jax.jit(model.init)(key), batch, jnp.ones(30))
    assert params.normaliser.input_std[0] == 1.0
    assert np.all(np.isfinite(model.mean_outcome(params, jnp.array([4.0, 0.0]), jnp.zeros(1)).next_obs))


def test_loss_is_the_twins(key):
    """Scaled Gaussian likelihood and cross-entropy, weight decay and the penalty of the bounds, in float64."""
    decay = (0.1, 0.2)
    config = one_step.Config(hidden=(8,), activation="tanh", weight_decay=decay, bound_penalty=0.03, **LEARN_ALL)
    model, batch = one_step.make(ARM, config), arm_transitions(key, 12)
    params = model.calibrate(jax.jit(model.init)(jax.random.key(1)), batch, jnp.ones(12))
    params = params._replace(network=jax.tree.map(lambda leaf: leaf + 0.05, params.network))
    loss, metrics = jax.jit(one_step.world_model(model).loss)(params, key, batch)

    weights = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    normaliser, layers = weights.normaliser, weights.network["params"]
    x = (twin_inputs(batch) - normaliser.input_mean) / normaliser.input_std
    target = (twin_targets(batch) - normaliser.target_mean) / normaliser.target_std
    raw = np.tanh(x @ layers["layer_0"]["kernel"] + layers["layer_0"]["bias"])
    raw = raw @ layers["layer_1"]["kernel"] + layers["layer_1"]["bias"]
    mean, raw_log_var, logit = raw[:, :5], raw[:, 5:10], raw[:, 10]
    high, low = weights.family["max_log_var"], weights.family["min_log_var"]
    log_var = high - np.logaddexp(0, high - raw_log_var)
    log_var = low + np.logaddexp(0, log_var - low)
    likelihood = np.mean((target - mean) ** 2 / np.exp(log_var) + log_var)
    ends = np.asarray(batch.terminated)
    cross_entropy = np.mean(np.where(ends, np.logaddexp(0, logit), np.logaddexp(0, -logit)))
    squares = [np.sum(layers[f"layer_{i}"]["kernel"] ** 2) / 2 for i in range(2)]
    penalty = 0.03 * (high.sum() - low.sum()) + np.dot(decay, squares)
    np.testing.assert_allclose(metrics["model_loss"], likelihood + cross_entropy, rtol=1e-5)
    np.testing.assert_allclose(model.penalty(params), penalty, rtol=1e-5)
    np.testing.assert_allclose(loss, likelihood + cross_entropy + penalty, rtol=1e-5)


def test_a_truncation_is_no_end(key):
    """The continuation's target is 1 at a time limit."""
    model = one_step.make(systems.UNKNOWN, one_step.Config(hidden=(8,), **LEARN_ALL))
    params, one = jax.jit(model.init)(key), jax.tree.map(lambda leaf: leaf[0], systems.transitions(key, 1))
    loss = jax.jit(model.loss)
    losses = [
        loss(params, key, one._replace(terminated=jnp.array(terminated), truncated=jnp.array(truncated)))
        for terminated, truncated in ((False, False), (False, True), (True, False))
    ]
    assert losses[0] == losses[1] != losses[2]


def test_statistics_are_not_learned(key):
    model = one_step.make(systems.KNOWN, one_step.Config(hidden=(8,)))
    one = jax.tree.map(lambda leaf: leaf[0], systems.transitions(key, 1))
    gradient = jax.jit(jax.grad(model.loss))(jax.jit(model.init)(key), key, one)
    assert all(np.all(leaf == 0) for leaf in gradient.normaliser)
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves((gradient.network, gradient.family)))


NUM_SEEDS = 3


@pytest.fixture(scope="session")
def learned():
    """Three models fitted to 800 transitions each by plain Adam, and what they then say of 200 others."""
    model = one_step.make(systems.UNKNOWN, one_step.Config(hidden=(24,), **LEARN_ALL))
    world, optimiser = one_step.world_model(model), optax.adam(1e-2)

    def train(key):
        key_data, key_init, key_loss, key_test = jax.random.split(key, 4)
        batch = systems.transitions(key_data, 800)
        params = model.calibrate(model.init(key_init), batch, jnp.ones(800))

        def step(carry, _):
            params, state = carry
            gradient = jax.grad(lambda params: world.loss(params, key_loss, batch)[0])(params)
            updates, state = optimiser.update(gradient, state)
            return (optax.apply_updates(params, updates), state), None

        (params, _), _ = jax.lax.scan(step, (params, optimiser.init(params)), length=300)
        test = systems.transitions(key_test, 200)
        distribution = jax.vmap(lambda obs, action: _moments(model.distribution(params, obs, action)))
        outcome = jax.vmap(model.mean_outcome, in_axes=(None, 0, 0))(params, test.obs, test.action)
        return params, test, distribution(test.obs, test.action), outcome

    return model, *jax.jit(jax.vmap(train))(jax.random.split(jax.random.key(3), NUM_SEEDS))


def _moments(distribution: distrax.Distribution):
    return distribution.mean(), distribution.variance()


def test_learns_the_mean_and_the_noise_of_a_known_system(learned):
    """The mean is learned to half the noise, the noise itself within a tolerance set by judgement."""
    _, params, test, (mean, var), outcome = learned
    normaliser = params.normaliser
    change = np.asarray(mean * normaliser.target_std[:, None] + normaliser.target_mean[:, None])
    truth = systems.expected_change(np.asarray(test.obs), np.asarray(test.action))
    error = np.sqrt(np.mean((change[..., :2] - truth) ** 2, axis=1))
    assert np.all(error < 0.5 * systems.NOISE), error
    np.testing.assert_allclose(outcome.next_obs - test.obs, change[..., :2], atol=1e-5)
    np.testing.assert_allclose(outcome.reward, change[..., 2], atol=1e-5)

    std = np.asarray(jnp.sqrt(var) * normaliser.target_std[:, None]).mean(axis=1)
    expected = np.append(systems.NOISE, systems.REWARD_NOISE)
    np.testing.assert_allclose(std, np.tile(expected, (NUM_SEEDS, 1)), rtol=0.15)


def test_learns_reward_and_continuation(learned):
    _, _, test, _, outcome = learned
    reward = np.concatenate([test.obs, test.action], axis=-1) @ systems.REWARD
    assert np.all(np.sqrt(np.mean((outcome.reward - reward) ** 2, axis=1)) < 0.5 * systems.REWARD_NOISE)

    # The probability that noise of a known std keeps the next state out of the half-space.
    mean = np.asarray(test.obs) + systems.expected_change(np.asarray(test.obs), np.asarray(test.action))
    goes_on = stats.norm.cdf((0.4 - mean[..., 0]) / systems.NOISE[0])
    error = np.abs(np.asarray(outcome.discount) - goes_on)
    assert np.all((outcome.discount >= 0) & (outcome.discount <= 1))
    assert np.all(error.mean(axis=1) < 0.1), error.mean(axis=1)


def test_samples_follow_the_prediction(learned, key):
    """Outcomes at one state have the predicted moments, mapped back to the world's units."""
    model, params, *_ = learned
    params = jax.tree.map(lambda leaf: leaf[0], params)
    obs, action = jnp.array([0.2, -0.4]), jnp.array([0.5])
    num = 4000
    keys = jax.random.split(key, num)
    outcomes = jax.jit(jax.vmap(functools.partial(model.outcome, params), in_axes=(0, None, None)))(keys, obs, action)
    samples = np.concatenate([outcomes.next_obs - obs, outcomes.reward[:, None]], axis=1)
    mean, var = _moments(model.distribution(params, obs, action))
    std = np.sqrt(var) * params.normaliser.target_std
    mean = mean * params.normaliser.target_std + params.normaliser.target_mean
    assert np.all(np.abs(samples.mean(axis=0) - mean) < 5 * std / np.sqrt(num))  # false alarm 6e-7 an entry
    np.testing.assert_allclose(samples.std(axis=0), std, rtol=5 / np.sqrt(2 * num))


def test_known_functions_are_used_where_nothing_is_learned(key):
    model = one_step.make(systems.KNOWN, one_step.Config(hidden=(8,)))
    params = jax.jit(model.init)(key)
    for obs in (jnp.array([5.0, 1.0]), jnp.array([-5.0, 1.0])):
        outcome = model.outcome(params, key, obs, jnp.array([0.5]))
        expected = obs[0] + 5.0 + 100.0 * outcome.next_obs[1]
        np.testing.assert_allclose(outcome.reward, expected, rtol=1e-6)
        assert outcome.discount == (0.0 if obs[0] > 0 else 1.0)
    endless = one_step.make(systems.KNOWN._replace(termination=None), one_step.Config(hidden=(8,)))
    assert endless.outcome(params, key, jnp.array([5.0, 1.0]), jnp.zeros(1)).discount == 1.0


def test_world_model_is_the_model(key):
    model = one_step.make(systems.KNOWN, one_step.Config(hidden=(8,)))
    world, params, action = one_step.world_model(model), jax.jit(model.init)(key), jnp.array([0.5])
    timestep = TimeStep(None, jnp.array([0.1, 0.2]), *[jnp.zeros(())] * 3)
    state = world.start(params, key, timestep)
    successor, prediction = world.step(params, key, state, action)
    outcome = model.outcome(params, key, timestep.obs, action)
    np.testing.assert_array_equal(world.features(params, successor), outcome.next_obs)
    assert (prediction.reward, prediction.discount) == (outcome.reward, outcome.discount)
    np.testing.assert_array_equal(world.observe(params, key, successor, action, timestep), timestep.obs)


def test_bad_configs_are_named():
    with pytest.raises(ConfigError, match="learn_reward: got False, needs True, since noisy_linear"):
        one_step.make(systems.UNKNOWN)
    with pytest.raises(ConfigError, match="learn_continuation: got False, needs True, since noisy_linear"):
        one_step.make(systems.UNKNOWN, one_step.Config(learn_reward=True))
    with pytest.raises(ConfigError, match=r"weight_decay: got 2 values, needs one value a layer \(5\)"):
        one_step.Config(weight_decay=(0.1, 0.1))
    for bad in ({"hidden": (0,)}, {"activation": "step"}, {"family": "cauchy"}, {"precision": "float8"}):
        with pytest.raises(ConfigError, match=next(iter(bad))):
            one_step.Config(**bad)
