"""One-step models: p(change of the observation, reward, continuation | observation, action) by maximum likelihood.

Inputs and targets are normalised with statistics that live in the parameters. Angles enter as (sin, cos) and their
changes are wrapped to [-pi, pi). The target vector [D] is the normalised [change of obs (O), reward (1, if learned)];
a learned continuation is one logit more.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import distrax
import jax
import jax.numpy as jnp
import optax

from jaxmbrl.config import ConfigError, configurable, option
from jaxmbrl.models.angles import encode, wrap
from jaxmbrl.models.distributions import FAMILIES, Family
from jaxmbrl.models.networks import ACTIVATIONS, MLP, PRECISIONS
from jaxmbrl.types import Array, Key, Metrics, Prediction, PyTree, Spec, TimeStep, Transition, WorldModel

MIN_STD = 1e-6  # of a feature that never varied: dividing by it must not blow up


@configurable
class Config:
    """A probabilistic network (Chua et al. 2018, arXiv:1805.12114) or a least-squares one (Nagabandi et al. 2017)."""

    hidden: tuple[int, ...] = option((200, 200, 200, 200), "widths of the hidden layers", low=1)
    activation: str = option("swish", "activation function", choices=tuple(ACTIVATIONS))
    family: str = option("gaussian", "likelihood of the predicted change", choices=tuple(FAMILIES))
    learn_reward: bool = option(False, "predict the reward instead of using the environment's known function")
    learn_continuation: bool = option(False, "predict whether the episode goes on instead of using the known function")
    weight_decay: tuple[float, ...] = option((), "L2 penalty of each layer's weights, output layer last", low=0.0)
    bound_penalty: float = option(0.01, "weight of (sum of maximal - sum of minimal log-variances)", low=0.0)
    precision: str = option("float32", "of the matrix products", choices=PRECISIONS)

    def check(self) -> None:
        """One weight decay a layer, or none."""
        if len(self.weight_decay) not in (0, len(self.hidden) + 1):
            needs = f"one value a layer ({len(self.hidden) + 1})"
            raise ConfigError(f"weight_decay: got {len(self.weight_decay)} values, needs {needs} or none")


class Normaliser(NamedTuple):
    """Statistics of the data that a model was fitted on.

    Attributes:
        input_mean: [I], of the encoded observation and the action.
        input_std: [I].
        target_mean: [D].
        target_std: [D].
    """

    input_mean: Array
    input_std: Array
    target_mean: Array
    target_std: Array


class Params(NamedTuple):
    """Parameters of a one-step model: the network, the likelihood family's own, and the normaliser (not learned)."""

    network: PyTree
    family: PyTree
    normaliser: Normaliser


class Outcome(NamedTuple):
    """A predicted step: next_obs [O], reward [], discount []."""

    next_obs: Array
    reward: Array
    discount: Array


class OneStepModel(NamedTuple):
    """A Markov model that can be fitted by maximum likelihood, and asked for its predictive distribution.

    Attributes:
        init: ``(key) -> params``.
        calibrate: ``(params, transitions [B], weight [B]) -> params``, with the normaliser fitted to weighted data.
        loss: ``(params, key, transition) -> []``, of ONE transition, regularisers left out.
        penalty: ``(params) -> []``, the regularisers: weight decay and the family's own.
        distribution: ``(params, obs [O], action [A]) -> distrax.Distribution`` over the normalised target [D].
        target: ``(params, transition) -> [D]``, the normalised target.
        outcome: ``(params, key, obs, action) -> Outcome``, a sample.
        mean_outcome: ``(params, obs, action) -> Outcome``, at the distribution's mean.
        noisy_outcome: ``(params, obs, action, noise [D]) -> Outcome``, at the mean and ``noise`` standard deviations.
        infer_noise: ``(params, transition) -> [D]``, the noise with which `noisy_outcome` gives what really happened.
    """

    init: Callable[[Key], Params]
    calibrate: Callable[[Params, Transition, Array], Params]
    loss: Callable[[Params, Key, Transition], Array]
    penalty: Callable[[Params], Array]
    distribution: Callable[[Params, Array, Array], distrax.Distribution]
    target: Callable[[Params, Transition], Array]
    outcome: Callable[[Params, Key, Array, Array], Outcome]
    mean_outcome: Callable[[Params, Array, Array], Outcome]
    noisy_outcome: Callable[[Params, Array, Array, Array], Outcome]
    infer_noise: Callable[[Params, Transition], Array]


