"""mbrl-lib's stock settings of its PETS and MBPO on the continuous cart-pole, as tables for its configuration.

What differs is said where it stands.
"""
# ruff: noqa: ANN001, ANN201  (beside `mbrl_worker`, which runs without a type checker's knowledge of mbrl-lib)

EPISODE = 200


def agent(horizon, iterations, population):
    """The agent's configuration, as in mbrl-lib's own PETS example."""
    return {
        "_target_": "mbrl.planning.TrajectoryOptimizerAgent",
        "_recursive_": False,
        "action_lb": "???",
        "action_ub": "???",
        "planning_horizon": horizon,
        "optimizer_cfg": {
            "_target_": "mbrl.planning.CEMOptimizer",
            "num_iterations": iterations,
            "elite_ratio": 0.1,
            "population_size": population,
            "alpha": 0.1,
            "lower_bound": "???",
            "upper_bound": "???",
            "return_mean_elites": True,
            "clipped_normal": False,
            "device": "cpu",
        },
        "replan_freq": 1,
        "verbose": False,
    }


def dynamics_model(members):
    """The network of its model."""
    return {
        "_target_": "mbrl.models.GaussianMLP",
        "_recursive_": False,
        "device": "cpu",
        "num_layers": 4,
        "in_size": None,
        "out_size": None,
        "ensemble_size": members,
        "hid_size": 200,
        "deterministic": False,
        "propagation_method": "random_model",
        "learn_logvar_bounds": False,
        "activation_fn_cfg": {"_target_": "torch.nn.SiLU"},
    }


def pets(seed):
    """Its PETS on cart-pole."""
    return {
        "seed": seed,
        "device": "cpu",
        "debug_mode": False,
        "dynamics_model": dynamics_model(5),
        "algorithm": {
            "agent": agent(horizon=15, iterations=5, population=350),
            "normalize": True,
            "normalize_double_precision": True,
            "target_is_delta": True,
            "initial_exploration_steps": EPISODE,
            "freq_train_model": 50,
            "learned_rewards": False,
            "num_particles": 20,
        },
        "overrides": {
            "num_steps": 5000,
            "num_elites": 5,
            "model_lr": 7.5e-4,
            "model_wd": 3e-5,
            "model_batch_size": 256,
            "validation_ratio": 0,
            "patience": 25,
            "num_epochs_train_model": 25,
        },
    }


def mbpo(seed):
    """Its MBPO on cart-pole, with one random episode at first rather than 5,000 steps of an untrained policy."""
    return {
        "seed": seed,
        "device": "cpu",
        "debug_mode": False,
        "log_frequency_agent": 1000,
        "dynamics_model": dynamics_model(7),
        "algorithm": {
            "normalize": True,
            "normalize_double_precision": True,
            "target_is_delta": True,
            "learned_rewards": True,
            "freq_train_model": EPISODE,
            "real_data_ratio": 0.0,
            "sac_samples_action": True,
            "initial_exploration_steps": EPISODE,
            "random_initial_explore": True,
            "num_eval_episodes": 1,
            "agent": {
                "_target_": "mbrl.third_party.pytorch_sac_pranz24.sac.SAC",
                "num_inputs": "???",
                "action_space": {
                    "_target_": "gymnasium.spaces.Box",
                    "_convert_": "all",
                    "low": -1.0,
                    "high": 1.0,
                    "shape": [1],
                },
                "args": {
                    "gamma": 0.99,
                    "tau": 0.005,
                    "alpha": 0.2,
                    "policy": "Gaussian",
                    "target_update_interval": 4,
                    "automatic_entropy_tuning": True,
                    "target_entropy": -0.05,
                    "hidden_size": 256,
                    "device": "cpu",
                    "lr": 3e-4,
                },
            },
        },
        "overrides": {
            "num_steps": 5000,
            "epoch_length": EPISODE,
            "num_elites": 5,
            "patience": 5,
            "model_lr": 1e-3,
            "model_wd": 5e-5,
            "model_batch_size": 256,
            "validation_ratio": 0.2,
            "freq_train_model": EPISODE,
            "effective_model_rollouts_per_step": 400,
            "rollout_schedule": [1, 15, 1, 1],
            "num_sac_updates_per_step": 20,
            "sac_updates_every_steps": 1,
            "num_epochs_to_retain_sac_buffer": 1,
            "sac_batch_size": 256,
        },
    }
