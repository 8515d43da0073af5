"""Fields of `bundle.toml`, taken with a check that names the field."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeVar

from models.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_LARGEST = 1 << 16

_T = TypeVar("_T")


class Fields:
    """One table of a TOML file. Every method raises `BundleError` on a field that is wrong."""

    def __init__(self, path: Path, values: Mapping[str, Any], *, name: str = "") -> None:
        self._path, self._values, self._name = path, values, name

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def error(self, key: str, problem: str) -> BundleError:
        """Make the error that says what is wrong with a field."""
        where = f"{self._name}.{key}" if self._name else key
        return BundleError(f"{self._path}: field {where} {problem}")

    def take(self, key: str, kind: type[_T]) -> _T:
        """Return a field of a given type."""
        if key not in self._values:
            raise self.error(key, f"is missing; add it ({kind.__name__})")
        value = self._values[key]
        # TOML's true is a bool, which Python counts among the integers.
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self.error(key, f"is {value!r}, expected {kind.__name__}")
        return value

    def table(self, key: str) -> Fields:
        """Return a table inside this one."""
        return Fields(self._path, self.take(key, dict), name=key)

    def number(self, key: str) -> float:
        """Return a field that is a whole or a decimal number."""
        whole = isinstance(self._values.get(key), int)
        value = self.take(key, int) if whole else self.take(key, float)
        if not math.isfinite(value):
            raise self.error(key, f"is {value}, expected a finite number")
        return float(value)

    def numbers(self, key: str, count: int) -> tuple[float, ...]:
        """Return a field that is a list of so many numbers."""
        values = self.take(key, list)
        right = [type(value) in (int, float) and math.isfinite(value) for value in values]
        if len(values) != count or not all(right):
            raise self.error(key, f"is {values!r}, expected {count} numbers")
        return tuple(float(value) for value in values)

    def size(self, key: str, *, least: int = 1) -> int:
        """Return a field that is a whole number, at least `least`."""
        value = self.take(key, int)
        if not least <= value <= _LARGEST:
            raise self.error(key, f"is {value}, expected {least} to {_LARGEST}")
        return value

    def choice(self, key: str, choices: tuple[str, ...]) -> str:
        """Return a field that is one of a few words."""
        value = self.take(key, str)
        if value not in choices:
            raise self.error(key, f"is {value!r}, expected one of {', '.join(choices)}")
        return value
