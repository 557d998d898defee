"""The command line: what it prints, and one line for every mistake."""

import json
import resource
import subprocess
import sys

import pytest
import tiny_system

from jaxmbrl import cli

PETS = ["train", "pets", "cartpole_swingup"]
TINY = ["train", *tiny_system.ARGUMENTS]


@pytest.fixture(autouse=True)
def installed(monkeypatch, tmp_path):
    tiny_system.install(monkeypatch)
    monkeypatch.chdir(tmp_path)


def mistake(words, capfd):
    """The one line of a command line that is refused before anything is compiled."""
    from jaxmbrl.training import compiling

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(compiling, "start", lambda *_: pytest.fail("compiled"))
        assert cli.main(words) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1 and err.startswith("jaxmbrl: error: ")
    return err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["trian"], "'trian'"),
        (["train"], "SYSTEM: missing"),
        (["train", "pets"], "ENV: missing"),
        (["train", "pet", "pendulum"], "system: got 'pet', needs one of"),
        (["train", "pets", "pendulm"], "did you mean pendulum"),
        (["train", "pets", "brax/hoper"], "brax/hopper"),
        (["train", "pets", "brax/swimmer"], "swimmer"),
        ([*PETS, "--preset", "smal"], "preset: got 'smal', needs one of small, paper; did you mean small?"),
        ([*PETS, "--seed", "-1"], "--seed: got '-1', needs a whole number, at least 0"),
        ([*PETS, "--seed", "x"], "--seed: got 'x'"),
        ([*PETS, "--seed", "3000000000"], "seed: got 3000000000"),
        ([*PETS, "--seeds", "0"], "--seeds: got '0', needs a whole number, at least 1"),
        ([*PETS, "--checkpoint-every", "0"], "--checkpoint-every: got '0'"),
        ([*PETS, "--horizon", "5"], "--horizon 5; fields are set as --agent.FIELD"),
        ([*PETS, "--agnt.horizon", "5"], "--agnt.horizon: no such option; did you mean agent?"),
        ([*PETS, "--agent.horizon"], "--agent.horizon: got no value"),
        ([*PETS, "--agent.horizon", "--seed", "3"], "--agent.horizon: got no value"),
        ([*PETS, "--agent.horizn", "5"], "agent.horizn: no such field; did you mean horizon?"),
        ([*PETS, "--agent.horizon", "-5"], "agent.horizon: got -5, needs at least 1"),
        ([*PETS, "--agent.horizon=five"], "agent.horizon: got 'five', needs a whole number"),
        ([*PETS, "--agent.horizon", "9" * 50], "needs a whole number below"),
        ([*PETS, "--agent.model.member.hidden", "2000000000,2000000000"], "memory: "),
        ([*PETS, "--agent.planner", "cme"], "agent.planner: got 'cme', needs one of"),
        ([*PETS, "--agent.planner.elites", "0"], "agent.planner.elites: got 0, needs at least 1"),
        ([*PETS, "--agent.planner.elites", "500"], "agent.planner.elites: got 500"),
        ([*PETS, "--agent.planner", "mppi", "--agent.planner.elites", "5"], "agent.planner.elites: no such field"),
        ([*PETS, "--agent.model.member.hidden", "64,-1"], "agent.model.member.hidden: got (64, -1)"),
        ([*PETS, "--agent.model", "simulator", "--agent.model.size", "3"], "agent.model.size: no such field"),
        ([*PETS, "--agent.discount", "1.5"], "agent.discount: got 1.5, needs 0.0 to 1.0"),
        ([*PETS, "--agent.discount", "nan"], "agent.discount: got nan"),
        ([*PETS, "--schedule.epochs", "1e3"], "schedule.epochs: got '1e3', needs a whole number"),
        ([*PETS, "--schedule.epoch_steps", "7", "--schedule.num_envs", "2"], "epoch_steps: got 7"),
        ([*PETS, "--schedule.capacity", "2_000_000_000", "--seeds", "99"], "memory: the state takes"),
        ([*PETS, "--env.gravty", "3"], "env.gravty: no such option; did you mean gravity?"),
        ([*PETS, "--env.gravity", "strong"], "env.gravity: got 'strong', needs a number"),
        ([*PETS, "--env.episode_length", "0"], "env.episode_length: got 0"),
        (["train", "pets", "mountain_car", "--env.action_repeat", "x"], "env.action_repeat: got 'x'"),
        ([*PETS, "--agent..horizon", "5"], "agent..horizon: no such field"),
        ([*PETS, "--agent.", "5"], "--agent.: no such option"),
        ([*PETS, "--agent.planner.", "5"], "agent.planner."),
        ([*PETS, "--agent.horizon.more", "5"], "agent.horizon is a single value and has no fields"),
        ([*PETS, "--agent.horizon", ""], "agent.horizon: got '', needs a whole number"),
        ([*PETS, "--agent.horizon", "5.5"], "agent.horizon: got '5.5', needs a whole number"),
        ([*PETS, "--agent.model.member", "3"], "agent.model.member: got '3', needs a field, such as"),
        ([*PETS, "--agent.model.member.hidden", "64,x"], "agent.model.member.hidden: got 'x', needs a whole number"),
        ([*PETS, "--agent.model.size", "2", "--agent.model.elites", "3"], "agent.model.elites: got 3"),
        ([*PETS, "--agent.model.propagation", "ts2"], "agent.model.propagation: got 'ts2', needs one of"),
        ([*PETS, "--agent.fit.learning_rate", "-1"], "agent.fit.learning_rate: got -1.0"),
        ([*PETS, "--agent.fit.learning_rate", "inf"], "agent.fit.learning_rate: got inf"),
        ([*PETS, "--agent.planner.population", "0"], "agent.planner.population: got 0"),
        ([*PETS, "--agent.terminal_value", "maybe"], "agent.terminal_value: got 'maybe', needs one of"),
        ([*PETS, "--schedule.num_envs", "3"], "schedule."),
        ([*PETS, "--schedule.fits_per_epoch", "0"], "schedule.fits_per_epoch: got 0"),
        ([*PETS, "--schedule.epochs", "9", "extra"], "extra"),
        ([*PETS, "--run-dir"], "--run-dir"),
        (["train", "pets", "gymnax/Nothing-v0"], "gymnax/Nothing-v0"),
        (["train", "pets", "pixels/cartpole"], "pets does not fit pixels/cartpole"),
        (["train", "pets", "pixels/nothing"], "pixels/nothing"),
        (["train", "pets", "pixels/pendulum", "--env.size", "0"], "env.size: got 0"),
        (["train", "pets", "pendulum", "--env.frame_stack", "0"], "env.frame_stack: got 0"),
        (["train", "pets", "brax/hopper", "--env.backend", "unreal"], "env.backend: got 'unreal'"),
        (["train", "sac", "gymnax/Breakout-MinAtar"], "Breakout-MinAtar"),
        (["train", "dqn", "pendulum"], "dqn does not fit pendulum: pendulum: actions are continuous (Box of 1), needs"),
        (["train", "dqn", "pendulum", "--agent.policy.decay", "0"], "agent.policy.decay: got 0, needs at least 1"),
        (["train", "mbpo", "pendulum", "--agent.rollouts", "7"], "agent.rollouts: got 7, needs a multiple of elites"),
        (["train", "mbpo", "pendulum", "--agent.real_ratio", "2"], "agent.real_ratio: got 2.0, needs 0.0 to 1.0"),
        (["train", "mbpo", "pendulum", "--agent.policy", "dqn"], "agent.policy: got 'dqn', needs one of"),
        (["train", "dreamer", "pendulum", "--agent.fit.length", "0"], "agent.fit.length: got 0"),
        (["train", "dreamer", "pendulum", "--agent.model.classes", "1"], "agent.model.classes: got 1"),
        (["train", "dreamer", "pendulum", "--schedule.prefill", "5"], "schedule.prefill: got 5, needs at least"),
        (["train", "svg", "pendulum", "--agent.horizon", "9999"], "schedule.prefill"),
        (["list", "--all"], "--all"),
        (["list", "pets"], "pets"),
        (["resume"], "RUN"),
        (["resume", "missing"], "run: got missing, which does not exist, needs a run directory"),
        (["resume", "."], "run: got ., which holds no config.json"),
        (["resume", __file__], "which is a file, needs a run directory"),
        (["resume", "missing", "--epochs", "0"], "--epochs: got '0'"),
        (["resume", "missing", "--agent.horizon", "5"], "--agent.horizon: got it for 'resume'"),
        (["evaluate", "missing"], "run: got missing"),
        (["evaluate", "missing", "--episodes", "0"], "--episodes: got '0'"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_code_2(words, expected, capfd, tmp_path):
    assert expected in mistake(words, capfd)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("system", "words", "expected"),
    [
        ("pets", {"model.member.learn_reward": "false"}, "agent.model.member.learn_reward: got False, needs True"),
        ("ivg", {"tasks": "nothing"}, "agent.tasks: got 'nothing', which cartpole does not know"),
        (
            "pets",
            {"model.size": "4", "model.elites": "2", "model.particles": "20", "fit.holdout_every": "0"},
            "agent.fit.holdout_every: got 0, needs at least 2",
        ),
    ],
)
def test_what_does_not_fit_an_environment_is_named_in_full(system, words, expected):
    """By whatever part of the system finds it out."""
    from jaxmbrl import agents, envs
    from jaxmbrl.config import ConfigError, override

    env = envs.make("cartpole")
    env = env._replace(spec=env.spec._replace(reward=None))
    config = override(agents.load(system).preset("small", env.spec).agent, words, "agent.")
    with pytest.raises(ConfigError) as caught:
        agents.compose(system, env, config)
    assert str(caught.value).startswith(expected)


