"""Configurations: frozen dataclasses whose fields are documented, validated, and settable by dotted path.

A field declared with `option` carries its help and its bounds. ``float`` fields may hold a JAX array or a tracer,
which is how a sweep varies them under ``vmap``; those are not validated. Everything else is static.
"""

import dataclasses
import difflib
import functools
import math
import typing
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

T = TypeVar("T")

INT_LIMIT = 2**31  # Compiled programs count in int32.


class ConfigError(ValueError):
    """A user's mistake, told in one line: the field, what it got, what it needs."""


@dataclasses.dataclass(frozen=True)
class Bounds:
    """What `option` knows of a field. Bounds are inclusive, but ``above`` and ``below`` are strict."""

    doc: str
    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()
    parts: Mapping[str, type] = dataclasses.field(default_factory=dict)

    def needs(self) -> str:
        """The bounds in words, '' where there are none."""
        words = [f"one of {', '.join(self.choices or self.parts)}"] if self.choices or self.parts else []
        if self.low is not None and self.high is not None:
            words.append(f"{self.low} to {self.high}")
        else:
            words += [f"at least {self.low}"] if self.low is not None else []
            words += [f"at most {self.high}"] if self.high is not None else []
        words += [f"above {self.above}"] if self.above is not None else []
        words += [f"below {self.below}"] if self.below is not None else []
        return ", ".join(words)

    def allow(self, value: float) -> bool:
        """Whether a number is finite and within the bounds."""
        return (
            (isinstance(value, int) or math.isfinite(value))  # a long int overflows isfinite
            and (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )


def option(default: Any, doc: str, **bounds: Any) -> Any:
    """A configuration field with its help text and bounds.

    Args:
        default: the field's default value.
        doc: one line for ``--help``, units included.
        **bounds: ``low``, ``high`` (inclusive), ``above``, ``below`` (strict) for numbers and tuples of numbers;
            ``choices`` for strings; ``parts``, a table from names to config classes, for a swappable part.
    """
    return dataclasses.field(default=default, metadata={"bounds": Bounds(doc, **bounds)})


@typing.dataclass_transform(frozen_default=True)
def configurable(cls: type[T]) -> type[T]:
    """Make ``cls`` a frozen dataclass that validates its options.

    A method ``check(self)``, if there is one, tests what involves several fields, and raises `ConfigError`.
    """
    own_check = getattr(cls, "check", None)

    def validate(self: Any) -> None:
        for field in dataclasses.fields(self):
            _check_field(field, _hints(cls)[field.name], getattr(self, field.name))
        if own_check is not None:
            own_check(self)

    cls.__post_init__ = validate  # type: ignore[attr-defined]
    return dataclasses.dataclass(frozen=True)(cls)


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _bounds(field: "dataclasses.Field[Any]") -> Bounds:
    return field.metadata.get("bounds", Bounds(""))


def _check_field(field: "dataclasses.Field[Any]", hint: Any, value: Any) -> None:
    bounds = _bounds(field)
    if bounds.parts:
        if type(value) not in bounds.parts.values():
            raise ConfigError(f"{field.name}: got {value!r}, needs the Config of {bounds.needs()}")
    elif hint is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number and not hasattr(value, "dtype"):
            raise ConfigError(f"{field.name}: got {value!r}, needs a number")
        if number and not bounds.allow(value):
            raise ConfigError(f"{field.name}: got {value!r}, needs {bounds.needs() or 'a finite number'}")
    elif hint is int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise ConfigError(f"{field.name}: got {value!r}, needs a whole number")
        if abs(value) >= INT_LIMIT:
            raise ConfigError(f"{field.name}: got {value!r}, needs a whole number below {INT_LIMIT}")
        if not bounds.allow(value):
            raise ConfigError(f"{field.name}: got {value!r}, needs {bounds.needs()}")
    elif hint is bool:
        if not isinstance(value, bool):
            raise ConfigError(f"{field.name}: got {value!r}, needs true or false")
    elif hint is str:
        if not isinstance(value, str) or (bounds.choices and value not in bounds.choices):
            raise ConfigError(f"{field.name}: got {value!r}, needs {bounds.needs() or 'a string'}")
    elif typing.get_origin(hint) is tuple:
        kind = typing.get_args(hint)[0]
        limit = INT_LIMIT if kind is int else math.inf
        good = isinstance(value, tuple) and all(type(x) is kind or (kind is float and type(x) is int) for x in value)
        if not good or (kind in (int, float) and not all(bounds.allow(x) and abs(x) < limit for x in value)):
            needs = f", each {bounds.needs()}" if bounds.needs() else ""
            raise ConfigError(f"{field.name}: got {value!r}, needs a tuple of {kind.__name__}{needs}")
    elif dataclasses.is_dataclass(hint) and not isinstance(value, typing.cast(type, hint)):
        raise ConfigError(f"{field.name}: got {value!r}, needs its Config")


def parse(text: str, hint: Any) -> Any:
    """Read a command-line word as a value of type ``hint``. Raises `ConfigError` without naming the field."""
    word = text.strip()
    if hint is bool:
        if word.lower() in ("true", "false"):
            return word.lower() == "true"
        raise ConfigError(f"got {text!r}, needs true or false")
    if typing.get_origin(hint) is tuple:
        kind = typing.get_args(hint)[0]
        return tuple(parse(part.strip(), kind) for part in word.strip("()[]").split(",") if part.strip())
    if hint in (int, float):
        try:
            return hint(word.replace("_", "") if hint is int else word)
        except ValueError:
            kind = "a whole number" if hint is int else "a number"
            raise ConfigError(f"got {text!r}, needs {kind}") from None
    return text


def override(config: T, words: Mapping[str, str], prefix: str = "") -> T:
    """Return ``config`` with fields replaced by command-line words.

    Args:
        config: an instance of a `configurable` class.
        words: from dotted paths (``"planner.population"``) to text. A swappable part's name chooses the part
            (``{"planner": "mppi"}``), and fields of it may be set in the same call.
        prefix: put before field names in error messages (``"agent."``).

    Raises:
        ConfigError: one line that names the field in full, what it got and what it needs.
    """
    fields = {field.name: field for field in dataclasses.fields(config)}  # type: ignore[arg-type]
    hints = _hints(type(config))
    nested: dict[str, dict[str, str]] = {}
    values: dict[str, Any] = {}
    for path, text in words.items():
        name, _, rest = path.partition(".")
        if name not in fields:
            raise ConfigError(f"{prefix}{path}: no such field{near(name, fields)}; fields: {', '.join(fields)}")
        bounds = _bounds(fields[name])
        if rest:
            if not dataclasses.is_dataclass(getattr(config, name)):
                raise ConfigError(f"{prefix}{path}: {prefix}{name} is a single value and has no fields")
            nested.setdefault(name, {})[rest] = text
        elif bounds.parts:
            if text not in bounds.parts:
                raise ConfigError(f"{prefix}{path}: got {text!r}, needs {bounds.needs()}{near(text, bounds.parts)}")
            if type(getattr(config, name)) is not bounds.parts[text]:  # naming the present part keeps its settings
                values[name] = bounds.parts[text]()
        elif dataclasses.is_dataclass(getattr(config, name)):
            raise ConfigError(f"{prefix}{path}: got {text!r}, needs a field, such as {prefix}{path}.<field>")
        else:
            try:
                values[name] = parse(text, hints[name])
            except ConfigError as error:
                raise ConfigError(f"{prefix}{path}: {error}") from None
    for name, inner in nested.items():
        values[name] = override(values.get(name, getattr(config, name)), inner, f"{prefix}{name}.")
    try:
        return dataclasses.replace(config, **values)  # type: ignore[type-var]
    except ConfigError as error:
        raise ConfigError(f"{prefix}{error}") from None


def override_table(defaults: Mapping[str, Any], words: Mapping[str, str], prefix: str = "") -> dict[str, Any]:
    """``defaults`` with values replaced by command-line words, which are read by the types of the defaults.

    Raises:
        ConfigError: one line that names the option in full, what it got and what it needs.
    """
    result = dict(defaults)
    for name, text in words.items():
        if name not in defaults:
            hint = near(name, defaults)
            raise ConfigError(f"{prefix}{name}: no such option{hint}; options: {', '.join(defaults)}")
        try:
            result[name] = parse(text, type(defaults[name]))
        except ConfigError as error:
            raise ConfigError(f"{prefix}{name}: {error}") from None
    return result


def value_at(config: Any, path: str) -> Any:
    """The field of ``config`` at a dotted path."""
    return functools.reduce(getattr, path.split("."), config)


def replace_at(config: T, path: str, value: Any) -> T:
    """``config`` with the field at a dotted path replaced, by a tracer for example."""
    name, _, rest = path.partition(".")
    changed = replace_at(getattr(config, name), rest, value) if rest else value
    return dataclasses.replace(config, **{name: changed})  # type: ignore[type-var]


def near(name: str, names: Any) -> str:
    """A hint at similar names: '; did you mean x?', or ''."""
    close = difflib.get_close_matches(name, list(names), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def to_dict(config: Any) -> dict[str, Any]:
    """A JSON-ready dictionary of ``config``; a swappable part carries its name under ``"kind"``."""
    result: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            kinds = [name for name, part in _bounds(field).parts.items() if part is type(value)]
            result[field.name] = {**({"kind": kinds[0]} if kinds else {}), **to_dict(value)}
        else:
            result[field.name] = list(value) if isinstance(value, tuple) else value
    return result


def from_dict(cls: type[T], data: Mapping[str, Any], prefix: str = "") -> T:
    """The inverse of `to_dict`. Raises `ConfigError` on unknown or missing fields and on bad values."""
    if not isinstance(data, Mapping):
        raise ConfigError(f"{prefix.rstrip('.') or 'config'}: got {data!r}, needs a table of fields")
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for name in data:
        if name not in fields and name != "kind":
            raise ConfigError(f"{prefix}{name}: no such field{near(name, fields)}; fields: {', '.join(fields)}")
    values: dict[str, Any] = {}
    for name, field in fields.items():
        if name not in data:
            raise ConfigError(f"{prefix}{name}: missing")
        value = data[name]
        if isinstance(value, Mapping):
            parts = _bounds(field).parts
            part = parts.get(value.get("kind", "")) if parts else _hints(cls)[name]
            if not dataclasses.is_dataclass(part):
                raise ConfigError(f"{prefix}{name}: got {value!r}, needs {_bounds(field).needs() or 'a value'}")
            values[name] = from_dict(typing.cast(type, part), value, f"{prefix}{name}.")
        else:
            values[name] = tuple(value) if isinstance(value, list) else value
    try:
        return cls(**values)
    except ConfigError as error:
        raise ConfigError(f"{prefix}{error}") from None


def describe(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """Yield (dotted path, value, help with bounds) for every field, those of nested parts included."""
    for field in dataclasses.fields(config):
        value, bounds = getattr(config, field.name), _bounds(field)
        needs = f" ({bounds.needs()})" if bounds.needs() else ""
        if dataclasses.is_dataclass(value):
            kinds = [name for name, part in bounds.parts.items() if part is type(value)]
            if kinds:
                yield f"{prefix}{field.name}", kinds[0], f"{bounds.doc}{needs}"
            yield from describe(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", value, f"{bounds.doc}{needs}"
