"""What a run finds on a disk that was not kind to it: it goes back to a good checkpoint, or stops, with one line."""

import contextlib
import json
import os
import resource
import shutil
import tempfile
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny_system
from jax.experimental.compilation_cache import compilation_cache

from jaxmbrl import cli
from jaxmbrl.config import ConfigError
from jaxmbrl.training import checkpoint, manifest, metrics, runner

SIZE = 5_000  # of the weights: 60 kB that do not compress, so that flipped bytes hit them
TINY = ["train", *tiny_system.ARGUMENTS, "--agent.size", str(SIZE)]


@pytest.fixture(scope="module", autouse=True)
def installed():
    with pytest.MonkeyPatch.context() as monkeypatch:
        tiny_system.install(monkeypatch)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run with the checkpoints of its epochs 3 and 4, and what restores them."""
    directory = tmp_path_factory.mktemp("whole") / "run"
    assert cli.main([*TINY, "--run-dir", str(directory)]) == 0
    return directory, runner.build(manifest.read(directory)[0])


@pytest.fixture
def run(whole, tmp_path):
    """A copy of it to damage."""
    return Path(shutil.copytree(whole[0], tmp_path / "run"))


def largest(run, epoch):
    """The file with a checkpoint's data."""
    return max((run / "checkpoints" / str(epoch)).rglob("*"), key=lambda path: path.stat().st_size * path.is_file())


def truncate(run, epoch):
    path = largest(run, epoch)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def zero(run, epoch):
    path = largest(run, epoch)
    path.write_bytes(bytes(path.stat().st_size))


def zero_a_page(run, epoch):
    """What a crash of the machine leaves of a file whose last pages were never written."""
    path = largest(run, epoch)
    data = path.read_bytes()
    middle = len(data) // 2
    path.write_bytes(data[:middle] + bytes(512) + data[middle + 512 :])


def flip_a_bit(run, epoch):
    path = largest(run, epoch)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def lose_the_data(run, epoch):
    largest(run, epoch).unlink()


def lose_the_metadata(run, epoch):
    (run / "checkpoints" / str(epoch) / "default" / "_METADATA").unlink()


def lose_everything(run, epoch):
    shutil.rmtree(run / "checkpoints" / str(epoch))
    (run / "checkpoints" / str(epoch)).mkdir()


def write_nonsense(run, epoch):
    for path in (run / "checkpoints" / str(epoch)).rglob("*"):
        if path.is_file():
            path.write_bytes(b"damaged")


DAMAGES = [
    truncate,
    zero,
    zero_a_page,
    flip_a_bit,
    lose_the_data,
    lose_the_metadata,
    lose_everything,
    write_nonsense,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_checkpoint_before_a_damaged_one_is_taken(damage, run, whole, capfd):
    """With one line; and where that one is damaged too, none is."""
    damage(run, 4)
    state, epoch = runner.restore_latest(run, whole[1])
    assert epoch == 3 and int(state.agent.updates) == 3
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith(f"jaxmbrl: warning: {run}/checkpoints/4: damaged (")
    assert said[0].endswith("), needs a complete checkpoint: going back to the checkpoint of epoch 3")
    damage(run, 3)
    with pytest.raises(ConfigError, match=f"{run}/checkpoints/4: damaged"):
        runner.restore_latest(run, whole[1])
    assert capfd.readouterr().err == ""


def test_a_run_goes_on_from_the_checkpoint_before(run, whole, capfd):
    """Rows after it are dropped and computed again; the damaged checkpoint is set aside."""
    flip_a_bit(run, 4)
    assert cli.main(["resume", str(run)]) == 0
    assert sum("warning" in line for line in capfd.readouterr().err.splitlines()) == 1
    before, after = (runner.restore_latest(directory, whole[1]) for directory in (whole[0], run))
    assert before[1] == after[1] == 4
    np.testing.assert_array_equal(before[0].agent.weights, after[0].agent.weights)
    assert [row["epoch"] for row in metrics.read(run / "metrics.jsonl")] == [1, 2, 3, 4]
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"3", "4", "damaged-4"}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"seed": 5}, "written under another configuration"),
        (
            {"agent": {"rate": 0.3, "size": SIZE, "poison": 0, "place": "parameter"}},
            "written under another configuration",
        ),
        (
            {"agent": {"rate": 0.1, "size": 7, "poison": 0, "place": "parameter"}},
            f"agent.weights: got shape ({SIZE}, 3), needs (7, 3)",
        ),
        ({"agent": {"rate": 0.1, "poison": 0, "place": "parameter"}}, "agent.size: missing"),
        (
            {"agent": {"rate": 0.1, "size": SIZE, "poison": 0, "place": "parameter", "more": 1}},
            "agent.more: no such field",
        ),
    ],
)
def test_another_configuration_is_one_line(fields, expected, run, capfd):
    path = run / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    rows = (run / "metrics.jsonl").read_bytes()
    assert cli.main(["resume", str(run)]) == 2
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 1 and expected in said[0]
    assert (run / "metrics.jsonl").read_bytes() == rows


