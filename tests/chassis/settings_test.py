"""Where a setting comes from, in which order, and what is said when it cannot be used."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import ClassVar

import pytest
import structlog
from pydantic import ValidationError

from stoa_chassis.logging import configure_logging
from stoa_chassis.settings import ServiceSettings


class TablesSettings(ServiceSettings):
    """As a service has them."""

    service: ClassVar[str] = "tables"


@pytest.fixture(autouse=True)
def _no_settings_around(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("STOA_")]:
        monkeypatch.delenv(name)


def test_the_nearest_word_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "stoa.toml"
    file.write_text(
        'port = 1\nhost = "0.0.0.0"\nlog_level = "error"\ndata = "/srv"\n[tables]\nport = 2\nlog_level = "debug"\n[scheduler]\nport = 9\n'
    )
    assert TablesSettings().port == 0
    monkeypatch.setenv("STOA_CONFIG", str(file))
    assert (TablesSettings().port, TablesSettings().host, TablesSettings().log_level) == (2, "0.0.0.0", "debug")
    monkeypatch.setenv("STOA_PORT", "3")
    assert TablesSettings().port == 3
    monkeypatch.setenv("STOA_SCHEDULER_PORT", "5")
    monkeypatch.setenv("STOA_TABLES_PORT", "4")
    assert TablesSettings().port == 4
    assert TablesSettings(port=6).port == 6


def test_a_service_has_its_own_database(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STOA_DATA", str(tmp_path))
    assert TablesSettings().resolved_database_url == f"sqlite:///{tmp_path}/tables.sqlite"
    monkeypatch.setenv("STOA_TABLES_DATABASE_URL", "postgresql+psycopg://ada:secret@db/stoa")
    settings = TablesSettings()
    assert settings.resolved_database_url == "postgresql+psycopg://ada:secret@db/stoa"
    assert "secret" not in repr(settings)


def test_a_setting_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOA_PORT", "many")
    with pytest.raises(ValidationError, match="port"):
        TablesSettings()
    monkeypatch.delenv("STOA_PORT")
    monkeypatch.setenv("STOA_CONFIG", "/nowhere/stoa.toml")
    with pytest.raises(FileNotFoundError, match=r"STOA_CONFIG names /nowhere/stoa\.toml"):
        TablesSettings()


def test_a_log_line_says_who_and_what_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        configure_logging(TablesSettings(log_format="json"))
        with structlog.contextvars.bound_contextvars(correlationid="night-1", actor="ada"):
            structlog.get_logger("stoa").info("rows added", rows=3)
            logging.getLogger("another.library").warning("careful %s", "now")
            try:
                int("broken")
            except ValueError:
                structlog.get_logger("stoa").exception("it failed")
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()
    ours, theirs, failure = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    expected = {"service": "tables", "correlationid": "night-1", "actor": "ada"}
    for line in (ours, theirs, failure):
        assert expected.items() <= line.items()
    assert (ours["event"], ours["rows"], ours["level"]) == ("rows added", 3, "info")
    assert (theirs["event"], theirs["logger"]) == ("careful now", "another.library")
    assert failure["exception"][0]["exc_type"] == "ValueError"
