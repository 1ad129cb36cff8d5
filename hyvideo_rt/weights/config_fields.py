"""The fields of a config.json, asked for one by one: what we do not implement is an error, never ignored."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from hyvideo_rt.errors import WeightsError
from hyvideo_rt.weights.tensor_files import read_json

Value = TypeVar("Value", int, float, bool, tuple[int, ...])


class ConfigFields:
    """One config of the file `path`; null counts as absent, as for the libraries that write such files."""

    def __init__(self, path: Path, values: Mapping[str, Any] | None = None) -> None:
        self.path = path
        self.values = read_json(path) if values is None else values
        self._asked: set[str] = set()

    def like(self, key: str, default: Value) -> Value:
        """A value of the kind of `default`, which is also what an absent one means."""
        value = self._get(key)
        if value is None:
            return default
        match default:
            case bool():
                valid, kind = type(value) is bool, "true or false"
            case int():
                valid, kind = _is_size(value), "a positive integer"
            case float():
                valid = type(value) in (int, float) and math.isfinite(value)
                value, kind = float(value) if valid else value, "a finite number"
            case _:
                valid = isinstance(value, list) and all(map(_is_size, value))
                value, kind = tuple(value) if valid else value, "a list of positive integers"
        if not valid:
            self.fail(key, value, kind)
        return value  # type: ignore[no-any-return]

    def only(self, key: str, *implemented: Any) -> None:
        """Absent, or one of the values that we implement."""
        value = self._get(key)
        if value is not None and not any(type(value) is type(v) and value == v for v in implemented):
            self.fail(key, value, " or ".join(map(repr, implemented)))

    def require(self, *keys: str) -> None:
        """For what must be in the file, as its default would be wrong."""
        for key in keys:
            if self.values.get(key) is None:
                self.fail(key, None, "a value")

    def no_others(self) -> None:
        """A field that nobody asked for could change the network."""
        for key, value in self.values.items():
            if key not in self._asked and not key.startswith("_") and value is not None:
                self.fail(key, value, "no such field")

    def fail(self, key: str, got: object, expected: str) -> NoReturn:
        raise WeightsError(f"{self.path}: got {key} = {got!r}, expected {expected}")

    def _get(self, key: str) -> Any:
        self._asked.add(key)
        return self.values.get(key)


def _is_size(value: object) -> bool:
    return type(value) is int and 0 < value < 2**31
