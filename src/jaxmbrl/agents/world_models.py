"""World Models: see, remember, and evolve a small controller in a dream (Ha and Schmidhuber 2018, arXiv:1803.10122).

    fill the replay store by random actions, or by random controllers
    each epoch:  V  fit the autoencoder to observations
                 M  fit the mixture-density recurrent network to sequences of latents
                 C  evolve a linear controller of [z, h] by CMA-ES, in M's dreams or in the true environment
                 each step:  act by the controller, on what V sees and M remembers

One epoch is the paper's main experiments; several are its iterative procedure (section 5), each going on from the
parameters of the last. Steps in the environment that evolution takes are not among the run's ``env_steps``: the metric
``evolution_steps`` counts them. Dreams start from replayed observations with an empty memory. With ``exploration`` each
stored episode has weights of its own around the controller's; random ones at first, as in the released code (smaller).

Differs from the paper: dreams have a learned reward, and an end that is a chance rather than a coin's throw; all
candidates of a generation meet the same episodes; tanh for every action (the paper squashes each of car racing's three
by a function of its own); M learns from windows of any start; the iterative procedure has no curiosity bonus.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

from jaxmbrl import planners
from jaxmbrl import replay as replays
from jaxmbrl.agents.presets import Preset, choose
from jaxmbrl.config import ConfigError, configurable, option
from jaxmbrl.models import actions, mdn_rnn, vae
from jaxmbrl.models.mdn_rnn import MDNRNN, Belief
from jaxmbrl.models.networks import MLP
from jaxmbrl.planners import cmaes
from jaxmbrl.policies import evolution
from jaxmbrl.policies.actor_critic import descend
from jaxmbrl.policies.evolution import Controller
from jaxmbrl.replay import Replay
from jaxmbrl.schedule import Schedule
from jaxmbrl.types import Agent, Array, Environment, Key, Metrics, Planner, PyTree, Spec, TimeStep, Transition

Loss: TypeAlias = Callable[[PyTree, Key, PyTree], tuple[Array, Metrics]]  # of ONE example: (loss [], metrics)

ENCODE_ROWS = 64  # rows of the store that are encoded at once: bounds the memory that images take
EVOLVE_IN = ("dream", "environment")
EVOLUTIONS: dict[str, type] = {name: planners.CONFIGS[name] for name in ("cem", "cmaes", "es")}  # they need no gradient
LAST_RATE, DECAY = 1e-5, 0.99999  # of M's step size: its limit, and its approach to it a step (released code)


@configurable
class Config:
    """The paper's car racing (App. A), evolved in the environment."""

    model: mdn_rnn.Config = option(mdn_rnn.Config(), "V and M")
    autoencoder_steps: int = option(100_000, "gradient steps of V a fit", low=1)  # one pass; released: ten
    autoencoder_batch: int = option(100, "observations a step", low=1)
    autoencoder_rate: float = option(1e-4, "Adam's step size", above=0.0)
    recurrent_steps: int = option(4_000, "gradient steps of M a fit", low=1)
    sequences: int = option(100, "sequences a step of M (B)", low=1)
    length: int = option(999, "steps of a sequence (T)", low=1)
    recurrent_rate: float = option(1e-3, "Adam's first step size", above=0.0)
    clip: float = option(1.0, "largest entry of M's gradients", above=0.0)
    hidden: tuple[int, ...] = option((), "widths of the controller's hidden layers; none: linear", low=1)
    limit: float = option(10.0, "greatest absolute weight of the controller: half the range of the search", above=0.0)
    planner: Any = option(cmaes.Config(iterations=100, std=0.01), "what evolves it", parts=EVOLUTIONS)
    evolve_in: str = option("environment", "where candidates are judged", choices=EVOLVE_IN)
    episodes: int = option(16, "over which a candidate's return is averaged", low=1)
    horizon: int = option(1000, "steps of an episode, dreamt or real (H)", low=1)
    discount: float = option(1.0, "of rewards, a step", low=0.0, high=1.0)
    exploration: float = option(0.0, "std of what is added to the controller's weights for an episode", low=0.0)


class Memory(NamedTuple):
    """Within an episode: M's memory, and what is added to the controller's parameters where it explores, [D]."""

    seen: PyTree
    noise: Array


class State(NamedTuple):
    """What learns.

    Attributes:
        model: of V and M.
        autoencoder: of V's optimiser.
        recurrent: of M's.
        plan: where the next evolution starts.
        controller: theta [D].
    """

    model: mdn_rnn.Params
    autoencoder: PyTree
    recurrent: PyTree
    plan: PyTree
    controller: Array


