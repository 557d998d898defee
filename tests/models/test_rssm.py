"""The recurrent state-space model: filtering and imagining by hand, its bound against a Kalman filter."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmbrl import envs
from jaxmbrl.models import heads, latents, networks, rollouts, rssm
from jaxmbrl.models.frames import Frames
from jaxmbrl.types import Box, Spec

SPEC = envs.make("cartpole_swingup").spec
SMALL = {"deter": 8, "hidden": 8, "layers": (8,), "embedding": 8, "activation": "swish", "norm": True}
MODELS = {
    "gaussian": rssm.Config(stoch=3, **SMALL),
    "classes": rssm.Config(stoch=2, classes=4, reward_head="symexp_twohot", **SMALL),
}


@functools.cache
def built(name):
    model = rssm.make(SPEC, MODELS[name])
    return model, jax.jit(model.world.init)(jax.random.key(0))


def sequence(key, length, first=()):
    key_obs, key_action, key_reward = jax.random.split(key, 3)
    return Frames(
        obs=jax.random.normal(key_obs, (length, SPEC.obs_size)),
        action=jax.random.uniform(key_action, (length, 1), minval=-1.0),
        reward=jax.random.normal(key_reward, (length,)),
        discount=jnp.ones(length),
        first=jnp.zeros(length, bool).at[jnp.array([0, *first])].set(True),
    )


def close(tree, other):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), tree, other)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_sequence_with_resets_is_its_pieces(name):
    """Filtering nine frames with an end after the fifth, against filtering both pieces frame by frame from nothing."""
    model, params = built(name)
    frames, key = sequence(jax.random.key(1), 9, first=(5,)), jax.random.key(2)
    whole = jax.jit(model.filter)(params, key, frames).state
    perceive = jax.jit(model.perceive)
    for begin, end in ((0, 5), (5, 9)):
        state = model.initial()
        for place in range(begin, end):
            frame = jax.tree.map(lambda leaf, place=place: leaf[place], frames)
            state = perceive(params, jax.random.split(key, 9)[place], state, frame)
            close(jax.tree.map(lambda leaf, place=place: leaf[place], whole), state)


def test_a_first_frame_forgets_its_action():
    model, params = built("gaussian")
    frames = sequence(jax.random.key(3), 1)
    frame = jax.tree.map(lambda leaf: leaf[0], frames)
    other = frame._replace(action=frame.action + 0.5)
    perceive = functools.partial(jax.jit(model.perceive), params, jax.random.key(4), model.initial())
    close(perceive(frame), perceive(other))
    going_on = jnp.zeros((), bool)
    moved = perceive(frame._replace(first=going_on)).deter - perceive(other._replace(first=going_on)).deter
    assert np.abs(moved).max() > 1e-3


@pytest.mark.parametrize("name", sorted(MODELS))
def test_imagining_is_step_after_step(name):
    model, params = built(name)
    key, actions = jax.random.key(5), jnp.linspace(-1.0, 1.0, 4)[:, None]
    imagined = rollouts.simulate(model.world, params, key, model.initial(), actions)
    state = model.initial()
    for place, key_step in enumerate(jax.random.split(key, 4)):
        close(jax.tree.map(lambda leaf, place=place: leaf[place], imagined.state), state)
        state, prediction = model.world.step(params, key_step, state, actions[place])
        close(jax.tree.map(lambda leaf, place=place: leaf[place], imagined.prediction), prediction)
    close(imagined.last, state)


def test_what_the_loss_counts():
    """A first frame's reward is not learned; divergence below the free nats costs, and moves, nothing."""
    model, params = built("gaussian")
    frames, key = sequence(jax.random.key(6), 6, first=(3,)), jax.random.key(7)
    evidence = jax.jit(model.evidence)
    _, metrics, _ = evidence(params, key, frames)
    spoilt = frames._replace(reward=frames.reward.at[3].set(1e3))
    np.testing.assert_allclose(evidence(params, key, spoilt)[1]["reward_loss"], metrics["reward_loss"], rtol=1e-6)
    earned = frames._replace(reward=frames.reward.at[4].set(1e3))
    assert evidence(params, key, earned)[1]["reward_loss"] > 1e3
    free = rssm.make(SPEC, rssm.Config(stoch=3, free_nats=1e3, **SMALL))
    assert float(jax.jit(free.evidence)(params, key, frames)[1]["dynamics_loss"]) == 1e3
    slope = jax.jit(jax.grad(lambda params: free.evidence(params, key, frames)[0]))(params)
    assert optax.tree.norm(slope["prior"]) == 0.0
    assert optax.tree.norm(slope["posterior"]) > 0.0


