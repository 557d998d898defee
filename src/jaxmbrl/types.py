"""The data that flows through a model-based system, and the records that a system is composed of.

One shape alphabet is used everywhere:

    B batch          T time (replayed)   H horizon (imagined)   N candidates     K elites
    E members        M elite members     P particles            O observation
    A action         S the shape of a belief or a solution

Functions are written for one example: a shape such as ``[O]`` has no batch axis, and ``jax.vmap`` adds one.
Every ``key`` is a typed PRNG key (``jax.random.key``), and a function that takes one consumes it.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

Array: TypeAlias = jax.Array
Key: TypeAlias = jax.Array
PyTree: TypeAlias = Any
Metrics: TypeAlias = dict[str, Array]
RewardFn: TypeAlias = Callable[[Array, Array, Array], Array]  # (obs [O], action [A], next_obs [O]) -> []


class Box(NamedTuple):
    """Continuous actions within bounds.

    Attributes:
        low: [A], float32, finite.
        high: [A], float32, above ``low``.
    """

    low: np.ndarray
    high: np.ndarray

    @property
    def size(self) -> int:
        """Number of action dimensions (A)."""
        return int(self.low.size)


class Discrete(NamedTuple):
    """One of ``num`` actions, an int32 in [0, num)."""

    num: int


class Spec(NamedTuple):
    """What a learner may know of an environment before it acts.

    Attributes:
        name: as in ``envs.make(name)``.
        observation: shape and dtype of an observation (any pytree of ``jax.ShapeDtypeStruct``).
        action: kind and bounds of an action.
        episode_length: steps after which an episode is truncated.
        reward: the known reward as a function of (obs [O], action [A], next_obs [O]), or None.
        termination: the known termination, bool [], as a function of the same three, or None. None together
            with a known reward means that episodes never terminate.
        angles: indices of the observation that are angles in radians; models see their sine and cosine.
        tasks: known rewards of this and of other tasks in the same world, by name.
    """

    name: str
    observation: PyTree
    action: Box | Discrete
    episode_length: int
    reward: RewardFn | None = None
    termination: RewardFn | None = None
    angles: tuple[int, ...] = ()
    tasks: Mapping[str, RewardFn] = MappingProxyType({})

    @property
    def obs_size(self) -> int:
        """Length of a flat observation (O). Raises ValueError where observations are not vectors."""
        if not isinstance(self.observation, jax.ShapeDtypeStruct) or len(self.observation.shape) != 1:
            raise ValueError(f"{self.name}: observation is {self.observation}, needs one vector")
        return self.observation.shape[0]

    @property
    def is_image(self) -> bool:
        """Whether an observation is one picture, uint8 [H, W, C]."""
        obs = self.observation
        return isinstance(obs, jax.ShapeDtypeStruct) and len(obs.shape) == 3 and obs.dtype == jnp.uint8

    @property
    def is_grid(self) -> bool:
        """Whether an observation is one grid of 3 x 3 or more cells, bool [H, W, C]: what lies in each."""
        obs = self.observation
        is_planes = isinstance(obs, jax.ShapeDtypeStruct) and len(obs.shape) == 3 and obs.dtype == jnp.bool_
        return is_planes and min(obs.shape[:2]) >= 3

    @property
    def num_actions(self) -> int:
        """Number of discrete actions. Raises ValueError where actions are continuous."""
        if not isinstance(self.action, Discrete):
            raise ValueError(f"{self.name}: actions are continuous (Box of {self.action.size}), needs Discrete ones")
        return self.action.num

    @property
    def box(self) -> Box:
        """The bounds of a continuous action. Raises ValueError where actions are discrete."""
        if not isinstance(self.action, Box):
            raise ValueError(f"{self.name}: actions are {self.action}, needs continuous ones (Box)")
        return self.action


class TimeStep(NamedTuple):
    """What the world shows after a reset or a step.

    Attributes:
        state: the simulator's own state; only true-model planners may read it.
        obs: [O] or any pytree that ``Spec.observation`` describes.
        reward: [], of the step that led here (0 after a reset).
        terminated: bool [], the task ended here: no value lies beyond.
        truncated: bool [], the time limit ended the episode: value lies beyond, but is not observed.
    """

    state: PyTree
    obs: PyTree
    reward: Array
    terminated: Array
    truncated: Array


class Transition(NamedTuple):
    """One step of experience.

    Attributes:
        obs: [O], before the step.
        action: [A].
        reward: [].
        next_obs: [O], the true next observation, also where the episode ended (never a reset one).
        terminated: bool [].
        truncated: bool [].
        extras: whatever the agent wants stored with the step (search policies, log-probabilities).
    """

    obs: PyTree
    action: Array
    reward: Array
    next_obs: PyTree
    terminated: Array
    truncated: Array
    extras: PyTree = ()

    @property
    def discount(self) -> Array:
        """0 at a termination, 1 elsewhere (a time limit included)."""
        return 1.0 - jnp.asarray(self.terminated, jnp.float32)


class Prediction(NamedTuple):
    """What a model says of one imagined step.

    Attributes:
        reward: S, where S is the shape of the model's belief: () for one state, [M, P/M] for a particle cloud.
        discount: S, the probability (or 0/1) that the episode goes on; -1 swaps the player in two-player games.
    """

    reward: Array
    discount: Array


class Environment(NamedTuple):
    """A simulator.

    Attributes:
        spec: what a learner may know beforehand.
        reset: ``(key) -> TimeStep``.
        step: ``(key, timestep, action [A]) -> TimeStep``; callers mask what a finished episode gives.
    """

    spec: Spec
    reset: Callable[[Key], TimeStep]
    step: Callable[[Key, TimeStep, Array], TimeStep]


class WorldModel(NamedTuple):
    """A learned simulator. Its state is a belief: a vector, a latent, or a cloud of particles.

    Attributes:
        init: ``(key) -> params``.
        loss: ``(params, key, batch) -> (loss [], metrics)``; ``batch`` is a Transition (or a sequence) with axis B.
        start: ``(params, key, timestep) -> state``, what imagination starts from.
        observe: ``(params, key, state, action, timestep) -> state``, filtering; for Markov models, start again.
        step: ``(params, key, state, action) -> (state, Prediction)``.
        features: ``(params, state) -> array``, what a policy or a value function reads.
    """

    init: Callable[[Key], PyTree]
    loss: Callable[[PyTree, Key, PyTree], tuple[Array, Metrics]]
    start: Callable[[PyTree, Key, TimeStep], PyTree]
    observe: Callable[[PyTree, Key, PyTree, Array, TimeStep], PyTree]
    step: Callable[[PyTree, Key, PyTree, Array], tuple[PyTree, Prediction]]
    features: Callable[[PyTree, PyTree], Array]


class Planner(NamedTuple):
    """An optimiser of any array of fixed shape S, most often actions [H, A], under a batched objective.

    Attributes:
        init: ``() -> plan``, the warm start; every leaf's trailing axes are S.
        plan: ``(key, objective, plan) -> (solution S, plan, info)``; ``objective(key, candidates [N, *S])`` returns
            scores [N], higher is better, and a score that is not finite counts as the worst.
    """

    init: Callable[[], PyTree]
    plan: Callable[..., tuple[Array, PyTree, PyTree]]


class Foreseen(NamedTuple):
    """What a model tells of an episode of T time steps when it is shown only the first C of them, and all actions.

    Attributes:
        seen: [T, ...], the observations, as the model sees them.
        imagined: like ``seen``, as it tells them; the first C are reconstructions.
        reward: [T - C], of the imagined steps.
        discount: [T - C], the chance that the episode goes on after each.
    """

    seen: Array
    imagined: Array
    reward: Array
    discount: Array


class Learner(NamedTuple):
    """A policy, and how its parameters are optimised from any source of transitions: replayed, imagined or fresh.

    Attributes:
        init: ``(key) -> state``.
        act: ``(state, key, obs [O], *, explore) -> action [A]`` within the bounds; ``explore`` is static.
        update: ``(state, key, batch) -> (state, metrics)``; ``batch`` is a Transition with axis B, and for learners
            that need whole trajectories with axes B, T, oldest step first.
    """

    init: Callable[[Key], PyTree]
    act: Callable[..., Array]
    update: Callable[[PyTree, Key, Transition], tuple[PyTree, Metrics]]


class Agent(NamedTuple):
    """A whole system.

    Attributes:
        init: ``(key) -> agent_state``.
        memory: ``(agent_state, key) -> memory`` at the start of an episode: warm start, recurrent state, subgoal.
        act: ``(agent_state, key, memory, timestep, *, explore) -> (action, memory, extras)``; ``explore`` is static.
        fit: ``(agent_state, key, replay) -> (agent_state, metrics)``, slow: model learning.
        improve: ``(agent_state, key, replay) -> (agent_state, metrics)``, fast: after each interaction.
        foresee: ``(agent_state, key, timesteps [T], actions [T - 1], *, context) -> Foreseen``, of an agent whose model
            filters an episode; None for others.
        predictors: ``(agent_state) -> models.ensemble.Predictors``, the one-step models that it has learned, for those
            who judge them; None for agents without.
        plan: ``(agent_state, key, timestep, *, world=None) -> actions [H, A]``, what it plans to do from there on its
            own model, or on ``world``, a WorldModel without parameters; None for agents that plan no actions.
        window: consecutive steps of one environment that it learns from at once, hence the fewest that are stored
            before it learns.
        steps_per_fit: steps, over all environments, that it takes to lie between two fits; 0 if it does not care.
        newest: steps, over all environments, that it takes from the store at once, the newest; 0 if it takes no such.
        acts_first: whether the store is filled by what it does before it has learned, rather than by random actions.
    """

    init: Callable[[Key], PyTree]
    memory: Callable[[PyTree, Key], PyTree]
    act: Callable[..., tuple[Array, PyTree, PyTree]]
    fit: Callable[[PyTree, Key, PyTree], tuple[PyTree, Metrics]]
    improve: Callable[[PyTree, Key, PyTree], tuple[PyTree, Metrics]]
    foresee: Callable[..., Foreseen] | None = None
    predictors: Callable[[PyTree], Any] | None = None
    plan: Callable[..., Array] | None = None
    window: int = 1
    steps_per_fit: int = 0
    newest: int = 0
    acts_first: bool = False
