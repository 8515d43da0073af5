"""The command line is documented, and says the same thing in one place only."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from ops.cli import COMMANDS, main
from ops.cli.exits import Exit
from tests.ops.conftest import ROOT, Run, objects
from workers.settings import SETTINGS

DOCS = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
COMMON = DOCS[: DOCS.index("## lookalike serve")]


def leaves(
    command: click.Command, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command that does something, with the words that call it."""
    if not isinstance(command, click.Group):
        yield path, command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        inner = command.get_command(context, name)
        assert inner is not None
        yield from leaves(inner, (*path, name))


LEAVES = dict(leaves(main))


def section(path: tuple[str, ...]) -> str:
    """Return what the docs say of a command, or of the group that it is in."""
    found = re.search(
        rf"^## lookalike {path[0]}\n(.*?)(?=^## |\Z)", DOCS, re.MULTILINE | re.DOTALL
    )
    assert found, f"docs/cli.md has no section for {path[0]}"
    return found.group(1)


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_command_and_option_is_found_in_the_docs(path: tuple[str, ...]) -> None:
    text = section(path)
    assert f"{' '.join(path)}" in text or len(path) == 1
    for option in LEAVES[path].params:
        if isinstance(option, click.Option) and not option.hidden:
            name = max(option.opts, key=len)
            assert f"`{name}`" in text or f"`{name}`" in COMMON, f"{path}: {name}"


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_command_has_json_debug_and_help(path: tuple[str, ...]) -> None:
    options = {name for option in LEAVES[path].params for name in option.opts}
    assert {"--json", "--debug"} <= options
    assert LEAVES[path].help


def test_the_docs_name_no_option_that_is_not_there() -> None:
    known = {name for leaf in LEAVES.values() for option in leaf.params for name in option.opts}
    named = set(re.findall(r"`(--?[a-z][a-z-]*)`", DOCS))
    assert named - known == {"--help"}


def test_the_docs_have_the_table_of_exit_codes() -> None:
    rows = [f"| {int(code)} | {code.meaning} |" for code in Exit]
    assert "\n".join(rows) in DOCS


def test_help_has_the_exit_codes_and_one_line_for_each_command(run: Run) -> None:
    result = run("--help")
    assert result.exit_code == 0
    words = " ".join(result.stdout.split())
    for code in Exit:
        assert f"{int(code)} {code.meaning}" in words
    for command in COMMANDS:
        assert f"{command.name} {command.summary}" in words


def test_options_of_settings_have_the_help_of_the_settings() -> None:
    by_name = {setting.name: setting for setting in SETTINGS}
    serve = {option.name: option for option in LEAVES[("serve",)].params}
    for name in ("host", "port", "data_dir", "broker_url", "ledger_url", "bundle"):
        option = serve[name]
        assert isinstance(option, click.Option)
        assert option.default is None or "UNSET" in repr(option.default).upper()
        assert option.help == (
            f"{by_name[name].help} [env: {by_name[name].env}; "
            f"default: {by_name[name].default or 'empty'}]"
        ).replace("`", "")


def test_help_loads_no_heavy_package() -> None:
    program = (
        "import sys\nfrom ops.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "import json; print(json.dumps(sorted(m for m in sys.modules if '.' not in m)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert "click" in loaded
    assert not loaded & {"numpy", "celery", "flask", "lmdb", "onnxruntime", "PIL", "sqlalchemy"}


def test_the_version_is_the_packages(run: Run) -> None:
    result = run("--version")
    assert re.fullmatch(r"lookalike, version \d+\.\d+\.\d+\n", result.stdout)


@pytest.mark.parametrize(
    "args",
    [["nonsense"], ["search"], ["serve", "--port", "http"], ["ingest", "--nonsense", "x"]],
    ids=" ".join,
)
def test_a_wrong_command_line_ends_with_2_and_one_line(run: Run, args: list[str]) -> None:
    result = run(*args)
    assert result.exit_code == Exit.USAGE
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    (told,) = objects(run(*args, "--json"))
    assert told["error"]["code"] == "usage"
    assert told["error"]["remedy"].startswith("Try `lookalike")


def test_a_setting_that_does_not_exist_ends_with_2(run: Run) -> None:
    result = run("doctor", "--json", env={"LOOKALIKE_PROT": "1"})
    assert result.exit_code == Exit.USAGE
    assert objects(result)[0]["error"]["message"] == "LOOKALIKE_PROT is not a setting."


def test_the_console_script_is_the_group() -> None:
    assert 'lookalike = "ops.cli:main"' in Path(ROOT, "pyproject.toml").read_text()
