"""Configurations: validation, dotted paths, round trips, and what the messages say."""

import json

import jax
import jax.numpy as jnp
import pytest

from jaxmbrl.config import ConfigError, configurable, describe, from_dict, near, option, override, to_dict


@configurable
class Linear:
    width: int = option(3, "units", low=1, high=100)
    rate: float = option(0.5, "step size", above=0.0, below=1.0)


@configurable
class Table:
    kind_of: str = option("dense", "layout", choices=("dense", "sparse"))


@configurable
class Whole:
    part: Linear | Table = option(Linear(), "the part", parts={"linear": Linear, "table": Table})
    fixed: Linear = option(Linear(), "not swappable")
    sizes: tuple[int, ...] = option((1, 2), "sizes", low=1)
    scales: tuple[float, ...] = option((), "scales", low=0.0)
    names: tuple[str, ...] = option(("a",), "names")
    flag: bool = option(True, "a switch")

    def check(self) -> None:
        if self.fixed.width > 50:
            raise ConfigError(f"fixed.width: got {self.fixed.width}, needs at most 50")


def message(function, *args):
    with pytest.raises(ConfigError) as caught:
        function(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({}, Whole()),
        ({"fixed.width": "1_0"}, Whole(fixed=Linear(width=10))),
        ({"fixed.width": "7", "fixed.rate": "1e-3"}, Whole(fixed=Linear(width=7, rate=0.001))),
        ({"part": "table"}, Whole(part=Table())),
        ({"part.kind_of": "sparse", "part": "table"}, Whole(part=Table(kind_of="sparse"))),
        ({"sizes": "4,5"}, Whole(sizes=(4, 5))),
        ({"sizes": "(4,)"}, Whole(sizes=(4,))),
        ({"sizes": ""}, Whole(sizes=())),
        ({"scales": "0,1.5"}, Whole(scales=(0.0, 1.5))),
        ({"names": "x, y"}, Whole(names=("x", "y"))),
        ({"flag": "False"}, Whole(flag=False)),
    ],
)
def test_override_sets_what_the_words_say(words, expected):
    assert override(Whole(), words) == expected


def test_naming_the_present_part_keeps_its_settings():
    config = Whole(part=Linear(width=9))
    assert override(config, {"part": "linear", "part.rate": "0.25"}).part == Linear(width=9, rate=0.25)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"fixed.width": "0"}, "agent.fixed.width: got 0, needs 1 to 100"),
        ({"sizes": "9" * 400}, f"agent.sizes: got ({'9' * 400},), needs a tuple of int, each at least 1"),
        ({"fixed.width": "1.5"}, "agent.fixed.width: got '1.5', needs a whole number"),
        ({"fixed.width": "9" * 400}, f"agent.fixed.width: got {'9' * 400}, needs a whole number below 2147483648"),
        ({"fixed.rate": "fast"}, "agent.fixed.rate: got 'fast', needs a number"),
        ({"fixed.rate": "nan"}, "agent.fixed.rate: got nan, needs above 0.0, below 1.0"),
        ({"fixed.rate": "1"}, "agent.fixed.rate: got 1.0, needs above 0.0, below 1.0"),
        ({"fixed.widht": "2"}, "agent.fixed.widht: no such field; did you mean width?; fields: width, rate"),
        ({"fixed.width": "60"}, "agent.fixed.width: got 60, needs at most 50"),
        ({"fixed": "linear"}, "agent.fixed: got 'linear', needs a field, such as agent.fixed.<field>"),
        ({"fixed.width.x": "2"}, "agent.fixed.width.x: agent.fixed.width is a single value and has no fields"),
        ({"part": "tabel"}, "agent.part: got 'tabel', needs one of linear, table; did you mean table?"),
        ({"part": "table", "part.width": "2"}, "agent.part.width: no such field; fields: kind_of"),
        ({"sizes": "1,0"}, "agent.sizes: got (1, 0), needs a tuple of int, each at least 1"),
        ({"sizes": "1,x"}, "agent.sizes: got 'x', needs a whole number"),
        ({"flag": "yes"}, "agent.flag: got 'yes', needs true or false"),
        ({"part": "table", "part.kind_of": "thin"}, "agent.part.kind_of: got 'thin', needs one of dense, sparse"),
    ],
)
def test_a_mistake_is_told_in_full(words, expected):
    assert message(override, Whole(), words, "agent.") == expected


@pytest.mark.parametrize(
    "bad",
    [
        lambda: Linear(width=True),
        lambda: Linear(width=2.0),  # type: ignore[arg-type]
        lambda: Linear(rate=float("inf")),
        lambda: Linear(rate=True),
        lambda: Whole(part=3),  # type: ignore[arg-type]
        lambda: Whole(fixed=Table()),  # type: ignore[arg-type]
        lambda: Whole(sizes=[1]),  # type: ignore[arg-type]
        lambda: Whole(names=(1,)),  # type: ignore[arg-type]
        lambda: Table(kind_of=1),  # type: ignore[arg-type]
    ],
)
def test_python_values_are_checked_too(bad):
    assert "got" in message(bad)


def test_a_float_may_be_traced():
    rates = jax.vmap(lambda rate: Linear(rate=rate).rate * 2.0)(jnp.asarray([0.1, 7.0]))
    assert rates.tolist() == pytest.approx([0.2, 14.0])


def test_round_trip_through_json():
    config = Whole(part=Table(kind_of="sparse"), sizes=(7,), scales=(0.5,), flag=False)
    assert from_dict(Whole, json.loads(json.dumps(to_dict(config)))) == config


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"extra": 1}, "agent.extra: no such field"),
        ({"flag": None}, "agent.flag: got None, needs true or false"),
        ({"fixed": 3}, "agent.fixed: got 3, needs its Config"),
        ({"fixed": {"width": 3}}, "agent.fixed.rate: missing"),
        ({"fixed": {"width": 0, "rate": 0.5}}, "agent.fixed.width: got 0"),
        ({"part": {"kind": "tree", "width": 3, "rate": 0.5}}, "needs one of linear, table"),
        ({"sizes": {"a": 1}}, "agent.sizes: got {'a': 1}"),
    ],
)
def test_a_damaged_dictionary_is_told(change, expected):
    assert expected in message(from_dict, Whole, {**to_dict(Whole()), **change}, "agent.")


def test_only_a_table_is_a_configuration():
    assert message(from_dict, Whole, [1, 2], "agent.") == "agent: got [1, 2], needs a table of fields"


def test_describe_lists_every_field_with_its_bounds():
    rows = {path: (value, text) for path, value, text in describe(Whole(), "--agent.")}
    assert rows["--agent.part"] == ("linear", "the part (one of linear, table)")
    assert rows["--agent.part.width"] == (3, "units (1 to 100)")
    assert rows["--agent.fixed.rate"] == (0.5, "step size (above 0.0, below 1.0)")
    assert len(rows) == 9


def test_near_names():
    assert near("pendulm", ["pendulum", "acrobot"]) == "; did you mean pendulum?"
    assert near("xyz", ["pendulum"]) == ""
