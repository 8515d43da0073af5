"""One table: the dataclass, the environment, the docs."""

from __future__ import annotations

import inspect
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from workers.errors import SettingsError
from workers.settings import PREFIX, SETTINGS, Setting, Settings

DOCS = Path(__file__).parents[2] / "docs" / "settings.md"
BAD_VALUES = {
    "LOOKALIKE_SHARDS": ["0", "-1", "many", "1.5", ""],
    "LOOKALIKE_PORT": ["-1", "65536", "http"],
    "LOOKALIKE_CRAWL_MAX_DEPTH": ["-1"],
    "LOOKALIKE_FETCH_TIMEOUT_S": ["0", "-1", "inf", "nan", "soon"],
    "LOOKALIKE_RESULT_HOURS": ["-1", "inf", "nan"],
    "LOOKALIKE_SWEEP_INTERVAL_S": ["0"],
    "LOOKALIKE_LEASE_S": ["0"],
    "LOOKALIKE_ALLOW_PRIVATE_ADDRESSES": ["maybe", ""],
    "LOOKALIKE_BROKER_URL": ["", "foo", "redis://x", "http://x", "amqp:/x"],
    "LOOKALIKE_DATA_DIR": [""],
    "LOOKALIKE_USER_AGENT": ["", " /1", "two\nlines", "Schnüffler"],
}


def row(setting: Setting) -> str:
    """Return a setting's line in docs/settings.md."""
    default = setting.default
    shown = default if default.startswith(("`", "number")) else f"`{default}`"
    return f"| `{setting.env}` | {shown if default else ''} | {setting.help} |"


def test_every_field_is_a_setting_with_help_in_full_sentences() -> None:
    assert [setting.name for setting in SETTINGS] == [field.name for field in fields(Settings)]
    for setting in SETTINGS:
        assert setting.env == PREFIX + setting.name.upper()
        assert setting.help.endswith(".")
        assert "|" not in setting.help


def test_the_docs_hold_the_table_of_the_code() -> None:
    expected = [row(setting) for setting in SETTINGS]
    found = [line for line in DOCS.read_text().splitlines() if line.startswith("| `")]
    assert found == expected


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_a_default_that_is_written_down_means_itself(setting: Setting) -> None:
    default = getattr(Settings(), setting.name)
    if setting.default and not setting.default.startswith(("`", "number")):
        assert setting.read(setting.default) == default


def test_nothing_in_the_environment_gives_the_defaults() -> None:
    assert Settings.load({}) == Settings()
    assert Settings.load({"PATH": "/bin", "lookalike_port": "1"}) == Settings()


def test_the_environment_is_read_and_arguments_win() -> None:
    environ = {
        "LOOKALIKE_PORT": "0",
        "LOOKALIKE_DATA_DIR": "/data",
        "LOOKALIKE_FOLDER_ROOTS": "/photos:/more photos:",
        "LOOKALIKE_ALLOWED_HOSTS": "a.example, b.example,",
        "LOOKALIKE_ALLOW_PRIVATE_ADDRESSES": "Yes",
        "LOOKALIKE_CRAWL_DELAY_S": "0",
        "LOOKALIKE_RESULT_HOURS": "0.5",
    }
    settings = Settings.load(environ, port=99, data_dir=None)
    assert settings.port == 99
    assert settings.data_dir == Path("/data")
    assert settings.folder_roots == (Path("/photos"), Path("/more photos"))
    assert settings.allowed_hosts == ("a.example", "b.example")
    assert settings.allow_private_addresses
    assert (settings.crawl_delay_s, settings.result_hours) == (0.0, 0.5)


def test_paths_are_made_absolute_and_the_home_is_filled_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    settings = Settings.load({"LOOKALIKE_DATA_DIR": "data", "LOOKALIKE_CACHE_DIR": "~/cache"})
    assert settings.data_dir == tmp_path / "data"
    assert settings.cache_dir == Path("/home/someone/cache")


def test_the_ledger_is_in_the_data_folder_unless_it_has_a_url() -> None:
    assert Settings(data_dir=Path("/data")).database_url == "sqlite:////data/ledger.sqlite"
    assert Settings(ledger_url="postgresql://host/name").database_url == "postgresql://host/name"


def test_only_the_broker_in_memory_is_embedded() -> None:
    assert Settings().embedded
    assert not Settings(broker_url="amqp://guest:guest@localhost//").embedded


def test_an_unknown_variable_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match=r"LOOKALIKE_COLOUR is not a setting.*settings\.md"):
        Settings.load({"LOOKALIKE_COLOUR": "blue"})


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in BAD_VALUES.items() for value in values]
)
def test_a_bad_value_is_refused_with_the_name_and_the_default(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.load({name: value})
    assert caught.value.code == "bad_setting"
    assert f"{name}={value!r}" in caught.value.message
    assert "Default: " in caught.value.remedy


def test_settings_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings().port = 1  # type: ignore[misc]


def test_nothing_else_reads_the_environment() -> None:
    """The settings are the only way in, so that the table is the whole truth."""
    root = Path(inspect.getfile(Settings)).parents[1]
    readers = [
        path.relative_to(root).as_posix()
        for room in ("store", "workers", "webui")
        for path in (root / room).rglob("*.py")
        if "os.environ" in path.read_text() or "getenv" in path.read_text()
    ]
    assert readers == ["workers/settings.py"]
