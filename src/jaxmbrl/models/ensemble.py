"""Ensembles: a transformation of any one-step model, and how particles travel through it.

The members' parameters keep their own leading axis throughout. A belief is a cloud of particles [M, P/M, O] over the
M members in use, so that each particle goes through exactly one member and no weight is ever copied for a particle.
A large batch of different states is such a cloud too: see `spread`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmbrl.config import ConfigError, configurable, option
from jaxmbrl.models import one_step
from jaxmbrl.models.one_step import OneStepModel, Outcome
from jaxmbrl.types import Array, Key, Metrics, Prediction, PyTree, Spec, TimeStep, Transition, WorldModel


class Params(NamedTuple):
    """Parameters of an ensemble.

    Attributes:
        members: the one-step model's parameters, every leaf [E, ...].
        elites: int32 [M], the members that predict (the best on held-out data, once fitted).
    """

    members: one_step.Params
    elites: Array


class Uncertainty(NamedTuple):
    """Variance of the normalised target [D], split by the law of total variance.

    Attributes:
        epistemic: [D], variance of the members' means: what more data would remove.
        aleatoric: [D], mean of the members' variances: noise of the world.
    """

    epistemic: Array
    aleatoric: Array


class Ensemble(NamedTuple):
    """An ensemble of a one-step model.

    Attributes:
        base: the one-step model that is replicated.
        size: number of members (E).
        num_elites: members that predict (M).
        world: the ensemble as a WorldModel.
    """

    base: OneStepModel
    size: int
    num_elites: int
    world: WorldModel


class Predictors(NamedTuple):
    """One-step models that predict side by side, for those who judge them.

    Attributes:
        base: the one-step model.
        members: its parameters, leaves [M, ...].
    """

    base: OneStepModel
    members: one_step.Params


def predictors(model: Ensemble, params: Params) -> Predictors:
    """The members of an ensemble that predict."""
    return Predictors(model.base, elite_members(params))


def elite_members(params: Params) -> one_step.Params:
    """The parameters of the members that predict, every leaf [M, ...]."""
    if len(params.elites) == jax.tree.leaves(params.members)[0].shape[0]:
        return params.members  # all of them do: no copy
    return jax.tree.map(lambda leaf: leaf[params.elites], params.members)


def uncertainty(model: Ensemble, params: Params, obs: Array, action: Array) -> Uncertainty:
    """Epistemic and aleatoric variance of the normalised target at (obs [O], action [A])."""

    def moments(member: one_step.Params) -> tuple[Array, Array]:
        distribution = model.base.distribution(member, obs, action)
        return distribution.mean(), distribution.variance()

    mean, var = jax.vmap(moments)(elite_members(params))
    return Uncertainty(jnp.var(mean, axis=0), jnp.mean(var, axis=0))


def spread(obs: Array, num_members: int) -> Array:
    """A batch [B, O] of different states as a cloud [M, B/M, O].

    Stepped under ``ts1``, each state meets a random member at each step, as in MBPO (Janner et al. 2019, Sec. 4),
    with the members dealt in equal shares. Raises ValueError if B is not a multiple of M.
    """
    if obs.shape[0] % num_members:
        raise ValueError(f"batch: got {obs.shape[0]} states, needs a multiple of the members ({num_members})")
    return obs.reshape((num_members, -1, *obs.shape[1:]))


# How a belief travels. Each is (base, members [M], key, state, action, in_turn) -> (state, Prediction).


def _cloud_outcome(
    base: OneStepModel, members: one_step.Params, key: Key, cloud: Array, action: Array, in_turn: bool
) -> Outcome:
    """Every particle of [M, P/M, O] one step through its member; ``action`` is [A], or [M, P/M, A]."""
    keys = jax.random.split(key, cloud.shape[:2])
    particles = jax.vmap(base.outcome, in_axes=(None, 0, 0, None if action.ndim == 1 else 0))
    batch = (members, keys, cloud) if action.ndim == 1 else (members, keys, cloud, action)

    def advance(one: tuple[Any, ...]) -> Outcome:
        member, keys, cloud, own_action = one if len(one) == 4 else (*one, action)
        return particles(member, keys, cloud, own_action)

    return jax.lax.map(advance, batch) if in_turn else jax.vmap(advance)(batch)


def _deal(cloud: PyTree, order: Array) -> PyTree:
    """Reorder the particles of every leaf [M, P/M, ...] by ``order`` [P]."""
    return jax.tree.map(lambda leaf: leaf.reshape((-1, *leaf.shape[2:]))[order].reshape(leaf.shape), cloud)


def step_tsinf(
    base: OneStepModel, members: one_step.Params, key: Key, state: Array, action: Array, in_turn: bool = False
) -> tuple[Array, Prediction]:
    """TS-infinity: each particle keeps its member for good (Chua et al. 2018, Sec. 5)."""
    outcome = _cloud_outcome(base, members, key, state, action, in_turn)
    return outcome.next_obs, Prediction(outcome.reward, outcome.discount)


def step_ts1(
    base: OneStepModel, members: one_step.Params, key: Key, state: Array, action: Array, in_turn: bool = False
) -> tuple[Array, Prediction]:
    """TS1: each particle changes its member at each step (Chua et al. 2018, Sec. 5).

    Members are dealt in equal shares by a random permutation, which is undone after the step: a particle keeps its
    place, so that rewards and terminations accumulate where they belong.
    """
    key_deal, key_step = jax.random.split(key)
    order = jax.random.permutation(key_deal, state.shape[0] * state.shape[1])
    dealt_action = action if action.ndim == 1 else _deal(action, order)
    outcome = _cloud_outcome(base, members, key_step, _deal(state, order), dealt_action, in_turn)
    outcome = _deal(outcome, jnp.argsort(order))
    return outcome.next_obs, Prediction(outcome.reward, outcome.discount)


def step_moment_matching(
    base: OneStepModel, members: one_step.Params, key: Key, state: Array, action: Array, in_turn: bool = False
) -> tuple[Array, Prediction]:
    """MM: after each step all particles are drawn anew from one Gaussian fitted to them (Chua et al. 2018, Sec. 5)."""
    key_step, key_draw = jax.random.split(key)
    outcome = _cloud_outcome(base, members, key_step, state, action, in_turn)
    mean = jnp.mean(outcome.next_obs, axis=(0, 1))
    std = jnp.std(outcome.next_obs, axis=(0, 1))
    cloud = mean + std * jax.random.normal(key_draw, outcome.next_obs.shape)
    return cloud, Prediction(outcome.reward, outcome.discount)


def step_expectation(
    base: OneStepModel, members: one_step.Params, key: Key, state: Array, action: Array, in_turn: bool = False
) -> tuple[Array, Prediction]:
    """E: one state [O], moved to the mean of the members' mean predictions."""
    del key, in_turn
    outcomes = jax.vmap(base.mean_outcome, in_axes=(0, None, None))(members, state, action)
    outcome = jax.tree.map(partial(jnp.mean, axis=0), outcomes)
    return outcome.next_obs, Prediction(outcome.reward, outcome.discount)


