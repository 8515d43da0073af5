"""What the commands have in common: ``--json``, ``--debug`` and the settings as options."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable
from typing import Any

import click

from workers.errors import SettingsError
from workers.settings import SETTINGS, Setting, Settings

Callback = Callable[..., None]
Decorator = Callable[[Callback], Callback]

COLLECTION = ("data_dir", "broker_url", "ledger_url", "bundle")
"""The settings of every command that opens the collection."""

_BY_NAME = {setting.name: setting for setting in SETTINGS}


class Finite(click.FloatRange):
    """A number of a range, and neither `nan` nor `inf`, which no range keeps out."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number that a text means."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


class Command(click.Command):
    """A command with the options that all of them have."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += [
            _flag(
                "--json", "Print one JSON object per line on standard output, and nothing else."
            ),
            _flag("--debug", "Show the traceback of an error, and more of the log."),
        ]


class Group(click.Group):
    """A group of commands; `default` is the one that is meant when none is named."""

    command_class = Command

    def __init__(self, *args: Any, default: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._default = default
        if default is not None:
            self.no_args_is_help = False

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the default command in where none is named."""
        named = args and (args[0] in self.commands or args[0] == "--help")
        if self._default is not None and not named and (not args or args[0].startswith("-")):
            args = [self._default, *args]
        return super().parse_args(ctx, args)


class _SettingType(click.ParamType[str]):
    """Text that a setting can be read from. It stays text: the settings read it once."""

    def __init__(self, setting: Setting) -> None:
        folder = setting.name.endswith("_dir")
        self.name = "folder" if folder else "number" if setting.name == "port" else "text"
        self._setting = setting

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            self._setting.read(value)
        except SettingsError as error:
            cause = error.__cause__
            self.fail(f"{self._setting.env}={value!r} cannot be used: {cause}.", param, ctx)
        return str(value)


def settings_options(*names: str) -> Decorator:
    """Give a command an option for each of some settings, and the settings as ``settings``."""

    def decorate(function: Callback) -> Callback:
        @functools.wraps(function)
        def with_settings(*args: Any, **kwargs: Any) -> None:
            texts = {_BY_NAME[name].env: kwargs.pop(name) for name in names}
            given = {env: text for env, text in texts.items() if text is not None}
            function(*args, settings=Settings.load(os.environ | given), **kwargs)

        command: Callback = with_settings
        for name in reversed(names):
            command = _option(_BY_NAME[name])(command)
        return command

    return decorate


def environment_of(settings: Settings) -> dict[str, str]:
    """Return the environment for a child process that is to have the same settings."""
    names = (*COLLECTION, "bundles_dir", "cache_dir")
    values = {name: str(getattr(settings, name)) for name in names}
    return os.environ | {_BY_NAME[name].env: text for name, text in values.items() if text}


def _option(setting: Setting) -> Decorator:
    default = setting.default or "empty"
    return click.option(
        f"--{setting.name.replace('_', '-')}",
        setting.name,
        type=_SettingType(setting),
        help=f"{setting.help} [env: {setting.env}; default: {default}]".replace("`", ""),
    )


def _flag(name: str, help_text: str) -> click.Option:
    # Read in ops.cli.group, before the command line is understood; here so that it is allowed.
    return click.Option([name], is_flag=True, expose_value=False, help=help_text)
