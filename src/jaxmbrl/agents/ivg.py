r"""Imagined Value Gradients: policies that climb the value imagined in a latent model which tasks share.

    after each interaction, ``updates`` times:
        one gradient step of the model on replayed sequences, with the rewards of all tasks
        for each task: one gradient step of its policy on the N-step value imagined from each filtered latent,
            V_N(h) = sum_{i<N} gamma^i r_k(h_i, a_i, h_{i+1}) + gamma^N V_k(h_N),   a_i drawn from pi_k(h_i),
        and one of its critic V_k towards that value

An episode is played under the policy of one task, drawn at its start; what is seen counts for all tasks, whose
rewards are known functions (`Spec.tasks`). The model carries over to another task (`transfer`): only its rewards, a
policy and a critic are learned anew.

Source: Byravan et al. 2019, arXiv:1910.04142; the gradient goes through model and policy, as that of SVG does (Heess et
al. 2015, arXiv:1510.09142), in a latent space. Differs from the paper, of which there is no public code: see
`models.latent_dynamics`; the critic learns from imagined values rather than from replayed rewards; entropy takes the
place of a divergence from an older policy; the policies of tasks share the model, and no layers of their own; tasks are
drawn uniformly. As in Dreamer (`policies.imagination`), what a policy climbs is the mean over t < N of gamma^t G_t, the
discounted returns of all imagined steps, to each of which the actions before it contribute too, rather than
G_0 = V_N(h) alone. With ``lambda_ = 1``, and where no episode ends, that is

    (1/N) sum_{i<N} (i + 1) gamma^i r_k(h_i, a_i, h_{i+1}) + gamma^N V_k(h_N),

in which late rewards weigh more. The critic is fitted to G_t at all N imagined latents, not to V_N at h alone.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmbrl.agents import latent
from jaxmbrl.agents.latent import Learning, ModelState
from jaxmbrl.agents.presets import Preset, choose
from jaxmbrl.config import ConfigError, configurable, near, option
from jaxmbrl.models import latent_dynamics, latent_model, optimisers
from jaxmbrl.models.latent_dynamics import SharedModel
from jaxmbrl.policies import imagination
from jaxmbrl.policies.imagination import Behaviour
from jaxmbrl.replay import Replay
from jaxmbrl.schedule import Schedule
from jaxmbrl.types import Agent, Array, Environment, Key, Metrics, Spec, TimeStep, Transition


@configurable
class Config:
    """A latent model, and what learns in its imagination."""

    tasks: tuple[str, ...] = option((), "known rewards that are learned beside the environment's own, by name")
    updates: int = option(1, "gradient steps after each interaction", low=1)
    starts: int = option(128, "filtered latents that are imagined from in a gradient step; 0 for all", low=0)
    action_noise: float = option(0.0, "std of the noise added to actions, in units of half the range", low=0.0)
    model: latent_dynamics.Config = option(latent_dynamics.Config(), "what is imagined in")
    fit: latent.Fit = option(latent.Fit(), "how the model learns from replayed sequences")
    policy: imagination.Config = option(
        imagination.Config(horizon=5, lambda_=1.0, through_policy=True, slow_rate=0.02),
        "what learns in imagination, once for each task",
    )

    def check(self) -> None:
        """Imagination starts from latents that there are, and its gradient goes through the model."""
        replayed = self.fit.batch_size * self.fit.length
        if self.starts > replayed:
            raise ConfigError(f"starts: got {self.starts}, needs at most fit.batch_size * fit.length = {replayed}")
        if self.policy.gradient != "dynamics":
            raise ConfigError(f"policy.gradient: got {self.policy.gradient}, needs dynamics")


class State(NamedTuple):
    """The model's state, and that of each task's behaviour (leaves [K, ...]), the environment's own task first."""

    model: ModelState
    policies: imagination.State


class Memory(NamedTuple):
    """What is remembered within an episode: what was seen, and the task whose policy acts, int32 []."""

    seen: latent.Memory
    task: Array


class _Parts(NamedTuple):
    """What the functions below are bound to."""

    spec: Spec
    config: Config
    shared: SharedModel
    learning: Learning
    behaviour: Behaviour

    @property
    def num_tasks(self) -> int:
        return 1 + len(self.config.tasks)


def make(spec: Spec, config: Config | None = None, *, env: Environment | None = None) -> Agent:
    """Bind IVG to an environment. Raises ConfigError, or ValueError where actions are discrete."""
    del env
    config = config or Config()
    _ = spec.box
    for name in config.tasks:
        if name not in spec.tasks:
            known = ", ".join(spec.tasks) or "no others"
            raise ConfigError(f"tasks: got {name!r}, which {spec.name} does not know{near(name, spec.tasks)}; {known}")
    shared = latent_dynamics.make(spec, config.model, num_tasks=1 + len(config.tasks))
    behaviour = imagination.make(spec, shared.of_task, config.model.units, config.policy)
    learning = latent.learning(shared.model, config.fit, partial(_relabel, spec, config.tasks))
    parts = _Parts(spec, config, shared, learning, behaviour)
    return Agent(
        init=partial(_init, parts),
        memory=partial(_memory, parts),
        act=partial(_act, parts),
        fit=lambda state, key, replay: (state, {}),
        improve=partial(_improve, parts),
        foresee=lambda state, *seen, **options: latent_model.foresee(
            shared.model, state.model.params, *seen, **options
        ),
        window=learning.window,
    )


