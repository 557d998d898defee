"""Maximum-likelihood fitting of an ensemble to a replay store: bootstraps, hold-out, early stopping, elites.

Every k-th slot of the store is held out for good, so that no call ever trains on a held-out transition. A member's
bootstrap resample is a hash function from positions to positions: it costs no memory.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmbrl import replay as replays
from jaxmbrl import sharding
from jaxmbrl.config import ConfigError, configurable, option
from jaxmbrl.models import ensemble, one_step
from jaxmbrl.models.ensemble import Ensemble
from jaxmbrl.replay import Replay
from jaxmbrl.types import Array, Key, Metrics, PyTree, Transition, WorldModel

NEVER_HELD_OUT = 0


@configurable
class Config:
    """How an ensemble is fitted, each time that it is fitted."""

    learning_rate: float = option(1e-3, "Adam's step size", above=0.0)
    batch_size: int = option(32, "transitions a member sees in a gradient step (B)", low=1)
    passes: int = option(5, "most passes over the data", low=1)
    bootstrap: bool = option(True, "each member learns from its own resample of the data")
    holdout_every: int = option(NEVER_HELD_OUT, "every n-th transition is held out; 0 holds none out", low=0)
    validation_size: int = option(1000, "most held-out transitions that are looked at", low=1)
    patience: int = option(0, "passes without improvement before a fit stops; 0 never stops early", low=0)
    min_improvement: float = option(0.01, "relative fall of the held-out loss that patience counts as one", low=0.0)

    def check(self) -> None:
        """Something is left to learn from, and patience has something to look at."""
        if self.holdout_every == 1:
            raise ConfigError("holdout_every: got 1, needs 0 (none) or at least 2: with 1, nothing is left to fit")
        if self.patience and not self.holdout_every:
            raise ConfigError(f"patience: got {self.patience}, needs holdout_every: it waits for the held-out loss")


class State(NamedTuple):
    """What fitting carries from call to call: ensemble parameters and Adam's state (leaves [E, ...])."""

    params: ensemble.Params
    optimiser: PyTree


class Fitter(NamedTuple):
    """Fitting bound to a model.

    Attributes:
        init: ``(key) -> State``.
        fit: ``(State, key, replay) -> (State, metrics)``.
    """

    init: Callable[[Key], State]
    fit: Callable[[State, Key, Replay], tuple[State, Metrics]]


class _Progress(NamedTuple):
    """Carry of the loop over passes.

    ``best`` and ``best_loss`` are each member's best so far on held-out data, and ``mark`` the loss from which it has
    to fall by ``min_improvement`` to keep patience.
    """

    members: one_step.Params
    optimiser: PyTree
    best: one_step.Params
    best_loss: Array
    mark: Array
    stale: Array
    number: Array
    train_loss: Array


def make(model: Ensemble, config: Config | None = None) -> Fitter:
    """Bind fitting to ``model``. Raises ConfigError if elites are wanted, but nothing is held out to find them."""
    config = config or Config()
    if model.num_elites < model.size and not config.holdout_every:
        needs = f"at least 2 to choose {model.num_elites} elites of {model.size} members"
        raise ConfigError(f"fit.holdout_every: got {config.holdout_every}, needs {needs}")
    optimiser = optax.adam(config.learning_rate)
    return Fitter(partial(_init, model, optimiser), partial(fit, model, optimiser, config))


def _init(model: Ensemble, optimiser: optax.GradientTransformation, key: Key) -> State:
    params = model.world.init(key)
    return State(params, jax.vmap(optimiser.init)(params.members))


def train_position(position: Array, holdout_every: int) -> Array:
    """Slot of the n-th transition that is not held out: skips slots k-1, 2k-1, ... for k = ``holdout_every``."""
    if not holdout_every:
        return position
    return position + position // (holdout_every - 1)


def bootstrap_position(key: Key, position: Array, count: Array) -> Array:
    """Where a resample with replacement of ``count`` transitions has its ``position``-th entry.

    The resample is the hash ``position -> uniform_index(fold_in(key, position))``, drawn when it is looked at.
    """
    return replays.uniform_index(jax.random.fold_in(key, position), (), count)


def draw(key: Key, key_bootstrap: Key | None, replay: Replay, config: Config) -> Transition:
    """A minibatch [B] of one member's training data."""
    held_out = replays.num_transitions(replay) // config.holdout_every if config.holdout_every else 0
    count = replays.num_transitions(replay) - held_out
    position = replays.uniform_index(key, (config.batch_size,), count)
    if key_bootstrap is not None:
        position = jax.vmap(bootstrap_position, in_axes=(None, 0, None))(key_bootstrap, position, count)
    return replays.take(replay, train_position(position, config.holdout_every))


def holdout(replay: Replay, config: Config) -> tuple[Transition, Array]:
    """Held-out transitions [V], spread evenly over those there are, and a weight [V] of 0 where there is none."""
    count = replays.num_transitions(replay) // config.holdout_every
    index = jnp.arange(config.validation_size)
    spread_index = jnp.where(
        count > config.validation_size, (index * (count / config.validation_size)).astype(jnp.int32), index
    )
    slot = (spread_index + 1) * config.holdout_every - 1
    weight = (spread_index < count).astype(jnp.float32)
    return replays.take(replay, jnp.where(weight > 0, slot, 0)), weight