class _Design(NamedTuple):
    """The static choices that the functions below are bound to."""

    spec: Spec
    config: Config
    family: Family
    network: MLP

    @property
    def target_size(self) -> int:
        return self.spec.obs_size + self.config.learn_reward


def complete(config: Config, spec: Spec) -> Config:
    """``config`` made to learn the reward and the continuation where ``spec`` does not tell them."""
    unknown = spec.reward is None
    return dataclasses.replace(config, learn_reward=unknown, learn_continuation=unknown and spec.termination is None)


def make(spec: Spec, config: Config | None = None) -> OneStepModel:
    """Bind a one-step model to an environment's spec.

    Args:
        spec: of an environment with vector observations and continuous actions.
        config: see `Config`.

    Raises:
        ConfigError: if the reward or the termination is neither learned nor known.
    """
    config = config or Config()
    if spec.reward is None and not config.learn_reward:
        raise ConfigError(f"learn_reward: got False, needs True, since {spec.name} has no known reward function")
    if spec.reward is None and spec.termination is None and not config.learn_continuation:
        needs = f"True, since {spec.name} has no known termination function"
        raise ConfigError(f"learn_continuation: got False, needs {needs}")
    family = FAMILIES[config.family]
    outputs = family.num_outputs(spec.obs_size + config.learn_reward) + config.learn_continuation
    network = MLP(config.hidden, outputs, config.activation, config.precision)
    design = _Design(spec, config, family, network)
    return OneStepModel(
        init=partial(_init, design),
        calibrate=partial(_calibrate, design),
        loss=partial(_loss, design),
        penalty=partial(_penalty, design),
        distribution=partial(_distribution, design),
        target=partial(_target, design),
        outcome=partial(_outcome, design),
        mean_outcome=partial(_mean_outcome, design),
        noisy_outcome=partial(_noisy_outcome, design),
        infer_noise=partial(_infer_noise, design),
    )


def world_model(model: OneStepModel) -> WorldModel:
    """A one-step model as a WorldModel whose state is the observation [O]."""

    def loss(params: Params, key: Key, batch: Transition) -> tuple[Array, Metrics]:
        keys = jax.random.split(key, batch.reward.shape[0])
        fit = jnp.mean(jax.vmap(model.loss, in_axes=(None, 0, 0))(params, keys, batch))
        return fit + model.penalty(params), {"model_loss": fit}

    def start(params: Params, key: Key, timestep: TimeStep) -> Array:
        return timestep.obs

    def observe(params: Params, key: Key, state: Array, action: Array, timestep: TimeStep) -> Array:
        return timestep.obs

    def step(params: Params, key: Key, state: Array, action: Array) -> tuple[Array, Prediction]:
        outcome = model.outcome(params, key, state, action)
        return outcome.next_obs, Prediction(outcome.reward, outcome.discount)

    return WorldModel(model.init, loss, start, observe, step, lambda params, state: state)


def _inputs(design: _Design, obs: Array, action: Array) -> Array:
    return jnp.concatenate([encode(obs, design.spec.angles), action])


def _raw_target(design: _Design, transition: Transition) -> Array:
    change = wrap(transition.next_obs - transition.obs, design.spec.angles)
    return jnp.append(change, transition.reward) if design.config.learn_reward else change


def _init(design: _Design, key: Key) -> Params:
    num_inputs = design.spec.obs_size + len(design.spec.angles) + design.spec.box.size
    ones, zeros = jnp.ones, jnp.zeros
    normaliser = Normaliser(zeros(num_inputs), ones(num_inputs), zeros(design.target_size), ones(design.target_size))
    return Params(design.network.init(key, zeros(num_inputs)), design.family.init(design.target_size), normaliser)