def test_each_part_of_the_divergence_moves_its_own_side():
    """In a single frame: dynamics the prior, representation the posterior (and the sensor), each by its own weight."""
    scales = {"dynamics_scale": 0.5, "representation_scale": 0.1, "observation_scale": 0.0, "reward_scale": 0.0}
    model = rssm.make(SPEC, rssm.Config(stoch=3, free_nats=0.0, **scales, **SMALL))
    _, params = built("gaussian")
    metrics = jax.jit(jax.jacrev(lambda *inputs: model.evidence(*inputs)[1]))
    slopes = metrics(params, jax.random.key(13), sequence(jax.random.key(14), 1))
    dynamics, representation = slopes["dynamics_loss"], slopes["representation_loss"]
    for name in ("posterior", "sensor"):
        assert optax.tree.norm(dynamics[name]) == 0.0
        assert optax.tree.norm(representation[name]) > 1e-3
    assert optax.tree.norm(representation["prior"]) == 0.0
    assert optax.tree.norm(dynamics["prior"]) > 1e-3
    loss, discount = slopes["model_loss"], slopes["discount_loss"]
    close(loss["prior"], jax.tree.map(lambda leaf: 0.5 * leaf, dynamics["prior"]))
    others = jax.tree.map(lambda x, y: x - y, loss["posterior"], discount["posterior"])
    close(others, jax.tree.map(lambda leaf: 0.1 * leaf, representation["posterior"]))


def test_overshooting_looks_beyond_one_step_and_not_beyond_an_end():
    """Where each frame is a first one, or each second one, nothing lies two steps ahead."""
    model = rssm.make(SPEC, rssm.Config(stoch=3, free_nats=0.0, overshooting=2, **SMALL))
    _, params = built("gaussian")
    evidence = functools.partial(jax.jit(model.evidence), params, jax.random.key(8))
    frames = sequence(jax.random.key(9), 6)
    assert evidence(frames)[1]["overshooting_loss"] > 0.1
    assert evidence(frames._replace(first=jnp.ones(6, bool)))[1]["overshooting_loss"] == 0.0
    two_ahead = frames._replace(first=jnp.array([True, False, True, False, True, False]))
    assert evidence(two_ahead)[1]["overshooting_loss"] == 0.0


def test_overshooting_is_the_divergence_from_priors_two_and_three_steps_ahead():
    """A loop over beginnings and steps ahead, which `step` takes, in two episodes of four and three frames."""
    free = 0.6
    model = rssm.make(SPEC, rssm.Config(stoch=3, free_nats=free, overshooting=2, **SMALL))
    _, params = built("gaussian")
    frames, key = sequence(jax.random.key(15), 7, first=(4,)), jax.random.key(16)
    key_filter, key_overshoot = jax.random.split(key)
    filtered = jax.jit(model.filter)(params, key_filter, frames)
    step, kl = jax.jit(model.world.step), latents.gaussian(3).kl
    network = networks.MLP((SMALL["hidden"],), 6, activation=SMALL["activation"], norm=SMALL["norm"])
    far = []
    for begin, key_begin in enumerate(jax.random.split(key_overshoot, 7)):
        state = jax.tree.map(lambda leaf, begin=begin: leaf[begin], filtered.state)
        for place, key_step in enumerate(jax.random.split(key_begin, 3), begin + 1):
            if place == 7 or frames.first[place]:
                break
            state = step(params, key_step, state, frames.action[place])[0]
            if place > begin + 1:
                far.append(float(kl(filtered.posterior[place], network.apply(params["prior"], state.deter))))
    assert len(far) == 4  # 0 -> 2, 0 -> 3, 1 -> 3; 4 -> 6
    assert min(far) < free < max(far)
    told = jax.jit(model.evidence)(params, key, frames)[1]["overshooting_loss"]
    np.testing.assert_allclose(told, np.maximum(far, free).sum() / (7 * 2), rtol=1e-4)


DECAY, PROCESS, NOISE, LENGTH, STEPS = 0.9, 8.0, 1.0, 10, 800


