"""Imitation: a policy is fitted to what an expert did, its (observation, action) pairs (see `demonstrations`).

    student = imitation.student(spec, config)                     what is fitted
    state, metrics = imitation.fit(student, config, state, key, pairs)

Behaviour cloning is `fit` on an expert's own pairs; DAgger (Ross et al. 2011, arXiv:1011.0686, Alg. 3.1) is `fit` on an
aggregate of the states that the student visited, with the expert's actions there.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmbrl.config import ConfigError, configurable, option
from jaxmbrl.models.networks import ACTIVATIONS, MLP
from jaxmbrl.models.one_step import MIN_STD, encode
from jaxmbrl.policies.demonstrations import Pairs
from jaxmbrl.types import Array, Key, Learner, Metrics, PyTree, Spec, Transition

FAMILIES = ("deterministic", "gaussian")
BOUNDS = {"tanh": jnp.tanh, "clip": partial(jnp.clip, min=-1.0, max=1.0)}


@configurable
class Config:
    """A policy and how it is fitted, each time that it is fitted (Wang and Ba 2019, released configuration)."""

    hidden: tuple[int, ...] = option((64, 64), "widths of the hidden layers", low=1)
    activation: str = option("tanh", "activation function", choices=tuple(ACTIVATIONS))
    family: str = option("deterministic", "likelihood of the expert's action", choices=FAMILIES)
    bound: str = option("tanh", "what keeps the mean action within its bounds", choices=tuple(BOUNDS))
    learning_rate: float = option(3e-3, "Adam's step size", above=0.0)
    weight_decay: float = option(1e-5, "L2 penalty of all weights, biases left out", low=0.0)
    batch_size: int = option(64, "pairs a gradient step (B)", low=1)
    passes: int = option(100, "most passes over the pairs", low=0)
    holdout_every: int = option(5, "every n-th pair is held out; 0 holds none out", low=0)
    patience: int = option(10, "passes without improvement before a fit stops; 0 never stops early", low=0)

    def check(self) -> None:
        """Something is left to learn from, and patience has something to look at."""
        if self.holdout_every == 1:
            raise ConfigError("holdout_every: got 1, needs 0 (none) or at least 2: with 1, nothing is left to fit")
        if self.patience and not self.holdout_every:
            raise ConfigError(f"patience: got {self.patience}, needs holdout_every: it waits for the held-out loss")


class Params(NamedTuple):
    """A student's parameters.

    Attributes:
        network: of the mean.
        log_std: [A], of an action as a share of half its range.
        mean: [I], of the encoded observations.
        std: [I].
    """

    network: PyTree
    log_std: Array
    mean: Array
    std: Array


class Student(NamedTuple):
    """A policy that learns from examples.

    Attributes:
        init: ``(key) -> params``.
        calibrate: ``(params, obs [D, O], weight [D]) -> params``, with inputs normalised to weighted data.
        action: ``(params, obs [O]) -> [A]``, the mode, within the bounds.
        sample: ``(params, key, obs [O]) -> [A]``, within the bounds.
        loss: ``(params, obs [O], action [A]) -> []``, of one pair.
        penalty: ``(params) -> []``, weight decay.
    """

    init: Callable[[Key], PyTree]
    calibrate: Callable[[PyTree, Array, Array], PyTree]
    action: Callable[[PyTree, Array], Array]
    sample: Callable[[PyTree, Key, Array], Array]
    loss: Callable[[PyTree, Array, Array], Array]
    penalty: Callable[[PyTree], Array]


class State(NamedTuple):
    """What fitting carries from call to call."""

    params: PyTree
    optimiser: PyTree


class _Progress(NamedTuple):
    """Carry of the loop over passes; ``best`` is the best so far on held-out pairs."""

    state: State
    best: PyTree
    best_loss: Array
    stale: Array
    number: Array
    loss: Array


def student(spec: Spec, config: Config | None = None) -> Student:
    r"""A network from normalised, encoded observations to actions in the box.

    The mean is :math:`\mu(o) = c + h \, b(f(o))` with the box's centre c and half range h, and b = tanh or a clip. The
    loss of one pair, with :math:`z = (a - \mu(o)) / h`, is the mean over A of :math:`z^2` (deterministic) or of
    :math:`z^2 / 2 \sigma^2 + \ln \sigma + \ln(2 \pi) / 2` (gaussian, with one learned :math:`\sigma` an action).

    Raises:
        ValueError: observations are no vectors, or actions are discrete.
    """
    config = config or Config()
    num_inputs = spec.obs_size + len(spec.angles)
    network = MLP(config.hidden, spec.box.size, config.activation)
    center, half = (spec.box.high + spec.box.low) / 2, (spec.box.high - spec.box.low) / 2

    def init(key: Key) -> Params:
        zeros = jnp.zeros(num_inputs)
        log_std = jnp.full(spec.box.size, math.log(0.5), jnp.float32)
        return Params(network.init(key, zeros), log_std, zeros, jnp.ones(num_inputs))

    def calibrate(params: Params, obs: Array, weight: Array) -> Params:
        inputs = jax.vmap(partial(encode, angles=spec.angles))(obs)
        share = (weight / jnp.maximum(jnp.sum(weight), 1.0))[:, None]
        mean = jnp.sum(share * inputs, axis=0)
        std = jnp.sqrt(jnp.sum(share * jnp.square(inputs - mean), axis=0))
        return params._replace(mean=mean, std=jnp.where(std < MIN_STD, 1.0, std))

    def action(params: Params, obs: Array) -> Array:
        mean, std = jax.lax.stop_gradient((params.mean, params.std))  # calibrated, not learned
        inputs = (encode(obs, spec.angles) - mean) / std
        return center + half * BOUNDS[config.bound](jnp.asarray(network.apply(params.network, inputs)))

    def sample(params: Params, key: Key, obs: Array) -> Array:
        noise = jax.random.normal(key, half.shape) if config.family == "gaussian" else jnp.zeros(half.shape)
        noisy = action(params, obs) + half * jnp.exp(params.log_std) * noise
        return jnp.clip(noisy, spec.box.low, spec.box.high)

    def loss(params: Params, obs: Array, target: Array) -> Array:
        squared = jnp.square((target - action(params, obs)) / half)
        if config.family == "deterministic":
            return jnp.mean(squared)
        return jnp.mean(0.5 * squared * jnp.exp(-2.0 * params.log_std) + params.log_std + 0.5 * math.log(2.0 * math.pi))

    return Student(init, calibrate, action, sample, loss, lambda params: decay(params.network, config.weight_decay))


def decay(network: PyTree, weight: float | Array) -> Array:
    """The L2 penalty [] of a network's weights, biases left out."""
    kernels = [layer["kernel"] for layer in network["params"].values()]
    return 0.5 * weight * sum((jnp.sum(jnp.square(kernel)) for kernel in kernels), jnp.zeros(()))


