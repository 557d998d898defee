"""MB-MF goes through its phases, each of which does its work and no other; and each of them makes it better."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmbrl import envs, training
from jaxmbrl import replay as replays
from jaxmbrl.agents import nagabandi, random_shooting
from jaxmbrl.agents.phases import shared
from jaxmbrl.config import ConfigError
from jaxmbrl.models import ensemble, fitting, one_step, simulator
from jaxmbrl.planners import random_shooting as shooting
from jaxmbrl.policies import imitation, trpo
from jaxmbrl.schedule import Schedule
from jaxmbrl.types import TimeStep, Transition

LENGTH = 15
ENV = envs.make("linear_quadratic", episode_length=LENGTH)
NETWORK = one_step.Config(hidden=(32,), activation="relu", family="deterministic")
TINY = nagabandi.Config(
    mpc=random_shooting.Config(
        horizon=3,
        model=ensemble.Config(member=NETWORK, size=1, elites=1, particles=1, propagation="expectation"),
        fit=fitting.Config(learning_rate=3e-3, passes=200, bootstrap=False),
        planner=shooting.Config(population=300),
    ),
    plan_fits=2,
    dagger_rounds=2,
    round_steps=2 * LENGTH,
    demonstrations=4 * LENGTH,
    batch_rounds=2,
    cloning=imitation.Config(weight_decay=0.0, batch_size=16),
    tuning=trpo.Config(hidden=(16,), value_hidden=(16,), init_log_std=-2.0, max_kl=0.01),
)
EXPERT = random_shooting.make(ENV.spec, TINY.mpc)


@functools.cache
def system():
    """The agent, a first state, and its compiled act and fit, which fits the model but for a moment.

    Cloning does not wait for a held-out loss, which may send it back to where it began.
    """
    quick = dataclasses.replace(TINY.mpc, fit=fitting.Config(passes=2, bootstrap=False))
    cloning = dataclasses.replace(TINY.cloning, holdout_every=0, patience=0)
    agent = nagabandi.make(ENV.spec, dataclasses.replace(TINY, mpc=quick, cloning=cloning))
    return agent, agent.init(jax.random.key(3)), jax.jit(agent.act, static_argnames="explore"), jax.jit(agent.fit)


def store(num=120):
    """``num`` transitions of which each is known by its time."""
    obs = jax.random.normal(jax.random.key(5), (num, 1, 2))
    none = jnp.zeros((num, 1))
    data = Transition(obs, 0.5 * obs[..., :1], -(obs[..., 0] ** 2), obs + 0.1, none > 0, none > 0)
    return replays.from_rows(data, cursor=0, size=num)


def changed(state, other):
    """Which parts differ, those of the policy one by one."""
    differs = lambda a, b: any(np.any(x != y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))  # noqa: E731
    pairs = zip(*(one._replace(policy=())._asdict().items() for one in (state, other)), strict=True)
    names = {name for (name, a), (_, b) in pairs if differs(a, b)}
    return names | {
        name for name in ("policy", "critic", "scale") if differs(*(getattr(s.policy, name) for s in (state, other)))
    }


def test_each_fit_does_its_phases_work(key):
    """Two of the model, the first cloning, two of DAgger; then TRPO in every second one.

    The inputs' statistics are of cloning: were they to follow TRPO's batches, the policy would change with them, not
    within any trust region (on the pendulum it forgot in one fit what it had been taught).
    """
    _, state, _, fit = system()
    experience, imitated = store(), {"policy", "scale", "cloning", "labels", "fits"}
    wanted = [{"expert", "fits"}] * 2 + [imitated | {"expert"}] + [imitated] * 2
    wanted += [{"fits"}, {"policy", "critic", "fits"}] * 2
    phases = []
    for step_key, parts in zip(jax.random.split(key, len(wanted)), wanted, strict=True):
        before = state
        state, metrics = fit(before, step_key, experience)
        assert changed(before, state) == parts
        phases.append(float(metrics["phase"]))
    assert phases == [0, 0, 1, 1, 1, 2, 2, 2, 2]


def test_labels_are_what_mpc_did_and_would_do(key):
    """The newest planned steps as they were; then, for the newest observations, the planner's own answers."""
    _, state, _, fit = system()
    experience = store()
    data = jax.tree.map(lambda leaf: leaf[:, 0], replays.transitions(experience))
    for step_key in jax.random.split(key, 3):
        state, _ = fit(state, step_key, experience)
    np.testing.assert_array_equal(state.labels.obs[:60], data.obs[-60:])
    np.testing.assert_array_equal(state.labels.action[:60], data.action[-60:])
    np.testing.assert_array_equal(state.labels.weight, [1.0] * 60 + [0.0] * 60)
    key_fit = jax.random.key(11)
    state, _ = fit(state, key_fit, experience)
    np.testing.assert_array_equal(state.labels.obs[60:90], data.obs[-30:])
    np.testing.assert_array_equal(state.labels.weight, [1.0] * 90 + [0.0] * 30)
    keys = jax.random.split(jax.random.split(key_fit)[0], 30)

    def answer(key, obs):
        timestep = TimeStep((), obs, jnp.zeros(()), jnp.array(False), jnp.array(False))
        return EXPERT.act(state.expert, key, EXPERT.memory((), key), timestep, explore=False)[0]

    np.testing.assert_allclose(state.labels.action[60:90], jax.jit(jax.vmap(answer))(keys, data.obs[-30:]), rtol=1e-4)