PROPAGATIONS = {
    "ts1": step_ts1,
    "tsinf": step_tsinf,
    "moment_matching": step_moment_matching,
    "expectation": step_expectation,
}
Step = Callable[[OneStepModel, one_step.Params, Key, Array, Array, bool], tuple[Array, Prediction]]


@configurable
class Members:
    """A bootstrapped ensemble; how anything travels through it is for its system to say."""

    member: one_step.Config = option(one_step.Config(), "each member")
    size: int = option(5, "number of members (E)", low=1)
    elites: int = option(5, "members that predict, the best on held-out data (M)", low=1)

    def check(self) -> None:
        """Elites are members."""
        if self.elites > self.size:
            raise ConfigError(f"elites: got {self.elites}, needs at most size ({self.size})")


@configurable
class Config:
    """A bootstrapped ensemble and the particles that represent its belief (Chua et al. 2018, arXiv:1805.12114)."""

    member: one_step.Config = option(one_step.Config(), "each member")
    size: int = option(5, "number of members (E)", low=1)
    elites: int = option(5, "members that predict, the best on held-out data (M)", low=1)
    particles: int = option(20, "particles of a belief (P), dealt equally to the elites", low=1)
    propagation: str = option("tsinf", "how particles travel", choices=tuple(PROPAGATIONS))
    in_turn: bool = option(False, "members one after another: on CPUs faster for wide networks, elsewhere slower")

    def check(self) -> None:
        """Elites are members, and share the particles equally."""
        if self.elites > self.size:
            raise ConfigError(f"elites: got {self.elites}, needs at most size ({self.size})")
        if self.particles % self.elites:
            raise ConfigError(f"particles: got {self.particles}, needs a multiple of elites ({self.elites})")