class _System(NamedTuple):
    """The static parts that the functions below are bound to."""

    env: Environment | None
    config: Config
    model: MDNRNN
    controller: Controller
    planner: Planner
    autoencoder: optax.GradientTransformation
    recurrent: optax.GradientTransformation


def make(spec: Spec, config: Config | None = None, *, env: Environment | None = None) -> Agent:
    """Bind World Models to an environment.

    Args:
        spec: observations are vectors, or uint8 images of 32 x 32 or 64 x 64.
        config: see `Config`.
        env: the environment itself, needed only to evolve in it.

    Raises:
        ConfigError: if evolution in the environment is asked for without ``env``, or as `vae.make` does.
    """
    config = config or Config()
    if config.evolve_in == "environment" and env is None:
        raise ConfigError("evolve_in: got environment, needs the environment: pass env=")
    network, latent = MLP(config.hidden, actions.size(spec.action)), config.model.autoencoder.latent
    controller = evolution.controller(spec, network, latent + config.model.hidden)
    system = _System(
        env=env,
        config=config,
        model=mdn_rnn.make(spec, config.model),
        controller=controller,
        planner=planners.make((controller.size,), -config.limit, config.limit, config.planner),
        autoencoder=optax.adam(config.autoencoder_rate),
        recurrent=optax.chain(optax.clip(config.clip), optax.adam(_falling(config.recurrent_rate))),
    )
    return Agent(
        init=partial(_init, system),
        memory=partial(_memory, system),
        act=partial(_act, system),
        fit=partial(_fit, system),
        improve=lambda agent_state, key, replay: (agent_state, {}),
        foresee=lambda state, *seen, **options: mdn_rnn.foresee(system.model, state.model, *seen, **options),
        window=config.length,
        acts_first=bool(config.exploration > 0),  # not for a tracer: a sweep compiles each value by itself
    )


def _falling(first: float | Array) -> optax.Schedule:
    return lambda step: LAST_RATE + (first - LAST_RATE) * DECAY**step


def _init(system: _System, key: Key) -> State:
    params, plan = system.model.world.init(key), system.planner.init()
    autoencoder, recurrent = system.autoencoder.init(params.autoencoder), system.recurrent.init(params)
    return State(params, autoencoder, recurrent, plan, jnp.zeros(system.controller.size))


def _memory(system: _System, agent_state: State, key: Key) -> Memory:
    noise = system.config.exploration * jax.random.normal(key, (system.controller.size,))
    return Memory(system.model.memory(), noise)


def _act(
    system: _System, agent_state: State, key: Key, memory: Memory, timestep: TimeStep, *, explore: bool
) -> tuple[Array, Memory, Any]:
    params, world = agent_state.model, system.model.world
    belief = world.start(params, key, timestep)._replace(memory=memory.seen)
    theta = agent_state.controller + memory.noise if explore else agent_state.controller
    action = system.controller.act(theta, world.features(params, belief))
    return action, memory._replace(seen=system.model.advance(params, belief, action)), ()


def _fit(system: _System, state: State, key: Key, replay: Replay) -> tuple[State, Metrics]:
    key_autoencoder, key_recurrent, key_evolve = jax.random.split(key, 3)
    data, filled = replays.flatten(replay)
    state = state._replace(model=system.model.calibrate(state.model, data, filled.astype(jnp.float32)))
    state, metrics = _fit_autoencoder(system, state, key_autoencoder, replay)
    latents = encode(system.model, state.model, replay)
    state, recurrent_metrics = _fit_recurrent(system, state, key_recurrent, latents)
    state, evolution_metrics = _evolve(system, state, key_evolve, latents)
    return state, metrics | recurrent_metrics | evolution_metrics