def test_a_run_directory_is_never_written_over(capfd, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    assert "run_dir: got full, which is not empty" in mistake([*TINY, "--run-dir", "full"], capfd)
    (tmp_path / "file").write_text("mine")
    assert "run_dir: got file, which is a file" in mistake([*TINY, "--run-dir", "file"], capfd)
    assert "cannot be written" in mistake([*TINY, "--run-dir", "file/below"], capfd)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full"]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"provenance": {}, "system": "tiny"}'])
def test_a_damaged_config_is_one_line(text, capfd, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(text)
    for command in ("resume", "evaluate"):
        assert "run/config.json" in mistake([command, "run"], capfd)


@pytest.fixture
def finished(capfd):
    """A directory with a finished run of two seeds, named by the last line of its standard output."""
    assert cli.main([*TINY, "--seeds=2", "--schedule.epochs", "2", "--agent.rate=0.2"]) == 0
    out, err = capfd.readouterr()
    assert "epoch 2/2" in err and "steps/s" in err
    return out.splitlines()[-1]


def test_train_resume_evaluate(finished, capfd, tmp_path):
    directory = tmp_path / finished
    assert finished.startswith("runs/tiny-pendulum-")
    content = json.loads((directory / "config.json").read_text())
    assert (content["seeds"], content["schedule"]["epochs"], content["agent"]["rate"]) == (2, 2, 0.2)
    assert len((directory / "metrics.jsonl").read_text().splitlines()) == 4

    assert cli.main(["resume", finished]) == 0
    out, err = capfd.readouterr()
    assert "is finished" in err and out.splitlines()[-1] == finished

    assert cli.main(["evaluate", finished, "--episodes", "3"]) == 0
    out = capfd.readouterr().out.splitlines()
    assert out[0].startswith("seed 0: return ") and "± " in out[0]
    assert out[-2:] == [f"{finished}/evaluation.json", f"{finished}/episode.gif"]
    assert all((tmp_path / line).is_file() for line in out[-2:])


def test_a_failed_run_is_one_line_and_code_1(capfd, tmp_path):
    import jax

    jax.config.update("jax_debug_nans", False)
    try:
        assert cli.main([*TINY, "--agent.poison", "1", "--run-dir", "run"]) == 1
    finally:
        jax.config.update("jax_debug_nans", True)
    errors = [line for line in capfd.readouterr().err.splitlines() if "error" in line]
    assert len(errors) == 1
    assert errors[0].startswith(
        "jaxmbrl: error: seed 0, epoch 1, step 6: not finite (nan or infinite): agent.weights, "
    )
    assert "needs at least one" in mistake(["evaluate", "run"], capfd)


def test_list_and_field_help(capsys):
    assert cli.main(["list"]) == 0
    out = capsys.readouterr().out
    for word in ("systems", "pets", "cartpole_swingup", "brax/hopper", "planners", "icem", "models", "ensemble"):
        assert word in out
    assert cli.main(["train", "tiny", "pendulum", "--help", "--agent.size", "7"]) == 0
    out = capsys.readouterr().out
    for word in (
        "--agent.rate",
        "0.1",
        "step size (above 0.0)",
        "--schedule.epochs",
        "--env.episode_length",
        "after which an episode is truncated",
        "--seeds",
    ):
        assert word in out
    assert next(line for line in out.splitlines() if "--agent.size" in line).split()[1] == "7"


def test_help_is_quick_and_needs_no_jax():
    """Three seconds of a processor, however busy the machine is."""
    script = "import sys; from jaxmbrl import cli; sys.argv[1:] = ['--help']\ntry: cli.main()\n"
    script += "except SystemExit: assert not {'jax', 'brax', 'mujoco', 'rich'} & set(sys.modules)"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    assert "jaxmbrl train pets cartpole_swingup" in done.stdout
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 3.0


def test_simulators_are_imported_without_a_word(tmp_path):
    """Brax and MuJoCo print what they failed to import, warn, and leave a log; none of it reaches the user."""
    command = [sys.executable, "-c", "import sys; from jaxmbrl.cli import main; sys.exit(main())"]
    command += ["train", "pets", "brax/halfcheetah", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: jaxmbrl train") and "--env.backend" in done.stdout
    assert "warp" not in done.stdout and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [["train", "pets", "nowhere"], ["resume", "nowhere"]])
def test_a_mistake_in_a_process_of_its_own(words):
    command = [sys.executable, "-c", "import sys; from jaxmbrl.cli import main; sys.exit(main())", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1 and "nowhere" in done.stderr