def make(spec: Spec, config: Config | None = None) -> Learner:
    """Behaviour cloning as a `Learner`: ``update`` is one gradient step towards a batch's actions."""
    config = config or Config()
    return learner(student(spec, config), config)


def learner(student: Student, config: Config) -> Learner:
    """A student as a `Learner`; its inputs' statistics are those of the last `fit`."""

    def act(state: State, key: Key, obs: Array, *, explore: bool) -> Array:
        return student.sample(state.params, key, obs) if explore else student.action(state.params, obs)

    def update(state: State, key: Key, batch: Transition) -> tuple[State, Metrics]:
        del key
        state, loss = gradient_step(student, config, state, batch.obs, batch.action)
        return state, {"imitation_loss": loss}

    return Learner(partial(init, student, config), act, update)


def optimiser(config: Config) -> optax.GradientTransformation:
    """Adam, as configured."""
    return optax.adam(config.learning_rate)


def init(student: Student, config: Config, key: Key) -> State:
    """A fresh student and Adam's state."""
    params = student.init(key)
    return State(params, optimiser(config).init(params))


def gradient_step(student: Student, config: Config, state: State, obs: Array, action: Array) -> tuple[State, Array]:
    """One Adam step towards ``action`` [B, A] at ``obs`` [B, O]; the loss [] is the one before the step."""

    def objective(params: PyTree) -> tuple[Array, Array]:
        loss = jnp.mean(jax.vmap(student.loss, in_axes=(None, 0, 0))(params, obs, action))
        return loss + student.penalty(params), loss

    gradient, loss = jax.grad(objective, has_aux=True)(state.params)
    updates, adam = optimiser(config).update(gradient, state.optimiser, state.params)
    return State(optax.apply_updates(state.params, updates), adam), loss