def _minimise(
    optimiser: optax.GradientTransformation, loss: Loss, draw: Callable[[Key], PyTree], start: PyTree, keys: Key
) -> tuple[PyTree, Metrics]:
    """A gradient step on fresh data for each key, from (params, optimiser's state); metrics of the last tenth."""

    def objective(params: PyTree, key: Key, batch: PyTree) -> tuple[Array, Metrics]:
        each = jax.random.split(key, len(jax.tree.leaves(batch)[0]))
        return jax.tree.map(jnp.mean, jax.vmap(loss, in_axes=(None, 0, 0))(params, each, batch))

    def step(carry: tuple[PyTree, PyTree], key: Key) -> tuple[tuple[PyTree, PyTree], Metrics]:
        params, state = carry
        key_draw, key_loss = jax.random.split(key)
        gradient, metrics = jax.grad(objective, has_aux=True)(params, key_loss, draw(key_draw))
        return descend(optimiser, gradient, params, state), metrics

    end, metrics = jax.lax.scan(step, start, keys)
    return end, jax.tree.map(lambda leaf: jnp.mean(leaf[-max(len(leaf) // 10, 1) :]), metrics)


def _fit_autoencoder(system: _System, state: State, key: Key, replay: Replay) -> tuple[State, Metrics]:
    (params, optimiser), metrics = _minimise(
        system.autoencoder,
        system.model.autoencoder.loss,
        lambda key: replays.sample(key, replay, system.config.autoencoder_batch).obs,
        (state.model.autoencoder, state.autoencoder),
        jax.random.split(key, system.config.autoencoder_steps),
    )
    return state._replace(model=state.model._replace(autoencoder=params), autoencoder=optimiser), metrics


def encode(model: MDNRNN, params: mdn_rnn.Params, replay: Replay) -> Replay:
    """A store of the same transitions whose ``obs`` and ``next_obs`` are posteriors; ``extras`` are left out."""

    def one(obs: PyTree) -> vae.Posterior:
        return model.autoencoder.encode(params.autoencoder, obs)

    def row(words: Array) -> Transition:
        data = replays.unpack(words, replay.layout)
        return data._replace(obs=jax.vmap(one)(data.obs), next_obs=jax.vmap(one)(data.next_obs), extras=())

    rows = jax.lax.map(row, replay.data, batch_size=ENCODE_ROWS)
    return replays.from_rows(rows, cursor=replay.cursor, size=replay.size)


def _fit_recurrent(system: _System, state: State, key: Key, latents: Replay) -> tuple[State, Metrics]:
    config = system.config
    (params, optimiser), metrics = _minimise(
        system.recurrent,
        system.model.loss,
        lambda key: replays.sample_sequences(key, latents, config.sequences, config.length),
        (state.model, state.recurrent),
        jax.random.split(key, config.recurrent_steps),
    )
    return state._replace(model=params, recurrent=optimiser), metrics


def _evolve(system: _System, state: State, key: Key, latents: Replay) -> tuple[State, Metrics]:
    config, world = system.config, system.model.world

    def dreamt(key: Key) -> Belief:
        key_draw, key_latent = jax.random.split(key)
        posterior = replays.take(latents, replays.uniform_index(key_draw, (), replays.num_transitions(latents))).obs
        return Belief(vae.sample(key_latent, posterior), system.model.memory())

    begin = dreamt
    if config.evolve_in == "environment":
        assert system.env is not None  # `make` has checked
        world = evolution.filtered(system.env, world)
        begin = evolution.fresh(system.env, world, state.model)
    objective = evolution.objective(
        world,
        state.model,
        begin,
        system.controller.act,
        horizon=config.horizon,
        episodes=config.episodes,
        discount=config.discount,
    )
    controller, plan, info = system.planner.plan(key, objective, state.plan)
    metrics = {"evolution_best": info.score[-1], "evolution_mean": info.mean_score[-1]}
    if config.evolve_in == "environment":
        steps = config.planner.population * config.planner.iterations * config.episodes * config.horizon
        metrics["evolution_steps"] = jnp.asarray(steps, jnp.float32)
    return state._replace(plan=plan, controller=controller), metrics


def preset(name: str, spec: Spec) -> Preset:
    """``small``: minutes on a laptop's CPU. ``paper``: the paper's sizes, for accelerators. Raises ConfigError."""
    return choose(name, spec, {"small": _small, "paper": _paper})


def _small(spec: Spec) -> Preset:
    """Evolution in the dream, iterated: sized for two cores."""
    images, vectors = vae.Config(latent=16, depth=8), vae.Config(latent=8, hidden=(64, 64), std=0.1)
    autoencoder, length = images if spec.is_image else vectors, 50
    steps = min(spec.episode_length, 200)
    agent = Config(
        model=mdn_rnn.Config(autoencoder=autoencoder, cell="gru", hidden=64),
        autoencoder_steps=1000,
        autoencoder_batch=64,
        autoencoder_rate=1e-3,
        recurrent_steps=1000,
        sequences=16,
        length=length,
        planner=cmaes.Config(population=32, iterations=30, std=0.05),
        evolve_in="dream",
        episodes=16,
        horizon=min(steps, 100),
        exploration=0.3 if spec.is_image else 0.0,
    )
    return Preset(agent, Schedule(epochs=8, prefill=max(5 * steps, length), epoch_steps=2 * steps, eval_episodes=5))


def _paper(spec: Spec) -> Preset:
    """Car racing's for any task: 10,000 random episodes, one epoch, 1,800 generations."""
    agent = Config(horizon=spec.episode_length, planner=cmaes.Config(iterations=1800, std=0.01))
    steps = 10_000 * spec.episode_length
    return Preset(agent, Schedule(epochs=1, prefill=steps, epoch_steps=16 * spec.episode_length, num_envs=16))