def linear_gaussian(key, num):
    """Measurements y [num, T]: x' = 0.9 x + N(0, 8), y = x + N(0, 1)."""
    key_first, key_process, key_noise = jax.random.split(key, 3)
    first = jax.random.normal(key_first, (num,)) * (PROCESS / (1 - DECAY**2)) ** 0.5
    process = PROCESS**0.5 * jax.random.normal(key_process, (LENGTH, num))

    def step(x, noise):
        return DECAY * x + noise, x

    x = jax.lax.scan(step, first, process)[1].T
    return x + NOISE**0.5 * jax.random.normal(key_noise, x.shape)


def kalman(y):
    """Of y [num, T], exact in float64: log-likelihood a frame; x given y up to then: mean [num, T], the last std."""
    mean, var, total, filtered = np.zeros(len(y)), PROCESS / (1 - DECAY**2), 0.0, []
    for column in np.asarray(y, np.float64).T:
        spread = var + NOISE
        total += -0.5 * (np.log(2 * np.pi * spread) + (column - mean) ** 2 / spread)
        gain = var / spread
        filtered.append(mean + gain * (column - mean))
        mean, var = DECAY * filtered[-1], DECAY**2 * var * (1 - gain) + PROCESS
    return total.mean() / y.shape[1], np.stack(filtered, axis=1), np.sqrt(gain * NOISE)


def test_the_bound_comes_within_two_percent_of_a_kalman_filters_likelihood_and_beliefs_near_its_own():
    """ELBO <= log-likelihood, and nearly equal after learning: 1.1% in a pilot. Beliefs that forgot the past lose 26%.

    A filter's beliefs know nothing of later frames, so that the bound is not tight. How much that costs depends on the
    world: 3.4% if x moved by N(0, 0.2), whatever the model's size.

    x is what the decoder tells, whose noise is the measurement's. Its mean over beliefs was off by 0.08 (over 256
    samples, whose own error is 0.06), its std, 0.947, by 2%. Planted after learning: beliefs that forget the past are
    off by 0.28, about as much as the measurement itself, 0.31; those drawn from the prior, by 3.3.
    """
    box = Box(np.array([-1.0], np.float32), np.array([1.0], np.float32))
    spec = Spec("linear-Gaussian", jax.ShapeDtypeStruct((1,), jnp.float32), box, LENGTH)
    config = rssm.Config(stoch=2, deter=16, hidden=32, layers=(32,), embedding=16, activation="swish", free_nats=0.0)
    model = rssm.make(spec, config)
    optimiser = optax.adam(optax.cosine_decay_schedule(1e-2, STEPS))

    def measured(y):
        nothing = jnp.zeros(y.shape)
        first = jnp.zeros(y.shape, bool).at[:, 0].set(True)
        return Frames(heads.symexp(y)[..., None], nothing[..., None], nothing, 1.0 + nothing, first)

    def losses(params, key, y):
        keys = jax.random.split(key, len(y))
        _, metrics, _ = jax.vmap(functools.partial(model.evidence, params))(keys, measured(y))
        return jnp.mean(metrics["reconstruction_loss"] + metrics["divergence"]) + 0.5 * jnp.log(2 * jnp.pi)

    def update(carry, key):
        params, state = carry
        key_data, key_loss = jax.random.split(key)
        loss, slope = jax.value_and_grad(losses)(params, key_loss, linear_gaussian(key_data, 48))
        step, state = optimiser.update(slope, state, params)
        return (optax.apply_updates(params, step), state), loss

    @jax.jit
    def learn(key):
        key_init, key_learn = jax.random.split(key)
        params = model.world.init(key_init)
        return jax.lax.scan(update, (params, optimiser.init(params)), jax.random.split(key_learn, STEPS))

    (params, _), _ = learn(jax.random.key(10))
    y = linear_gaussian(jax.random.key(11), 4000)
    exact, mean, std = kalman(y)
    bound = -float(jax.jit(losses)(params, jax.random.key(12), y))
    assert bound <= exact + 0.005  # up to the noise of the bound's own samples
    assert bound > 1.02 * exact, (bound, exact)

    def believed(key, sequence):
        states = model.filter(params, key, sequence).state
        return heads.symlog(jax.vmap(functools.partial(model.reconstruct, params))(states))[:, 0]

    keys = jax.random.split(jax.random.key(17), (256, 60))
    told = np.asarray(jax.jit(jax.vmap(jax.vmap(believed), in_axes=(0, None)))(keys, measured(y[:60])), np.float64)
    error = np.sqrt(np.mean((told.mean(axis=0) - mean[:60]) ** 2))
    assert error < 0.15, error
    assert told.std(axis=0).mean() == pytest.approx(std, rel=0.1)
