"""mbrl-lib 0.2.0 as a worker: one JSON request a line on stdin, one JSON answer a line on stdout.

It runs in mbrl-lib's own environment (see `install.sh`), knows nothing of jaxmbrl, and is driven by `compare.py`:

    {"do": "plan", ...}  seconds of one CEM planning call of its PETS agent at the sizes of `Plan`'s fields
    {"do": "sac", ...}   seconds of a gradient step of the SAC that its MBPO uses
    {"do": "pets", ...}  its PETS on its continuous cart-pole until a whole episode of 200 steps, or a time limit
    {"do": "mbpo", ...}  its MBPO, the same, an evaluation's episode counting as well

Its settings are in `mbrl_settings`.
"""
# ruff: noqa: ANN001, ANN003, ANN201, ANN204, D102, E402  (imports follow the redirection of stdout)

import contextlib
import dataclasses
import functools
import json
import os
import sys
import tempfile
import time

REPLIES = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # whatever is printed on import or by mbrl-lib goes to stderr

import gymnasium as gym
import mbrl.algorithms.mbpo
import mbrl.algorithms.pets
import mbrl.env.cartpole_continuous
import mbrl.env.reward_fns
import mbrl.env.termination_fns
import mbrl.models
import mbrl.planning
import mbrl_settings
import numpy as np
import omegaconf
import torch


@dataclasses.dataclass(frozen=True)
class Plan:
    """Sizes of a planning call.

    Attributes:
        obs: O, length of an observation.
        action: A.
        angles: indices of the observation that the network sees as sine and cosine.
        reward: a name of mbrl's known rewards, ``cartpole`` or ``halfcheetah``.
        hidden: width of the hidden layers.
        layers: number of hidden layers.
        members: E.
        population: candidates.
        particles: of each candidate.
        horizon: H.
        iterations: of CEM.
        propagation: ``random_model`` (TS1) or ``fixed_model`` (TS-infinity).
    """

    obs: int
    action: int
    angles: tuple
    reward: str
    hidden: int
    layers: int
    members: int
    population: int
    particles: int
    horizon: int
    iterations: int
    propagation: str


class Spaces:
    """The part of an environment that a `ModelEnv` and an agent's configuration look at."""

    def __init__(self, obs, action):
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (obs,), np.float32)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (action,), np.float32)


def sine_and_cosine(obs, angles):
    """The observation with each angle replaced by its sine, and the cosines after it, for torch and NumPy alike."""
    library = torch if isinstance(obs, torch.Tensor) else np
    angles = list(angles)
    others = [i for i in range(obs.shape[-1]) if i not in angles]
    parts = [obs[..., others], library.sin(obs[..., angles]), library.cos(obs[..., angles])]
    return torch.cat(parts, -1) if library is torch else np.concatenate(parts, -1)


@functools.cache
def planner(plan):
    """A planning agent over an ensemble that has seen data of unit variance; untrained weights cost the same."""
    network = mbrl.models.GaussianMLP(
        plan.obs + len(plan.angles) + plan.action,
        plan.obs,
        "cpu",
        num_layers=plan.layers,
        ensemble_size=plan.members,
        hid_size=plan.hidden,
        propagation_method=plan.propagation,
        activation_fn_cfg={"_target_": "torch.nn.SiLU"},
    )
    model = mbrl.models.OneDTransitionRewardModel(
        network,
        target_is_delta=True,
        normalize=True,
        learned_rewards=False,
        obs_process_fn=functools.partial(sine_and_cosine, angles=plan.angles) if plan.angles else None,
    )
    termination = "cartpole" if plan.reward == "cartpole" else "no_termination"
    model_env = mbrl.models.ModelEnv(
        Spaces(plan.obs, plan.action),
        model,
        getattr(mbrl.env.termination_fns, termination),
        getattr(mbrl.env.reward_fns, plan.reward),
        generator=torch.Generator().manual_seed(0),
    )
    config = omegaconf.OmegaConf.create(mbrl_settings.agent(plan.horizon, plan.iterations, plan.population))
    return mbrl.planning.create_trajectory_optim_agent_for_model(model_env, config, num_particles=plan.particles)


def time_plan(request):
    """Seconds of one planning call from a state of zeros, its warm start reset."""
    calls = request.pop("calls", 1)
    plan = Plan(**{**request, "angles": tuple(request["angles"])})
    agent = planner(plan)
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(calls):
        agent.reset()
        agent.act(np.zeros(plan.obs, np.float32))
    return {"wall": (time.perf_counter() - wall) / calls, "cpu": (time.process_time() - cpu) / calls}