def make(spec: Spec, config: Config | None = None) -> Ensemble:
    """An ensemble of `one_step` models. Raises ConfigError as `one_step.make` does."""
    config = config or Config()
    return transform(
        one_step.make(spec, config.member),
        size=config.size,
        elites=config.elites,
        particles=config.particles,
        propagation=config.propagation,
        in_turn=config.in_turn,
    )


def members(spec: Spec, config: Members, *, propagation: str = "tsinf") -> Ensemble:
    """The same of `Members`; a belief that starts as a world model's does has a particle for each elite."""
    base = one_step.make(spec, config.member)
    return transform(base, size=config.size, elites=config.elites, particles=config.elites, propagation=propagation)


def transform(
    base: OneStepModel,
    *,
    size: int = 5,
    elites: int = 5,
    particles: int = 20,
    propagation: str = "tsinf",
    in_turn: bool = False,
) -> Ensemble:
    """Turn a one-step model into an ensemble; the arguments are those of `Config`."""
    shape = () if propagation == "expectation" else (elites, particles // elites)
    functions = (
        partial(init, base, size=size, elites=elites),
        partial(_loss, base),
        partial(_start, shape=shape),
        lambda params, key, state, action, timestep: _start(params, key, timestep, shape=shape),
        partial(_step, base, PROPAGATIONS[propagation], in_turn),
        lambda params, state: state,
    )
    return Ensemble(base, size, elites, WorldModel(*functions))


def init(base: OneStepModel, key: Key, *, size: int, elites: int) -> Params:
    """Independently initialised members, the first ``elites`` of which predict until they are fitted."""
    return Params(jax.vmap(base.init)(jax.random.split(key, size)), jnp.arange(elites, dtype=jnp.int32))


def _loss(base: OneStepModel, params: Params, key: Key, batch: Transition) -> tuple[Array, Metrics]:
    """Mean loss of the members on one common batch; `fitting.fit` gives each member a batch of its own."""
    keys = jax.random.split(key, batch.reward.shape[0])
    losses = jax.vmap(jax.vmap(base.loss, in_axes=(None, 0, 0)), in_axes=(0, None, None))(params.members, keys, batch)
    return jnp.mean(losses) + jnp.mean(jax.vmap(base.penalty)(params.members)), {"model_loss": jnp.mean(losses)}


def _start(params: Params, key: Key, timestep: TimeStep, *, shape: tuple[int, ...]) -> Array:
    return jnp.broadcast_to(timestep.obs, shape + timestep.obs.shape)


def _step(
    base: OneStepModel, propagate: Step, in_turn: bool, params: Params, key: Key, state: Array, action: Array
) -> tuple[Array, Prediction]:
    return propagate(base, elite_members(params), key, state, action, in_turn)
