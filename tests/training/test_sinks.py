"""Sinks: every row once, in the file and elsewhere, whatever interrupts a run; a missing package is one line."""

import json
import struct
import sys
import types
from pathlib import Path

import pytest
import tiny_system

from jaxmbrl import cli
from jaxmbrl.config import ConfigError
from jaxmbrl.training import metrics, runner, sinks

ROWS = [
    [{"seed": s, "epoch": e, "env_steps": 8 * e, "a": s + e / 10, "b": None if e == 2 else 1.0} for s in (3, 4)]
    for e in (1, 2, 3)
]


@pytest.fixture(autouse=True)
def installed(monkeypatch, tmp_path):
    tiny_system.install(monkeypatch)
    monkeypatch.chdir(tmp_path)


def events(folder):
    """All that TensorBoard would show: (tag, step) -> value, events behind a restart's step hidden as it hides them."""
    from tensorboardX.proto import event_pb2

    found = {}
    for path in sorted(folder.glob("events*"), key=lambda path: path.stat().st_mtime_ns):
        data, place = path.read_bytes(), 0
        while place < len(data):  # records: length, 4 bytes of checksum, content, 4 bytes of checksum
            (length,) = struct.unpack_from("<Q", data, place)
            event = event_pb2.Event.FromString(data[place + 12 : place + 12 + length])
            place += length + 16
            if event.HasField("session_log"):
                found = {key: value for key, value in found.items() if key[1] < event.step}
            for value in event.summary.value:
                assert (value.tag, event.step) not in found
                found[value.tag, event.step] = value.simple_value
    return found


def test_tensorboard_has_every_number_once_after_a_restart(tmp_path):
    pytest.importorskip("tensorboardX")
    file = tmp_path / "metrics.jsonl"
    with sinks.opened(["tensorboard"], file, [], {}) as log:
        log(ROWS[0])
        log(ROWS[1])
    kept = metrics.truncate(file, 1)
    with sinks.opened(["tensorboard"], file, kept, {}) as log:
        log(ROWS[1])
        log(ROWS[2])
    assert metrics.read(file) == [row for rows in ROWS for row in rows]
    for seed in (3, 4):
        found = events(tmp_path / "tensorboard" / f"seed_{seed}")
        expected = {("a", 8 * e): pytest.approx(seed + e / 10) for e in (1, 2, 3)} | {("b", 8): 1.0, ("b", 24): 1.0}
        assert found == expected


class FakeRun:
    """What wandb does with steps: it takes a step that is not before the last one, and ignores others."""

    kept: dict = {}  # noqa: RUF012  (of all processes, by id)

    def __init__(self, **options):
        self.options, self.closed = options, False
        self.logged = self.kept.setdefault(options["id"], {})

    def log(self, told, step):
        if step > max(self.logged, default=0):
            self.logged[step] = told

    def finish(self):
        self.closed = True


@pytest.mark.parametrize(("name", "mode"), [("wandb", None), ("wandb_offline", "offline")])
def test_wandb_is_told_every_epoch_once(tmp_path, monkeypatch, name, mode):
    runs = []
    fake = types.SimpleNamespace(init=lambda **options: runs.append(FakeRun(**options)) or runs[-1])
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setattr(FakeRun, "kept", {})
    config = {"provenance": {"time": "2026-01-01T00:00:00+00:00"}, "system": "tiny"}
    for rows in (ROWS[:2], ROWS[1:]):
        with sinks.opened([name], tmp_path / "metrics.jsonl", [], config) as log:
            for each in rows:
                log(each)
    assert len({run.options["id"] for run in runs}) == 1 and all(run.closed for run in runs)
    assert {run.options["mode"] for run in runs} == {mode} and runs[0].options["config"] == config
    assert list(runs[0].logged) == [1, 2, 3]
    assert runs[0].logged[2] == {"env_steps": 16, "a/seed_3": 3.2, "a/seed_4": 4.2}


def test_unknown_and_missing_sinks(monkeypatch):
    monkeypatch.setitem(sinks.SINKS, "absent", sinks.Kind("no_such_package", sinks.SINKS["wandb"].open))
    with pytest.raises(ConfigError, match="sink: absent needs no_such_package, which is not installed"):
        sinks.check(["absent"])
    with pytest.raises(ConfigError, match=r"got 'tensorbord', needs some of .*did you mean tensorboard"):
        sinks.check(["tensorbord"])
    with pytest.raises(ConfigError, match="needs each name once"):
        sinks.check(["tensorboard", "tensorboard"])


def test_a_run_keeps_its_sinks(tmp_path, monkeypatch, capfd):
    """A run that was stopped logs on where it logged before; a mistake is one line, before anything is made."""
    assert cli.main(["train", *tiny_system.ARGUMENTS, "--sink", "tensorbord", "--run-dir", "run"]) == 2
    err = capfd.readouterr().err
    assert err.count("\n") == 1 and not Path("run").exists()
    told = []
    kind = sinks.Kind("json", lambda directory, kept, config: sinks.Sink(told.extend, lambda: told.append("closed")))
    monkeypatch.setitem(sinks.SINKS, "list", kind)
    assert (
        cli.main(["train", *tiny_system.ARGUMENTS, "--sink", "list", "--schedule.epochs", "1", "--run-dir", "run"]) == 0
    )
    assert json.loads(Path("run/config.json").read_text())["sinks"] == ["list"]
    assert cli.main(["resume", "run", "--epochs", "2"]) == 0
    assert [row if row == "closed" else row["epoch"] for row in told] == [1, "closed", 2, "closed"]
    assert metrics.read(Path("run") / runner.METRICS) == [row for row in told if row != "closed"]
