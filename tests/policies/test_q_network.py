"""Deep Q-networks against a float64 twin: targets, the gradient step, the copy that stays behind, epsilon."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmbrl.policies import dqn
from jaxmbrl.types import Box, Discrete, Spec, Transition

SPEC = Spec("any", jax.ShapeDtypeStruct((3,), jnp.float32), Discrete(4), 10, angles=(1,))
GRID = SPEC._replace(observation=jax.ShapeDtypeStruct((5, 4, 2), jnp.bool_), angles=())
CONFIG = dqn.Config(hidden=(5,), depth=3, optimiser="adam", learning_rate=0.01, discount=0.9, target_every=3)
ADAM_STEP = 0.01  # Adam's first step is its step size times the gradient's sign


NUM = 12
TERMINATED, TRUNCATED = (1, 5, 9), (2, 6, 10)


def transitions(spec, num=NUM):
    """A batch, some of which terminate and others are cut off by time; all have a next observation."""
    keys = jax.random.split(jax.random.key(1), 4)
    obs, next_obs = jax.random.normal(keys[0], (2, num, *spec.observation.shape))
    obs, next_obs = ((x > 0 if spec.is_grid else x).astype(spec.observation.dtype) for x in (obs, next_obs))
    action = jax.random.randint(keys[1], (num,), 0, spec.num_actions)
    reward = 3.0 * jax.random.normal(keys[2], (num,))
    return Transition(obs, action, reward, next_obs, jnp.arange(num) % 4 == 1, jnp.arange(num) % 4 == 2)


def doubles(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree["params"])


def dense(layer, x):
    return x @ layer["kernel"] + layer["bias"]


def values(params, obs):
    """What a network says, in float64: a perceptron on angles' sine and cosine, or a convolution before it."""
    params, obs = doubles(params), np.asarray(obs, np.float64)
    if obs.ndim == 1:
        inputs = np.array([obs[0], obs[2], np.sin(obs[1]), np.cos(obs[1])])
        return dense(params["layer_1"], np.maximum(dense(params["layer_0"], inputs), 0.0))
    layers, kernel = params["layers_0"], params["layers_0"]["convolution"]["kernel"]
    patches = [[obs[i : i + 3, j : j + 3] for j in range(obs.shape[1] - 2)] for i in range(obs.shape[0] - 2)]
    seen = np.einsum("ijabc,abcf->ijf", np.array(patches), kernel) + layers["convolution"]["bias"]
    hidden = np.maximum(dense(layers["dense"], np.maximum(seen, 0.0).ravel()), 0.0)
    return dense(params["layers_1"]["layer_0"], hidden)


def huber(error):
    return np.where(np.abs(error) <= 1.0, 0.5 * error**2, np.abs(error) - 0.5)


def differing(learner):
    """A state whose copy has other parameters than its network, both large enough for values that differ."""
    network, target = (learner.init(jax.random.key(seed)).network for seed in (0, 7))
    network, target = jax.tree.map(lambda leaf: 2.0 * leaf, (network, target))
    return learner.init(jax.random.key(0))._replace(network=network, target=target)


