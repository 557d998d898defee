"""POPLIN reduces to PETS, teaches its policy what was planned and nothing else, and learns in both spaces."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from jaxmbrl import envs, training
from jaxmbrl import replay as replays
from jaxmbrl.agents import mpc, pets, poplin
from jaxmbrl.config import ConfigError
from jaxmbrl.models import ensemble, fitting, one_step
from jaxmbrl.planners import cem
from jaxmbrl.planners.candidates import report
from jaxmbrl.policies import imitation
from jaxmbrl.schedule import Schedule
from jaxmbrl.types import Planner, Transition

LENGTH = 15
ENV = envs.make("linear_quadratic", episode_length=LENGTH)
MODEL = ensemble.Config(member=one_step.Config(hidden=(32,)), size=3, elites=3, particles=3, propagation="expectation")
FIT = fitting.Config(learning_rate=3e-3, passes=200)
TINY = poplin.Config(
    horizon=5,
    model=MODEL,
    fit=FIT,
    planner=cem.Config(population=60, elites=8, iterations=4),
    policy=imitation.Config(hidden=(8,), passes=100, batch_size=16),
)
HORIZON, ACTIONS = TINY.horizon, ENV.spec.box.size


@functools.cache
def system(**fields):
    """An agent, a state of it whose policy is no constant, and its compiled act."""
    agent = poplin.make(ENV.spec, dataclasses.replace(TINY, **fields))
    state = agent.init(jax.random.key(3))._replace(fits=jnp.int32(1))
    return agent, state, jax.jit(agent.act, static_argnames="explore")


def silenced(state):
    """The same state with a policy that always proposes the middle of the box, 0."""
    network = jax.tree.map(jnp.zeros_like, state.policy.params.network)
    return state._replace(policy=state.policy._replace(params=state.policy.params._replace(network=network)))


@pytest.mark.parametrize("variant", ["a_init", "a_replan"])
@pytest.mark.parametrize("propagation", ["expectation", "tsinf"])
def test_poplin_a_around_nothing_is_pets(key, variant, propagation):
    """With a policy that proposes 0, five steps of planning are those of PETS, number for number."""
    model = dataclasses.replace(MODEL, propagation=propagation)
    agent, state, act = system(variant=variant, model=model)
    state = silenced(state)
    other = pets.make(ENV.spec, pets.Config(horizon=HORIZON, model=model, fit=FIT, planner=TINY.planner))
    other_act = jax.jit(other.act, static_argnames="explore")
    timestep, memory, other_memory = ENV.reset(key), agent.memory(state, key), other.memory(state.model, key)
    for step_key in jax.random.split(key, 5):
        key_act, key_env = jax.random.split(step_key)
        action, memory, _ = act(state, key_act, memory, timestep, explore=True)
        other_action, other_memory, _ = other_act(
            mpc.AgentState(state.model, ()), key_act, other_memory, timestep, explore=True
        )
        np.testing.assert_allclose(action, other_action, rtol=1e-5, atol=1e-6)
        plan = memory.plan if variant == "a_init" else memory
        np.testing.assert_allclose(plan.mean, other_memory.mean, rtol=1e-5, atol=1e-6)
        timestep = ENV.step(key_env, timestep, action)
    assert np.abs(plan.mean).max() > 0.1


@pytest.mark.parametrize("propagation", ["expectation", "tsinf"])
def test_pets_around_a_prior_is_poplin_a(key, propagation):
    """The same plans around the same policy, number for number; the step says that it was planned."""
    model = dataclasses.replace(MODEL, propagation=propagation)
    agent, state, act = system(model=model)
    config = pets.Config(horizon=HORIZON, model=model, fit=FIT, planner=TINY.planner, prior=TINY.policy)
    other = pets.make(ENV.spec, config)
    other_act = jax.jit(other.act, static_argnames="explore")
    other_state = mpc.AgentState(state.model, (), state.policy)
    timestep, memory, other_memory = ENV.reset(key), agent.memory(state, key), other.memory(state.model, key)
    for key_act in jax.random.split(key, 3):
        action, memory, _ = act(state, key_act, memory, timestep, explore=True)
        other_action, other_memory, planned = other_act(other_state, key_act, other_memory, timestep, explore=True)
        np.testing.assert_allclose(action, other_action, rtol=1e-5, atol=1e-6)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), memory, other_memory)
        timestep = ENV.step(key_act, timestep, action)
    assert planned and np.abs(memory.plan.mean).max() > 0.1 and np.abs(memory.actions).max() > 0.1


def test_a_plan_lives_on_whatever_is_proposed_next(key):
    """A search that finds nothing better follows its first plan to the end, though each step proposes other actions."""
    shape = (HORIZON, ACTIONS)
    found = jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)

    def plan(key, objective, plan):
        solution = jnp.where(jnp.any(plan.mean != 0), plan.mean, found)
        return solution, cem.Plan(solution), report(solution[None], jnp.ones(1), -5.0, 5.0)

    planner = Planner(lambda: cem.Plan(jnp.zeros(shape)), plan)
    prior = mpc.Prior(imitation.student(ENV.spec, TINY.policy), TINY.policy, ENV.spec.box, HORIZON)
    agent = mpc.compose(*mpc.world(ENV.spec, TINY), planner, prior=prior)
    state, timestep = agent.init(key), ENV.reset(key)
    act, wanted = jax.jit(agent.act, static_argnames="explore"), agent.plan(state, key, timestep)
    memory, proposed = agent.memory(state, key), []
    for action_wanted in wanted:
        action, memory, _ = act(state, key, memory, timestep, explore=True)
        np.testing.assert_allclose(action, action_wanted, rtol=1e-5, atol=1e-6)
        timestep = ENV.step(key, timestep, -action)  # not where the model thought
        proposed.append(memory.actions)
    assert np.abs(proposed[1][:-2] - proposed[0][1:-1]).max() > 0.01, "the proposals differ"


def test_a_prior_learns_from_planned_steps_only(key):
    config = pets.Config(model=MODEL, fit=fitting.Config(passes=1), planner=TINY.planner, prior=TINY.policy)
    agent = pets.make(ENV.spec, config)
    fit, state = jax.jit(agent.fit), agent.init(key)
    experience = store(jnp.arange(8) >= 2, 8)
    rows = replays.transitions(experience)

    def learned(index):
        """The prior after a fit, with wild actions in some slots."""
        wild = rows._replace(action=rows.action.at[index].set(3.0))
        return ravel_pytree(fit(state, key, replays.from_rows(wild, cursor=8, size=8))[0].prior.params.network)[0]

    plain = learned(np.array([], int))
    np.testing.assert_array_equal(learned(np.array([0, 1])), plain)
    assert np.any(learned(np.array([2])) != plain) and np.any(ravel_pytree(state.prior.params.network)[0] != plain)


def test_without_room_to_search_the_policy_acts(key):
    """POPLIN-P with a vanishing deviation does what the policy does, and so does ``control = policy``."""
    timestep = ENV.reset(key)
    for variant in ("p_sep", "p_uni"):
        agent, state, act = system(variant=variant, deviation=1e-6)
        policy = imitation.student(ENV.spec, TINY.policy).action(state.policy.params, timestep.obs)
        action, _, _ = act(state, key, agent.memory(state, key), timestep, explore=True)
        np.testing.assert_allclose(action, policy, atol=1e-4)
    agent, state, act = system(control="policy")
    memory = agent.memory(state, key)
    alone, untouched, _ = act(state, key, memory, timestep, explore=False)
    np.testing.assert_array_equal(
        alone, imitation.student(ENV.spec, TINY.policy).action(state.policy.params, timestep.obs)
    )
    jax.tree.map(np.testing.assert_array_equal, untouched, memory)
    assert np.abs(act(state, key, memory, timestep, explore=True)[0] - alone) > 1e-3


@pytest.mark.parametrize("variant", poplin.VARIANTS)
def test_the_lesson_is_what_was_planned(key, variant):
    """The imagined rollout starts here, acts as the agent does and follows the model; the policy answers each state."""
    agent, state, act = system(variant=variant, distillation="imagined")
    timestep = ENV.reset(key)
    action, memory, planned = act(state, key, agent.memory(state, key), timestep, explore=True)
    obs, actions = planned.lesson
    assert planned.fits == 1 and obs.shape == (HORIZON, 2) and actions.shape == (HORIZON, ACTIONS)
    np.testing.assert_allclose(obs[0], timestep.obs, rtol=1e-6)
    np.testing.assert_allclose(actions[0], action, rtol=1e-5, atol=1e-6)
    world = ensemble.make(ENV.spec, MODEL).world
    follow = jax.vmap(lambda obs, action: world.step(state.model.params, key, obs, action)[0])
    np.testing.assert_allclose(follow(obs, actions)[:-1], obs[1:], rtol=1e-4, atol=1e-5)
    student, params = imitation.student(ENV.spec, TINY.policy), state.policy.params
    if variant == "p_uni":  # one perturbation for all steps, kept as it is for the next search
        flat, unravel = ravel_pytree(params.network)
        changed = params._replace(network=unravel(flat + memory.mean))
        wanted = jax.vmap(student.action, in_axes=(None, 0))(changed, obs)
        np.testing.assert_allclose(actions, wanted, rtol=1e-4, atol=1e-5)
    if variant == "a_replan":  # the residual that is left for the next step
        wanted = jax.vmap(student.action, in_axes=(None, 0))(params, obs[1:]) + memory.mean[:-1]
        np.testing.assert_allclose(actions[1:], np.clip(wanted, -5.0, 5.0), rtol=1e-4, atol=1e-5)


def store(planned, num):
    """``num`` transitions that carry ``planned``, and two empty slots."""
    random = jax.random.normal(jax.random.key(5), (num, 2))
    none = jnp.zeros(num)
    data = Transition(random, 0.1 * random[:, :1], none, random, none > 0, none > 0, planned)
    data = jax.tree.map(
        lambda leaf: jnp.concatenate([leaf, jnp.zeros((2, *leaf.shape[1:]), leaf.dtype)])[:, None], data
    )
    return replays.from_rows(data, cursor=num, size=num)


def test_averaging_moves_the_policy_by_the_newest_perturbations(key):
    """Only those planned since the last fit count: older ones were added to other parameters."""
    agent, state, _ = system(variant="p_uni", distillation="average", fit=fitting.Config(passes=1))
    flat, _ = ravel_pytree(state.policy.params.network)
    perturbation = np.random.default_rng(0).normal(size=(6, len(flat))).astype(np.float32)
    fits = jnp.array([0, 0, 1, 2, 2, 2])
    state = state._replace(fits=jnp.int32(2))
    moved, metrics = jax.jit(agent.fit)(state, key, store(poplin.Planned(fits, jnp.asarray(perturbation)), 6))
    wanted = np.asarray(flat) + perturbation[3:].mean(axis=0)
    np.testing.assert_allclose(ravel_pytree(moved.policy.params.network)[0], wanted, rtol=1e-5, atol=1e-6)
    assert float(metrics["policy_step"]) == pytest.approx(np.linalg.norm(perturbation[3:].mean(axis=0)), rel=1e-5)
    assert moved.fits == 3


def test_cloning_learns_from_planned_steps_only(key):
    """Random steps (fits = 0) may hold any action: the policy that is learned is the same."""
    agent, state, _ = system(fit=fitting.Config(passes=1))
    experience = store(poplin.Planned(jnp.array([0, 0, 1, 1, 1, 1, 1, 1]), ()), 8)
    rows = replays.transitions(experience)
    wild = replays.from_rows(rows._replace(action=rows.action.at[:2].set(3.0)), cursor=8, size=8)
    fit = jax.jit(agent.fit)
    one, other = fit(state, key, experience)[0], fit(state, key, wild)[0]
    jax.tree.map(np.testing.assert_array_equal, one.policy, other.policy)
    assert np.any(ravel_pytree(one.policy.params.network)[0] != ravel_pytree(state.policy.params.network)[0])


# name -> (fields, least mean return of 4 seeds' last two episodes, the mean and the std of 12 pilot seeds)
LEARNS = {
    "a_replan, imagined": ({"variant": "a_replan", "distillation": "imagined"}, -7.7, (-3.1, 1.5)),
    "p_uni, real": ({"variant": "p_uni"}, -9.0, (-4.0, 1.6)),
}


@pytest.mark.parametrize("name", sorted(LEARNS))
def test_learns_linear_quadratic_control(name):
    """Three episodes of random actions, then four of planning; doing nothing scores -10, random actions below -100.

    The planner's threshold lies more than 6 standard errors below the pilot's mean. The policy alone starts at a median
    below -100 and had one of -4.7 and -5.0 in the pilot after three fits: half of the seeds must beat doing nothing.
    Planted bugs: a policy that is fitted to the negative of what was planned had medians of -560 (A) and -590 (P), one
    that learns each action for the observation before it -45 and -18.
    """
    fields, least, (mean, std) = LEARNS[name]
    assert least < mean - 6 * std / np.sqrt(4)
    config = dataclasses.replace(TINY, **fields, control="policy")
    schedule = Schedule(epochs=4, prefill=3 * LENGTH, epoch_steps=LENGTH, eval_episodes=10)
    loop = training.make_loop(ENV, poplin.make(ENV.spec, config), schedule)
    _, metrics = jax.jit(jax.vmap(training.train(loop, 4)))(jax.random.split(jax.random.key(0), 4))
    assert np.mean(metrics["episode_return"][:, -2:]) > least, metrics["episode_return"]
    assert np.median(metrics["eval_return"][:, 0]) < -50 and np.median(metrics["eval_return"][:, -1]) > -10


def test_papers_numbers():
    """Wang and Ba 2019, released configuration: CEM, horizon, expectation, policy and its fit; PETS' own network."""
    for name, variant, distillation, hidden in (
        ("paper", "a_init", "real", (64, 64)),
        ("paper_p", "p_sep", "average", (32,)),
    ):
        agent, schedule = poplin.preset(name, ENV.spec._replace(name="brax/halfcheetah"))
        assert (agent.variant, agent.distillation, agent.policy.hidden) == (variant, distillation, hidden)
        assert (agent.horizon, agent.model.propagation, agent.deviation**2) == (30, "expectation", pytest.approx(0.1))
        assert (agent.planner.population, agent.planner.elites, agent.planner.iterations) == (500, 50, 5)
        assert (agent.planner.alpha, agent.model.size, agent.model.member.hidden) == (0.1, 5, 4 * (200,))
        policy = agent.policy
        assert (policy.learning_rate, policy.weight_decay, policy.passes) == (3e-3, 1e-5, 100)
        assert (policy.batch_size, policy.holdout_every, schedule.epochs) == (64, 5, 50)


def test_bad_choices_are_named():
    with pytest.raises(ConfigError, match="distillation: got average, needs real or imagined with variant a_init"):
        poplin.Config(distillation="average")
    with pytest.raises(ConfigError, match="preset: got 'big', needs one of small, small_p, paper, paper_p"):
        poplin.preset("big", ENV.spec)
