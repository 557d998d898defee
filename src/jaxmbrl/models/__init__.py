"""What is learned of the world, and how it imagines."""

MODELS: dict[str, str] = {
    "ensemble": "bootstrapped ensemble of one-step models, with particles (Chua et al. 2018)",
    "latent_dynamics": "deterministic latent dynamics with a reward for each of several tasks (Byravan et al. 2019)",
    "mdn_rnn": "autoencoder, and a recurrent network with a mixture density (Ha and Schmidhuber 2018)",
    "one_step": "one network: Gaussian or deterministic change of the observation, reward and continuation optional",
    "rssm": "recurrent state-space model with Gaussian or categorical latents (Hafner et al. 2019, 2023)",
    "simulator": "the true environment: planner error without model error",
}