def targets(state, batch, *, double, ends=TERMINATED):
    """Of the paper, with nothing beyond the transitions in ``ends``."""
    found = []
    for i in range(len(batch.reward)):
        told = values(state.target, batch.next_obs[i])
        chooser = state.network if double else state.target
        value = told[np.argmax(values(chooser, batch.next_obs[i]))]
        found.append(float(batch.reward[i]) + (0.0 if i in ends else 0.9 * value))
    return np.array(found)


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("spec", [SPEC, GRID], ids=["vector", "grid"])
def test_loss_is_that_of_the_twins_targets(spec, double):
    """Huber's, of the values of the actions taken: nothing beyond a termination, a value beyond a time limit.

    Planted: a value beyond terminations, none beyond time limits, double targets for plain ones; each is seen.
    """
    learner = dqn.make(spec, dataclasses.replace(CONFIG, double=double))
    state, batch = differing(learner), transitions(spec)
    _, metrics = jax.jit(learner.update)(state, jax.random.key(2), batch)
    taken = np.array([values(state.network, batch.obs[i])[batch.action[i]] for i in range(NUM)])
    own = huber(taken - targets(state, batch, double=double)).mean()
    np.testing.assert_allclose(metrics["critic_loss"], own, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(metrics["value"], taken.mean(), rtol=1e-4, atol=1e-5)
    for wrong in (
        {"double": not double},
        {"double": double, "ends": ()},
        {"double": double, "ends": TERMINATED + TRUNCATED},
    ):
        other = huber(taken - targets(state, batch, **wrong)).mean()
        assert abs(own - other) > 2e-3, f"{wrong} can be told apart here"


def test_a_step_descends_the_twins_loss():
    """Adam's first step has the sign of the twin's finite differences, in which the targets stand still."""
    learner = dqn.make(SPEC, CONFIG)
    state, batch = differing(learner), transitions(SPEC)
    moved, _ = jax.jit(learner.update)(state, jax.random.key(2), batch)
    wanted = targets(state, batch, double=True)

    def loss(bias):
        params = {"params": doubles(state.network) | {"layer_1": doubles(state.network)["layer_1"] | {"bias": bias}}}
        taken = [values(params, batch.obs[i])[batch.action[i]] for i in range(NUM)]
        return huber(np.array(taken) - wanted).mean()

    before, after = (doubles(one.network)["layer_1"]["bias"] for one in (state, moved))
    slope = np.array([(loss(before + step) - loss(before - step)) / 2e-4 for step in 1e-4 * np.eye(4)])
    sure = np.abs(slope) > 1e-3
    assert sure.sum() >= 2
    np.testing.assert_allclose((after - before)[sure], -ADAM_STEP * np.sign(slope)[sure], rtol=1e-2)


@pytest.mark.parametrize("rate", [1.0, 0.25])
def test_the_copy_moves_every_third_update(rate):
    learner = dqn.make(SPEC, dataclasses.replace(CONFIG, target_rate=rate))
    update = jax.jit(learner.update)
    states = [differing(learner)]
    for _ in range(4):
        states.append(update(states[-1], jax.random.key(2), transitions(SPEC))[0])
    kernels = [
        (one.target["params"]["layer_0"]["kernel"], one.network["params"]["layer_0"]["kernel"]) for one in states
    ]
    first = kernels[0][0]
    for target, _ in kernels[1:3]:
        np.testing.assert_array_equal(target, first)
    for target, _ in kernels[3:]:
        np.testing.assert_allclose(target, (1 - rate) * first + rate * kernels[3][1], rtol=1e-5, atol=1e-6)


def test_epsilon_falls_with_the_updates():
    """From 1 to 0.1 over 10 updates: the share of actions other than the best is 3/4 of it (binomial, 5 std)."""
    learner = dqn.make(SPEC, dataclasses.replace(CONFIG, decay=10))
    state, obs = differing(learner), jnp.array([0.3, -1.0, 0.5])
    best = int(np.argmax(values(state.network, obs)))
    keys = jax.random.split(jax.random.key(3), 4000)
    act = jax.jit(
        lambda updates: jax.vmap(
            lambda key: learner.act(state._replace(updates=updates), key, obs, explore=True),
        )(keys)
    )
    for updates, epsilon in ((0, 1.0), (5, 0.55), (10, 0.1), (1000, 0.1)):
        actions = np.asarray(act(jnp.int32(updates)))
        share = 0.75 * epsilon
        assert abs(np.mean(actions != best) - share) < 5 * np.sqrt(share * (1 - share) / 4000), updates
        assert set(actions) == set(range(4))
    assert learner.act(state, jax.random.key(0), obs, explore=False) == best


def test_what_does_not_fit_is_named():
    box = Box(np.full(2, -1.0, np.float32), np.full(2, 1.0, np.float32))
    with pytest.raises(ValueError, match=r"any: actions are continuous \(Box of 2\), needs Discrete ones"):
        dqn.make(SPEC._replace(action=box))
    image = jax.ShapeDtypeStruct((32, 32, 3), jnp.uint8)
    with pytest.raises(ValueError, match="needs one vector or one grid"):
        dqn.make(SPEC._replace(observation=image))