def _calibrate(design: _Design, params: Params, transitions: Transition, weight: Array) -> Params:
    inputs = jax.vmap(partial(_inputs, design))(transitions.obs, transitions.action)
    targets = jax.vmap(partial(_raw_target, design))(transitions)

    def moments(data: Array) -> tuple[Array, Array]:
        share = (weight / jnp.maximum(jnp.sum(weight), 1.0))[:, None]
        mean = jnp.sum(share * data, axis=0)
        std = jnp.sqrt(jnp.sum(share * jnp.square(data - mean), axis=0))
        return mean, jnp.where(std < MIN_STD, 1.0, std)

    return params._replace(normaliser=Normaliser(*moments(inputs), *moments(targets)))


def _outputs(design: _Design, params: Params, obs: Array, action: Array) -> tuple[Array, Array]:
    """The network's raw outputs [num_outputs] for the family and the continuation's logit []."""
    stats = params.normaliser
    inputs = (_inputs(design, obs, action) - stats.input_mean) / stats.input_std
    outputs = jnp.asarray(design.network.apply(params.network, inputs))
    if design.config.learn_continuation:
        return outputs[:-1], outputs[-1]
    return outputs, jnp.zeros(())


def _distribution(design: _Design, params: Params, obs: Array, action: Array) -> distrax.Distribution:
    return design.family.distribution(params.family, _outputs(design, params, obs, action)[0])


def _target(design: _Design, params: Params, transition: Transition) -> Array:
    stats = params.normaliser
    return (_raw_target(design, transition) - stats.target_mean) / stats.target_std


def _loss(design: _Design, params: Params, key: Key, transition: Transition) -> Array:
    del key
    frozen = params._replace(normaliser=jax.lax.stop_gradient(params.normaliser))
    outputs, logit = _outputs(design, frozen, transition.obs, transition.action)
    loss = design.family.loss(params.family, outputs, _target(design, frozen, transition))
    if design.config.learn_continuation:
        loss += optax.sigmoid_binary_cross_entropy(logit, transition.discount)
    return loss


def _penalty(design: _Design, params: Params) -> Array:
    penalty = design.config.bound_penalty * design.family.penalty(params.family)
    for layer, decay in enumerate(design.config.weight_decay):
        penalty += 0.5 * decay * jnp.sum(jnp.square(params.network["params"][f"layer_{layer}"]["kernel"]))
    return penalty


def _decode(design: _Design, params: Params, obs: Array, action: Array, target: Array, logit: Array) -> Outcome:
    target = target * params.normaliser.target_std + params.normaliser.target_mean
    next_obs = obs + target[: design.spec.obs_size]
    if design.config.learn_reward:
        reward = target[-1]
    else:
        assert design.spec.reward is not None  # `make` has checked
        reward = design.spec.reward(obs, action, next_obs)
    if design.config.learn_continuation:
        discount = jax.nn.sigmoid(logit)
    elif design.spec.termination is not None:
        discount = 1.0 - jnp.asarray(design.spec.termination(obs, action, next_obs), jnp.float32)
    else:
        discount = jnp.ones(())
    return Outcome(next_obs, reward, discount)


def _outcome(design: _Design, params: Params, key: Key, obs: Array, action: Array) -> Outcome:
    outputs, logit = _outputs(design, params, obs, action)
    target = design.family.distribution(params.family, outputs).sample(seed=key)
    return _decode(design, params, obs, action, target, logit)


def _mean_outcome(design: _Design, params: Params, obs: Array, action: Array) -> Outcome:
    outputs, logit = _outputs(design, params, obs, action)
    return _decode(design, params, obs, action, design.family.distribution(params.family, outputs).mean(), logit)


def _moments(design: _Design, params: Params, outputs: Array) -> tuple[Array, Array]:
    """Mean and standard deviation [D]; that of a point mass counts as 1, so that its noise is the residual."""
    distribution = design.family.distribution(params.family, outputs)
    var = distribution.variance()
    return distribution.mean(), jnp.sqrt(jnp.where(var > 0, var, 1.0))


def _noisy_outcome(design: _Design, params: Params, obs: Array, action: Array, noise: Array) -> Outcome:
    outputs, logit = _outputs(design, params, obs, action)
    mean, std = _moments(design, params, outputs)
    return _decode(design, params, obs, action, mean + std * noise, logit)


def _infer_noise(design: _Design, params: Params, transition: Transition) -> Array:
    mean, std = _moments(design, params, _outputs(design, params, transition.obs, transition.action)[0])
    return (_target(design, params, transition) - mean) / std