def fit(
    model: Ensemble, optimiser: optax.GradientTransformation, config: Config, state: State, key: Key, replay: Replay
) -> tuple[State, Metrics]:
    """Fit every member to ``replay`` by Adam on its own minibatches.

    Runs at most ``passes`` passes, each of as many gradient steps as there are minibatches in the store, and ends
    earlier once no member's held-out loss has improved for ``patience`` passes; each member then returns to its best.

    Args:
        model: the ensemble.
        optimiser: applied to each member apart.
        config: see `Config`.
        state: parameters and optimiser state to go on from.
        key: PRNG key.
        replay: a store that is not empty.

    Returns:
        The new state, and metrics ``model_loss`` (mean training loss of the last pass), ``model_passes``, and with a
        hold-out ``model_holdout_loss`` (mean over the elites).
    """
    key_bootstrap, key_passes = jax.random.split(key)
    members = _calibrate(model, state.params.members, replay)
    bootstraps = jax.random.split(key_bootstrap, model.size) if config.bootstrap else None
    steps = (replays.num_transitions(replay) + config.batch_size - 1) // config.batch_size
    validate = partial(_validate, model, replay=replay, config=config) if config.holdout_every else None
    blind = replays.num_transitions(replay) < config.holdout_every  # too few to hold one out

    def run_pass(progress: _Progress) -> _Progress:
        key_pass = jax.random.fold_in(key_passes, progress.number)

        def gradient_step(
            step: Array, carry: tuple[one_step.Params, PyTree, Array]
        ) -> tuple[one_step.Params, PyTree, Array]:
            members, optimiser_state, total = carry
            keys = jax.random.split(jax.random.fold_in(key_pass, step), model.size)
            update = partial(_member_step, model, optimiser, config, replay)
            axes = (0, 0, 0, 0 if config.bootstrap else None)
            members, optimiser_state, losses = sharding.vmap(update, in_axes=axes)(
                members, optimiser_state, keys, bootstraps
            )
            return members, optimiser_state, total + jnp.mean(losses)

        start = (progress.members, progress.optimiser, jnp.zeros(()))
        members, optimiser_state, total = jax.lax.fori_loop(0, steps, gradient_step, start)
        progress = progress._replace(members=members, optimiser=optimiser_state, train_loss=total / steps)
        progress = (
            _keep_best(progress, validate(members), blind, config) if validate else progress._replace(best=members)
        )
        return progress._replace(number=progress.number + 1)

    def go_on(progress: _Progress) -> Array:
        patient = progress.stale < config.patience if config.patience else True
        return (progress.number < config.passes) & patient

    first_loss = validate(members) if validate else jnp.zeros(model.size)
    zero = jnp.zeros((), jnp.int32)
    start = _Progress(members, state.optimiser, members, first_loss, first_loss, zero, zero, jnp.zeros(()))
    end = jax.lax.while_loop(go_on, run_pass, start)
    metrics = {"model_loss": end.train_loss, "model_passes": end.number.astype(jnp.float32)}
    elites = state.params.elites
    if validate:
        elites = jnp.argsort(end.best_loss)[: model.num_elites].astype(jnp.int32)
        metrics["model_holdout_loss"] = jnp.mean(end.best_loss[elites])
    return State(ensemble.Params(end.best, elites), end.optimiser), metrics


def _calibrate(model: Ensemble, members: one_step.Params, replay: Replay) -> one_step.Params:
    data, filled = replays.flatten(replay)
    calibrate = jax.vmap(model.base.calibrate, in_axes=(0, None, None))
    return calibrate(members, data, filled.astype(jnp.float32))


def _member_step(
    model: Ensemble,
    optimiser: optax.GradientTransformation,
    config: Config,
    replay: Replay,
    params: one_step.Params,
    optimiser_state: PyTree,
    key: Key,
    key_bootstrap: Key | None,
) -> tuple[one_step.Params, PyTree, Array]:
    """One gradient step of one member on a minibatch of its own."""
    key_draw, key_loss = jax.random.split(key)
    batch = draw(key_draw, key_bootstrap, replay, config)
    keys = jax.random.split(key_loss, config.batch_size)

    def objective(params: one_step.Params) -> tuple[Array, Array]:
        loss = jnp.mean(jax.vmap(model.base.loss, in_axes=(None, 0, 0))(params, keys, batch))
        return loss + model.base.penalty(params), loss

    gradient, loss = jax.grad(objective, has_aux=True)(params)
    updates, optimiser_state = optimiser.update(gradient, optimiser_state, params)
    params = jax.tree.map(jnp.add, params, updates)
    return params, optimiser_state, loss


def _validate(model: Ensemble, members: one_step.Params, *, replay: Replay, config: Config) -> Array:
    """Held-out loss of each member [E]."""
    batch, weight = holdout(replay, config)
    keys = jax.random.split(jax.random.key(0), config.validation_size)  # the same draws each time: losses compare
    losses = jax.vmap(jax.vmap(model.base.loss, in_axes=(None, 0, 0)), in_axes=(0, None, None))(members, keys, batch)
    return jnp.sum(losses * weight, axis=1) / jnp.maximum(jnp.sum(weight), 1.0)


def _keep_best(progress: _Progress, loss: Array, blind: Array, config: Config) -> _Progress:
    """Remember each member at its best (its latest, if nothing is held out), and count passes since any improved."""
    better = (loss < progress.best_loss) | blind
    best = jax.tree.map(
        lambda new, old: jnp.where(better.reshape((-1,) + (1,) * (new.ndim - 1)), new, old),
        progress.members,
        progress.best,
    )
    improved = (progress.mark - loss > config.min_improvement * jnp.abs(progress.mark)) | blind
    return progress._replace(
        best=best,
        best_loss=jnp.where(better, loss, progress.best_loss),
        mark=jnp.where(improved, loss, progress.mark),
        stale=jnp.where(jnp.any(improved), 0, progress.stale + 1),
    )


def nothing(world: WorldModel) -> Fitter:
    """The Fitter of a model that has nothing to learn."""
    return Fitter(lambda key: State(world.init(key), ()), lambda state, key, replay: (state, {}))