def test_plans_first_and_then_asks_the_policy(key):
    agent, state, act, _ = system()
    timestep, memory = ENV.reset(key), agent.memory(state, key)
    planned, _, _ = act(state._replace(fits=jnp.int32(TINY.plan_fits)), key, memory, timestep, explore=True)
    wanted, _, _ = EXPERT.act(state.expert, key, memory, timestep, explore=True)
    np.testing.assert_allclose(planned, wanted, rtol=1e-5)
    state = state._replace(fits=jnp.int32(TINY.plan_fits + 1))
    learner = trpo.make(ENV.spec, TINY.tuning)
    for explore in (False, True):
        answer, _, _ = act(state, key, memory, timestep, explore=explore)
        wanted = learner.act(state.policy, key, timestep.obs, explore=explore)
        np.testing.assert_allclose(answer, wanted, rtol=1e-4, atol=1e-5)


def test_a_shared_phase_is_not_batched():
    """Under vmap, twice over and in a scan, one branch runs: the program has a case and no select."""

    def run(fits, x):
        def step(carry, _):
            fits, x = carry
            return (fits + 1, jax.lax.cond(shared(fits) < 2, jnp.sin, lambda x: x + 1, x)), None

        return jax.lax.scan(step, (fits, x), length=3)[0]

    fits, x = jnp.zeros(4, jnp.int32), jnp.arange(12.0).reshape(4, 3)
    batched = jax.jit(jax.vmap(jax.vmap(run, in_axes=(None, 0))))
    text = batched.lower(fits, x).as_text()
    assert text.count("stablehlo.case") == 1 and "stablehlo.select" not in text
    np.testing.assert_allclose(batched(fits, x)[1], np.sin(np.sin(x)) + 1, rtol=1e-6)


def test_papers_numbers():
    """Nagabandi et al. 2017, Sec. V and App. B: 2 layers of 64, std 0.5, 3 rounds of DAgger, batch, discount, KL."""
    agent, schedule = nagabandi.preset("paper", ENV.spec._replace(name="brax/halfcheetah", episode_length=1000))
    tuning = agent.tuning
    assert (tuning.hidden, tuning.activation) == ((64, 64), "tanh")
    assert float(np.exp(tuning.init_log_std)) == pytest.approx(0.5)
    assert (tuning.discount, tuning.max_kl, agent.dagger_rounds, agent.plan_fits) == (0.995, 0.05, 3, 7)
    assert agent.mpc == random_shooting.preset("paper", ENV.spec._replace(name="brax/halfcheetah"))[0]
    assert 25_000 <= agent.batch_rounds * agent.round_steps <= 50_000
    assert (agent.round_steps, schedule.prefill) == (schedule.epoch_steps, 10_000)


def test_bad_choices_are_named():
    with pytest.raises(ConfigError, match=r"demonstrations: got 61, needs at most plan_fits \* round_steps \(60\)"):
        dataclasses.replace(TINY, demonstrations=61)
    with pytest.raises(ConfigError, match=r"cloning.hidden: got \(8,\), needs its default: see tuning"):
        dataclasses.replace(TINY, cloning=imitation.Config(hidden=(8,)))
    with pytest.raises(ConfigError, match=r"mpc.model: got simulator, needs a learned one"):
        dataclasses.replace(TINY, mpc=dataclasses.replace(TINY.mpc, model=simulator.Config()))
    with pytest.raises(ConfigError, match=r"mpc.prior: got cloned, needs none"):
        dataclasses.replace(TINY, mpc=dataclasses.replace(TINY.mpc, prior=imitation.Config()))
    agent = nagabandi.make(ENV.spec, TINY)
    with pytest.raises(ConfigError, match=rf"epoch_steps: got {LENGTH} for each .* needs {2 * LENGTH}"):
        training.make_loop(ENV, agent, Schedule(prefill=3 * LENGTH, epoch_steps=LENGTH))
    enough = Schedule(prefill=3 * LENGTH, epoch_steps=2 * LENGTH, capacity=4 * LENGTH)
    training.make_loop(ENV, agent, enough)
    with pytest.raises(ConfigError, match=r"^schedule.capacity: got 59, needs at least 60, the newest steps"):
        training.make_loop(ENV, agent, dataclasses.replace(enough, capacity=4 * LENGTH - 1))
    agent = nagabandi.make(ENV.spec, dataclasses.replace(TINY, batch_rounds=3))
    with pytest.raises(ConfigError, match=r"schedule.capacity: got 60, needs at least 90"):
        training.make_loop(ENV, agent, enough)


# epoch -> (what has just been learned, least mean return of 4 seeds, mean and std of 12 pilot seeds, these among them)
LEARNS = {1: ("plan", -8.0, (-5.4, 0.8)), 4: ("imitate", -9.0, (-3.2, 1.9)), 24: ("fine-tune", -5.0, (-2.8, 0.7))}


def learn():
    """Returns [4, 25] after two rounds of planning, cloning, two rounds of DAgger, and five steps of TRPO."""
    tuning = dataclasses.replace(TINY.tuning, discount=0.9, max_kl=0.03)
    agent = nagabandi.make(ENV.spec, dataclasses.replace(TINY, batch_rounds=4, tuning=tuning))
    schedule = Schedule(epochs=25, prefill=3 * LENGTH, epoch_steps=2 * LENGTH, eval_episodes=10)
    run = training.train(training.make_loop(ENV, agent, schedule), schedule.epochs)
    return np.asarray(jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 4))[1]["eval_return"])


def test_every_phase_learns_linear_quadratic_control():
    """Doing nothing scores -10. The policy ends better than the planner that taught it, as it averages its noise.

    Thresholds lie 6 standard errors below the pilot's means. Planted bugs: advantages of the wrong sign ended at
    -24, labels of the wrong sign at -3,600.
    """
    returns = learn()
    for epoch, (phase, least, (mean, std)) in LEARNS.items():
        assert least < mean - 6 * std / np.sqrt(4)
        assert returns[:, epoch].mean() > least, (phase, returns[:, epoch])
