r"""Deep Q-network (Mnih et al. 2015, Nature 518), and Double DQN (van Hasselt et al. 2016, arXiv:1509.06461, Eq. 4).

    targets:  y = r + gamma d Q'(s', argmax_a Q(s', a))     double: the network chooses, its target copy values
              y = r + gamma d max_a Q'(s', a)               plain
    network:  minimise the mean of huber(Q(s, a) - y)
    copy:     Q' <- Q' + rate (Q - Q'), after every so many updates
    actions:  uniformly random with probability epsilon, else argmax_a Q(s, a)

``d`` is 0 at a termination and 1 at a time limit, beyond which the true next observation still has a value.

Differs from the paper: epsilon falls with the gradient steps taken, of which the paper takes one every fourth frame
and MinAtar's baseline (Young and Tian 2019, arXiv:1903.03176) one a frame.
"""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxmbrl.config import configurable, option
from jaxmbrl.models.angles import encode
from jaxmbrl.models.convolution import GridEncoder
from jaxmbrl.models.networks import ACTIVATIONS, MLP
from jaxmbrl.policies.actor_critic import descend, track
from jaxmbrl.types import Array, Key, Learner, Metrics, PyTree, Spec, Transition


@configurable
class Config:
    """Options of `make`; the defaults are those of MinAtar's baseline, but for ``double``."""

    hidden: tuple[int, ...] = option((128,), "widths of the hidden layers, on a grid after its convolution", low=1)
    depth: int = option(16, "channels of the convolution, for grids", low=1)
    activation: str = option("relu", "activation function", choices=tuple(ACTIVATIONS))
    double: bool = option(True, "the network chooses the action whose value its target copy tells")
    optimiser: str = option("rmsprop", "rmsprop is centred and has momentum, as MinAtar's", choices=("adam", "rmsprop"))
    learning_rate: float = option(2.5e-4, "step size", above=0.0)
    discount: float = option(0.99, "gamma", low=0.0, high=1.0)
    target_every: int = option(1000, "gradient steps between two moves of the target copy", low=1)
    target_rate: float = option(1.0, "by how much it moves towards the network; 1 copies it", low=0.0, high=1.0)
    first_epsilon: float = option(1.0, "chance of a random action before anything is learned", low=0.0, high=1.0)
    last_epsilon: float = option(0.1, "chance of a random action in the end", low=0.0, high=1.0)
    decay: int = option(100_000, "gradient steps over which epsilon goes from first to last", low=1)


class State(NamedTuple):
    """What learns, and what follows.

    Attributes:
        network: parameters.
        target: a copy of them that stays behind.
        optimiser: the optimiser's state.
        updates: int32 [], gradient steps so far.
    """

    network: PyTree
    target: PyTree
    optimiser: PyTree
    updates: Array


class _Design(NamedTuple):
    """What the functions below are bound to."""

    spec: Spec
    config: Config
    network: nn.Module
    optimiser: optax.GradientTransformation


def make(spec: Spec, config: Config | None = None) -> Learner:
    """Bind DQN to an environment's spec.

    Raises:
        ValueError: actions are continuous, or observations are neither vectors nor grids.
    """
    config = config or Config()
    layer = partial(MLP, outputs=spec.num_actions, activation=config.activation)
    if spec.is_grid:
        first, *others = config.hidden
        encoder = GridEncoder(first, config.depth, config.activation)
        network: Any = nn.Sequential([encoder, layer(tuple(others))])
    elif isinstance(spec.observation, jax.ShapeDtypeStruct) and len(spec.observation.shape) == 1:
        network = layer(config.hidden)
    else:
        raise ValueError(f"observation is {spec.observation}, needs one vector or one grid (bool, 3 x 3 or more)")
    design = _Design(spec, config, network, _optimiser(config))
    return Learner(init=partial(_init, design), act=partial(_act, design), update=partial(_update, design))


def _optimiser(config: Config) -> optax.GradientTransformation:
    """Adam, or RMSprop with the constants of MinAtar's code."""
    if config.optimiser == "adam":
        return optax.adam(config.learning_rate)
    return optax.rmsprop(config.learning_rate, decay=0.95, eps=0.01, eps_in_sqrt=False, centered=True, momentum=0.95)


def _init(design: _Design, key: Key) -> State:
    obs = design.spec.observation
    params = design.network.init(key, _inputs(design, jnp.zeros(obs.shape, obs.dtype)))
    copy = jax.tree.map(jnp.copy, params)
    return State(params, copy, design.optimiser.init(params), jnp.zeros((), jnp.int32))


def _inputs(design: _Design, obs: Array) -> Array:
    return obs if design.spec.is_grid else encode(obs, design.spec.angles)


def _values(design: _Design, params: PyTree, obs: Array) -> Array:
    """The value of each action, [num]."""
    return jnp.asarray(design.network.apply(params, _inputs(design, obs)))


def _epsilon(config: Config, updates: Array) -> Array:
    share = jnp.minimum(updates / config.decay, 1.0)
    return config.first_epsilon + share * (config.last_epsilon - config.first_epsilon)


def _act(design: _Design, state: State, key: Key, obs: Array, *, explore: bool) -> Array:
    best = jnp.argmax(_values(design, state.network, obs)).astype(jnp.int32)
    if not explore:
        return best
    key_whether, key_action = jax.random.split(key)
    random = jax.random.randint(key_action, (), 0, design.spec.num_actions)
    return jnp.where(jax.random.uniform(key_whether) < _epsilon(design.config, state.updates), random, best)


def _target(design: _Design, state: State, transition: Transition) -> Array:
    r"""The target :math:`y` of one transition, []."""
    told = _values(design, state.target, transition.next_obs)
    chosen = jnp.argmax(_values(design, state.network, transition.next_obs) if design.config.double else told)
    return transition.reward + design.config.discount * transition.discount * told[chosen]


def _update(design: _Design, state: State, key: Key, batch: Transition) -> tuple[State, Metrics]:
    del key  # nothing is drawn
    config = design.config
    targets = jax.vmap(partial(_target, design, state))(batch)

    def loss(params: PyTree) -> tuple[Array, Array]:
        told = jax.vmap(partial(_values, design, params))(batch.obs)
        taken = jnp.take_along_axis(told, batch.action[:, None], axis=1)[:, 0]
        return jnp.mean(optax.huber_loss(taken, targets)), jnp.mean(taken)

    (loss_value, value), gradient = jax.value_and_grad(loss, has_aux=True)(state.network)
    network, optimiser = descend(design.optimiser, gradient, state.network, state.optimiser)
    updates = state.updates + 1
    rate = jnp.where(updates % config.target_every == 0, config.target_rate, 0.0)
    state = State(network, track(state.target, network, rate), optimiser, updates)
    return state, {"critic_loss": loss_value, "value": value, "epsilon": _epsilon(config, updates)}
