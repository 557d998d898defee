r"""A learned value of states, for what lies beyond a planner's horizon: TD(0) on replayed transitions.

.. math:: y_t = r_t + \gamma d_t V_{target}(s_{t+1}), \qquad V \leftarrow V - \eta \nabla\, \ell_\tau(y_t - V(s_t))

where d is 0 at a termination and 1 elsewhere, a time limit included (Sutton and Barto 2018, Sec. 9.4; the slowly moving
target network as in Lillicrap et al. 2016, arXiv:1509.02971). Replayed steps are by poorer plans than today's, random
ones among them, so that a mean over them undervalues states that were visited early. An expectile above 0.5 leans
towards the best of what was done there instead (Kostrikov et al. 2022, arXiv:2110.06169, Eq. 5), at the price of taking
luck for skill where the environment is stochastic or the network has not seen enough.

The network predicts :math:`(1 - \gamma) V`, an average of rewards, whose scale does not depend on :math:`\gamma`, and
which lies between the least and the greatest reward seen (0 among them, which is what follows a termination): targets
and values are clipped to that, since bootstrapping on few data diverges otherwise.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmbrl import replay as replays
from jaxmbrl.config import configurable, option
from jaxmbrl.models.networks import ACTIVATIONS, MLP
from jaxmbrl.models.one_step import MIN_STD, encode
from jaxmbrl.replay import Replay
from jaxmbrl.types import Array, Key, Metrics, PyTree, Spec


@configurable
class Nothing:
    """Nothing counts beyond the horizon."""


@configurable
class Config:
    """A value network, and how it is fitted each time that the model is."""

    hidden: tuple[int, ...] = option((64, 64), "widths of the hidden layers", low=1)
    activation: str = option("swish", "activation function", choices=tuple(ACTIVATIONS))
    discount: float = option(0.99, "of rewards beyond the horizon, a step (gamma)", low=0.0, below=1.0)
    learning_rate: float = option(1e-3, "Adam's step size", above=0.0)
    batch_size: int = option(128, "transitions a gradient step (B)", low=1)
    steps: int = option(400, "gradient steps a fit", low=1)
    expectile: float = option(0.9, "0.5 values who acted, towards 1 the best of them", above=0.0, below=1.0)
    target_rate: float = option(0.05, "share of the network that its target takes over, a step", above=0.0, high=1.0)


PARTS: dict[str, type] = {"none": Nothing, "learned": Config}


class State(NamedTuple):
    """What is learned, and the statistics of the store that it was fitted to.

    Attributes:
        params: of the network.
        target: of the network that follows it slowly.
        optimiser: Adam's state.
        mean: [I], of the encoded observations.
        std: [I].
        low: [], the least reward, or 0 if that is less.
        high: [], the greatest reward, or 0 if that is more.
    """

    params: PyTree
    target: PyTree
    optimiser: PyTree
    mean: Array
    std: Array
    low: Array
    high: Array


class StateValue(NamedTuple):
    """A value function together with how it learns.

    Attributes:
        init: ``(key) -> state``.
        fit: ``(state, key, replay) -> (state, metrics)``.
        value: ``(state, obs [*S, O]) -> values [*S]``.
    """

    init: Callable[[Key], PyTree]
    fit: Callable[[PyTree, Key, Replay], tuple[PyTree, Metrics]]
    value: Callable[[PyTree, Array], Array]


class _Design(NamedTuple):
    spec: Spec
    config: Config
    network: MLP
    optimiser: optax.GradientTransformation


def make(spec: Spec, config: Config | None = None) -> StateValue:
    """Bind a learned value to an environment with vector observations."""
    config = config or Config()
    network = MLP(config.hidden, 1, config.activation)
    design = _Design(spec, config, network, optax.adam(config.learning_rate))
    return StateValue(partial(_init, design), partial(fit, design), partial(_value, design))


def known(function: Callable[[Array], Array]) -> StateValue:
    """A value, features [*S, F] -> [*S], that needs no learning."""
    return StateValue(
        lambda key: (), lambda state, key, replay: (state, {}), lambda state, features: function(features)
    )


def td_target(config: Config, reward: Array, discount: Array, average_tp1: Array) -> Array:
    r"""The target of :math:`(1 - \gamma) V(s_t)`: :math:`(1 - \gamma) r_t + \gamma d_t (1 - \gamma) V(s_{t+1})`."""
    return (1.0 - config.discount) * reward + config.discount * discount * average_tp1


def expectile_loss(error: Array, expectile: float | Array) -> Array:
    r"""The squared error, weighed by where the target lies: :math:`2 |\tau - 1[e < 0]| e^2`, at 0.5 :math:`e^2`."""
    return 2.0 * jnp.abs(expectile - (error < 0)) * jnp.square(error)


def fit(design: _Design, state: State, key: Key, replay: Replay) -> tuple[State, Metrics]:
    """Take ``config.steps`` gradient steps on uniform minibatches.

    Args:
        design: what `make` has bound.
        state: to go on from.
        key: PRNG key.
        replay: a store that is not empty.

    Returns:
        The new state, and metrics ``value_loss`` (of the averaged reward, a mean over the steps) and ``value``
        (a mean over the last minibatch).
    """
    config = design.config
    state = _calibrate(design, state, replay)

    def step(state: State, key: Key) -> tuple[State, tuple[Array, Array]]:
        batch = replays.sample(key, replay, config.batch_size)
        average_tp1 = jnp.clip(_average(design, state, state.target, batch.next_obs), state.low, state.high)
        target = td_target(config, batch.reward, batch.discount, average_tp1)

        def objective(params: PyTree) -> tuple[Array, Array]:
            average = _average(design, state, params, batch.obs)
            return jnp.mean(expectile_loss(target - average, config.expectile)), jnp.mean(average)

        (loss, average), gradient = jax.value_and_grad(objective, has_aux=True)(state.params)
        updates, optimiser = design.optimiser.update(gradient, state.optimiser, state.params)
        params = jax.tree.map(jnp.add, state.params, updates)
        followed = optax.incremental_update(params, state.target, config.target_rate)
        return state._replace(params=params, target=followed, optimiser=optimiser), (loss, average)

    state, (losses, averages) = jax.lax.scan(step, state, jax.random.split(key, config.steps))
    return state, {"value_loss": jnp.mean(losses), "value": averages[-1] / (1.0 - config.discount)}


def _init(design: _Design, key: Key) -> State:
    num_inputs = design.spec.obs_size + len(design.spec.angles)
    params = design.network.init(key, jnp.zeros(num_inputs))
    target = jax.tree.map(jnp.copy, params)  # buffers of its own: the state is donated, and none may be given twice
    return State(
        params,
        target,
        design.optimiser.init(params),
        jnp.zeros(num_inputs),
        jnp.ones(num_inputs),
        jnp.zeros(()),
        jnp.zeros(()),
    )


def _calibrate(design: _Design, state: State, replay: Replay) -> State:
    """The moments of the observations in the store."""
    data, filled = replays.flatten(replay)
    inputs = jax.vmap(partial(encode, angles=design.spec.angles))(data.obs)
    share = (filled / jnp.sum(filled))[:, None]
    mean = jnp.sum(share * inputs, axis=0)
    std = jnp.sqrt(jnp.sum(share * jnp.square(inputs - mean), axis=0))
    low = jnp.min(data.reward, where=filled, initial=0.0)
    high = jnp.max(data.reward, where=filled, initial=0.0)
    return state._replace(mean=mean, std=jnp.where(std < MIN_STD, 1.0, std), low=low, high=high)


def _average(design: _Design, state: State, params: PyTree, obs: Array) -> Array:
    """(1 - gamma) V, [*S], of observations [*S, O]."""
    encoded = jnp.vectorize(partial(encode, angles=design.spec.angles), signature="(o)->(i)")(obs)
    return jnp.asarray(design.network.apply(params, (encoded - state.mean) / state.std))[..., 0]


def _value(design: _Design, state: State, obs: Array) -> Array:
    average = jnp.clip(_average(design, state, state.params, obs), state.low, state.high)
    return average / (1.0 - design.config.discount)