def test_a_checkpoint_of_another_version_is_one_line(run, whole, monkeypatch, capfd):
    """As one that was written before checkpoints were sealed."""
    program = whole[1]
    state = runner.restore(run, program, 4)
    shutil.rmtree(run / "checkpoints")
    monkeypatch.setattr(checkpoint, "SEAL", "mark")
    with checkpoint.manager(run / "checkpoints") as opened:
        checkpoint.save(opened, 4, state, program.identity)
    monkeypatch.undo()
    tiny_system.install(monkeypatch)
    capfd.readouterr()
    assert cli.main(["resume", str(run)]) == 2
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 1 and "written by another version or configuration" in said[0]


@pytest.fixture
def no_cache():
    """JAX's own cache is no subject of these tests, and must not be damaged by them."""
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    yield
    jax.config.update("jax_enable_compilation_cache", True)
    compilation_cache.reset_cache()


@contextlib.contextmanager
def files_up_to(size):
    """Writing beyond ``size`` bytes fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("no_cache")
def test_a_full_disk_is_one_line_and_the_last_checkpoint_stands(run, whole, capfd):
    with files_up_to(20_000):
        assert cli.main(["resume", str(run), "--epochs", "6"]) == 1
    said = capfd.readouterr().err.splitlines()
    errors = [line for line in said if "error" in line or "Traceback" in line]
    assert len(errors) == 1 and errors[0] == said[-1]
    assert errors[0].startswith(f"jaxmbrl: error: {run}/checkpoints: a checkpoint could not be written (")
    assert checkpoint.latest(run / "checkpoints") == 4
    assert cli.main(["resume", str(run)]) == 0
    assert checkpoint.latest(run / "checkpoints") == 6


def test_a_disk_that_takes_no_configuration(tmp_path, capsys):
    with files_up_to(100):
        assert cli.main([*TINY, "--run-dir", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "cannot be written (File too large)" in said[0]


@pytest.fixture
def read_only(whole):
    """A run directory that this process, which may be root's, cannot write."""
    with tempfile.TemporaryDirectory(prefix="jaxmbrl-") as place:
        run = Path(shutil.copytree(whole[0], Path(place) / "run"))
        Path(place).chmod(0o755)
        for path in (run, *run.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            yield run
        finally:
            if root:
                os.seteuid(0)
            for path in (run, *run.rglob("*")):
                path.chmod(0o755)


@pytest.mark.usefixtures("no_cache")
@pytest.mark.parametrize("words", [["resume", "--epochs", "6"], ["evaluate", "--episodes", "1"]])
def test_a_directory_that_cannot_be_written_is_one_line(words, read_only, capfd):
    assert cli.main([*words, str(read_only)]) == 1
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 1 and str(read_only) in said[0] and "ermission denied" in said[0]