def fit(
    student: Student, config: Config, state: State, key: Key, pairs: Pairs, *, group: int = 1
) -> tuple[State, Metrics]:
    """Fit a student to an expert's pairs by Adam on minibatches drawn in proportion to their weights.

    Runs at most ``passes`` passes of as many gradient steps as the training pairs make minibatches, and ends earlier
    once the held-out loss has not fallen for ``patience`` passes; the student then returns to its best.

    Args:
        student: what is fitted.
        config: see `Config`.
        state: parameters and optimiser state to go on from.
        key: consumed.
        pairs: the expert's; with no weight at all, nothing is learned.
        group: consecutive pairs that are held out together, for those that resemble each other.

    Returns:
        The new state, and metrics ``imitation_loss`` (of the last pass), ``imitation_passes``, and with a hold-out
        ``imitation_holdout_loss`` (the best).
    """
    every = config.holdout_every
    held = (
        (jnp.arange(len(pairs.weight)) // group) % every == every - 1 if every else jnp.zeros(len(pairs.weight), bool)
    )
    upto = jnp.cumsum(jnp.where(held, 0.0, pairs.weight))
    steps = jnp.ceil(jnp.sum((pairs.weight > 0) & ~held) / config.batch_size).astype(jnp.int32)
    validate = partial(_mean_loss, student, pairs=pairs._replace(weight=jnp.where(held, pairs.weight, 0.0)))
    blind = jnp.sum(jnp.where(held, pairs.weight, 0.0)) == 0  # nothing is held out: the latest is the best

    def run_pass(progress: _Progress) -> _Progress:
        key_pass = jax.random.fold_in(key, progress.number)

        def step(number: Array, carry: tuple[State, Array]) -> tuple[State, Array]:
            chance = jax.random.uniform(jax.random.fold_in(key_pass, number), (config.batch_size,))
            index = jnp.searchsorted(upto, chance * upto[-1], side="right")
            state, loss = gradient_step(student, config, carry[0], pairs.obs[index], pairs.action[index])
            return state, carry[1] + loss

        state, total = jax.lax.fori_loop(0, steps, step, (progress.state, jnp.zeros(())))
        loss = validate(state.params) if every else progress.best_loss
        improved = (loss < progress.best_loss) | blind
        best = jax.tree.map(partial(jnp.where, improved), state.params, progress.best)
        stale = jnp.where(improved, 0, progress.stale + 1)
        best_loss = jnp.where(improved, loss, progress.best_loss)
        return _Progress(state, best, best_loss, stale, progress.number + 1, total / jnp.maximum(steps, 1))

    def go_on(progress: _Progress) -> Array:
        patient = progress.stale < config.patience if config.patience else True
        return (progress.number < config.passes) & patient & (steps > 0)

    state = state._replace(params=student.calibrate(state.params, pairs.obs, pairs.weight))
    first_loss = validate(state.params) if every else jnp.zeros(())
    zero = jnp.zeros((), jnp.int32)
    end = jax.lax.while_loop(go_on, run_pass, _Progress(state, state.params, first_loss, zero, zero, jnp.zeros(())))
    metrics = {"imitation_loss": end.loss, "imitation_passes": end.number.astype(jnp.float32)}
    if every:
        metrics["imitation_holdout_loss"] = end.best_loss
    return State(end.best, end.state.optimiser), metrics


def _mean_loss(student: Student, params: PyTree, *, pairs: Pairs) -> Array:
    """Weighted mean loss [] over all pairs; 0 where no pair has weight."""
    losses = jax.vmap(student.loss, in_axes=(None, 0, 0))(params, pairs.obs, pairs.action)
    return jnp.sum(losses * pairs.weight) / jnp.maximum(jnp.sum(pairs.weight), 1.0)