@functools.cache
def learner(obs, action, width, batch):
    """mbrl-lib's SAC, and a store of random transitions that it learns from."""
    import mbrl.third_party.pytorch_sac_pranz24.sac as sac
    import mbrl.util.replay_buffer as buffers

    arguments = omegaconf.OmegaConf.create(
        {
            "gamma": 0.99,
            "tau": 0.005,
            "alpha": 0.2,
            "policy": "Gaussian",
            "target_update_interval": 1,
            "automatic_entropy_tuning": True,
            "target_entropy": -float(action),
            "hidden_size": width,
            "device": "cpu",
            "lr": 3e-4,
        }
    )
    store = buffers.ReplayBuffer(10_000, (obs,), (action,))
    rng = np.random.default_rng(0)
    for _ in range(10_000):
        store.add(rng.normal(size=obs), rng.uniform(-1, 1, action), rng.normal(size=obs), rng.normal(), False, False)
    return sac.SAC(obs, Spaces(obs, action).action_space, arguments), store


def time_sac(request):
    """Seconds of one gradient step, as its MBPO takes them."""
    agent, store = learner(request["obs"], request["action"], request["width"], request["batch"])
    wall, cpu = time.perf_counter(), time.process_time()
    for step in range(request["steps"]):
        agent.update_parameters(store, request["batch"], step, reverse_mask=True)
    return {
        "wall": (time.perf_counter() - wall) / request["steps"],
        "cpu": (time.process_time() - cpu) / request["steps"],
    }


class EnoughError(Exception):
    """The run is over: solved, or out of time."""


class Trial:
    """A run until it is solved or out of time.

    Attributes:
        deadline: on the clock of ``time.perf_counter``.
        returns: of the training episodes.
        steps: of training.
        solved: an episode lasted until its time limit.
    """

    def __init__(self, limit):
        self.deadline = time.perf_counter() + limit
        self.returns, self.steps, self.solved = [], 0, False

    def env(self, *, training):
        """A cart-pole that the run ends with."""
        return UntilSolved(self, training)


class UntilSolved(gym.Wrapper):
    """Records training episodes, and ends a trial after a whole episode or when its time is over."""

    def __init__(self, trial, training):
        super().__init__(gym.wrappers.TimeLimit(mbrl.env.cartpole_continuous.CartPoleEnv(), mbrl_settings.EPISODE))
        self.trial, self.training = trial, training

    def reset(self, **kwargs):
        if self.training:
            self.trial.returns.append(0.0)
        return self.env.reset(**kwargs)

    def step(self, action):
        obs, reward, terminated, truncated, info = self.env.step(action)
        if self.training:
            self.trial.steps += 1
            self.trial.returns[-1] += float(reward)
        self.trial.solved = truncated and not terminated
        if self.trial.solved or time.perf_counter() > self.trial.deadline:
            raise EnoughError
        return obs, reward, terminated, truncated, info


def until_solved(train, seed, limit):
    """Call ``train(trial, env, folder)`` until solved or ``limit`` seconds have passed, and say how it went."""
    torch.manual_seed(seed)
    trial = Trial(limit)
    env = trial.env(training=True)
    env.action_space.seed(seed)
    wall, cpu = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(EnoughError):
        train(trial, env, folder)
    return {
        "wall": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        "solved": trial.solved,
        "env_steps": trial.steps,
        "returns": trial.returns,
    }


def run_pets(request):
    """Its PETS until solved or ``limit`` seconds have passed."""
    config = omegaconf.OmegaConf.create(mbrl_settings.pets(request["seed"]))

    def train(_trial, env, folder) -> None:
        rewards, terminations = mbrl.env.reward_fns.cartpole, mbrl.env.termination_fns.cartpole
        mbrl.algorithms.pets.train(env, terminations, rewards, config, silent=True, work_dir=folder)

    return until_solved(train, **request)


def run_mbpo(request):
    """Its MBPO, the same; one evaluation episode after every 200 steps."""
    config = omegaconf.OmegaConf.create(mbrl_settings.mbpo(request["seed"]))

    def train(trial, env, folder) -> None:
        tested, terminations = trial.env(training=False), mbrl.env.termination_fns.cartpole
        mbrl.algorithms.mbpo.train(env, tested, terminations, config, silent=True, work_dir=folder)

    return until_solved(train, **request)


def main():
    """Answer requests until stdin closes."""
    if "OMP_NUM_THREADS" in os.environ:
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    actions = {"plan": time_plan, "sac": time_sac, "pets": run_pets, "mbpo": run_mbpo}
    for line in sys.stdin:
        request = json.loads(line)
        answer = actions[request.pop("do")](request)
        print(json.dumps(answer), file=REPLIES, flush=True)


if __name__ == "__main__":
    main()