def transfer(source: State, fresh: State) -> State:
    """``fresh``, with what ``source`` has learned of the world: its model but for the rewards."""
    params = source.model.params | {"reward": fresh.model.params["reward"]}
    return fresh._replace(model=fresh.model._replace(params=params))


def _relabel(spec: Spec, tasks: tuple[str, ...], window: Transition) -> Transition:
    """Rewards [T, K]: the environment's own, and what each of ``tasks`` would have paid."""
    paid = [jax.vmap(spec.tasks[name])(window.obs, window.action, window.next_obs) for name in tasks]
    return window._replace(reward=jnp.stack([window.reward, *paid], axis=-1))


def _init(parts: _Parts, key: Key) -> State:
    key_model, key_policies = jax.random.split(key)
    policies = jax.vmap(parts.behaviour.init)(jax.random.split(key_policies, parts.num_tasks))
    return State(parts.learning.init(key_model), policies)


def _memory(parts: _Parts, state: State, key: Key) -> Memory:
    del state
    return Memory(latent.nothing_seen(parts.shared.model, parts.spec), jax.random.randint(key, (), 0, parts.num_tasks))


def _act(
    parts: _Parts, state: State, key: Key, memory: Memory, timestep: TimeStep, *, explore: bool
) -> tuple[Array, Memory, tuple[()]]:
    key_perceive, key_policy, key_noise = jax.random.split(key, 3)
    belief = latent.perceive(parts.shared.model, state.model.params, key_perceive, memory.seen, timestep)
    act = partial(parts.behaviour.act, explore=explore)
    proposals = jax.vmap(act, in_axes=(0, None, None))(state.policies, key_policy, belief)
    action = proposals[memory.task] if explore else proposals[0]
    if explore:
        action = latent.disturb(key_noise, action, parts.spec.box, parts.config.action_noise)
    return action, Memory(latent.remember(belief, action), memory.task), ()


def _improve(parts: _Parts, state: State, key: Key, replay: Replay) -> tuple[State, Metrics]:
    def step(state: State, key: Key) -> tuple[State, Metrics]:
        key_model, key_starts, key_policies = jax.random.split(key, 3)
        model, model_metrics, beliefs, frames = parts.learning.update(state.model, key_model, replay)
        beliefs, discount = beliefs.reshape((-1, beliefs.shape[-1])), frames.discount.ravel()
        if parts.config.starts:
            chosen = jax.random.choice(key_starts, len(discount), (parts.config.starts,), replace=False)
            beliefs, discount = beliefs[chosen], discount[chosen]

        def of_task(policy: imagination.State, key: Key, task: Array) -> tuple[imagination.State, Metrics]:
            return parts.behaviour.update(policy, key, (model.params, task), beliefs, discount)

        keys, tasks = jax.random.split(key_policies, parts.num_tasks), jnp.arange(parts.num_tasks)
        policies, metrics = jax.vmap(of_task)(state.policies, keys, tasks)
        return State(model, policies), model_metrics | jax.tree.map(lambda leaf: leaf[0], metrics)

    state, metrics = jax.lax.scan(step, state, jax.random.split(key, parts.config.updates))
    return state, latent.mean_of(metrics)


def preset(name: str, spec: Spec) -> Preset:
    """``small``: minutes on a laptop's CPU. ``paper``: sizes for accelerators. Raises ConfigError."""
    return choose(name, spec, {"small": _small, "paper": _paper})


def _small(spec: Spec) -> Preset:
    model = latent_dynamics.Config(
        units=64,
        hidden=64,
        layers=(64, 64),
        embedding=64,
        depth=16,
        activation="swish",
        norm=True,
        observation_scale=1.0 if spec.is_image else 10.0,  # numbers of a vector shall be told to within a tenth
        reward_scale=10.0,
    )
    policy = imagination.Config(
        horizon=10,
        hidden=(64, 64),
        activation="swish",
        norm=True,
        distribution="normal",
        through_policy=True,
        lambda_=1.0,
        discount=0.98,
        entropy=1e-2,
        scale_returns=True,
        head="symexp_twohot",
        slow_rate=0.1,
        optimiser=optimisers.Config(learning_rate=1e-3),
    )
    fit = latent.Fit(optimiser=optimisers.Config(learning_rate=2e-3), batch_size=16, length=16)
    agent = Config(model=model, fit=fit, policy=policy)
    return Preset(agent, Schedule(epochs=15, prefill=200, epoch_steps=200))


def _paper(spec: Spec) -> Preset:
    """The defaults, a gradient step for each environment step; sizes are ours, since the paper's code is not public."""
    return Preset(Config(), Schedule(epochs=1000, prefill=1000, epoch_steps=spec.episode_length))
