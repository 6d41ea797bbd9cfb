"""Settings: the environment first, then one TOML file."""

from __future__ import annotations

import getpass
import os
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, SecretStr
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

__all__ = ["ServiceSettings"]


class ServiceSettings(BaseSettings):
    """What every service can be told.

    A setting ``x`` of the service ``tables`` is the first of: the environment's ``STOA_TABLES_X``, the environment's
    ``STOA_X``, the key ``x`` in the section ``[tables]`` of the TOML file that ``STOA_CONFIG`` names, the key ``x`` at
    the top of that file, the default.
    """

    model_config = SettingsConfigDict(extra="ignore")

    service: ClassVar[str]
    """The service's name, set by each subclass."""

    data: Path = Field(
        default=Path("stoa-data"), description="Folder for what this machine keeps: databases and files."
    )
    database_url: SecretStr | None = Field(
        default=None, description="SQLAlchemy URL; default: a SQLite file in the data folder."
    )
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=0, description="Port to listen on; 0 takes a free one.")
    nats_url: str = Field(default="nats://127.0.0.1:4222", description="The NATS server or servers, comma separated.")
    nats_replicas: int = Field(default=1, ge=1, le=5, description="Replicas of the streams; 3 in production.")
    tables_url: str = Field(default="http://127.0.0.1:8501", description="Where the tables service answers.")
    scheduler_url: str = Field(default="http://127.0.0.1:8502", description="Where the scheduler answers.")
    executor_url: str = Field(default="http://127.0.0.1:8503", description="Where the executor answers.")
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "console"] = Field(
        default="auto", description="auto: coloured on a terminal, JSON elsewhere."
    )
    actor: str = Field(default_factory=getpass.getuser, description="On whose behalf unauthenticated requests act.")
    stop_timeout: float = Field(default=20.0, gt=0, description="Seconds that running requests and jobs get to end.")

    @property
    def resolved_database_url(self) -> str:
        """The database's URL, with its default filled in."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{self.data.absolute() / f'{self.service}.sqlite'}"

    @property
    def service_urls(self) -> dict[str, str]:
        """Where the services that own a log answer."""
        return {"tables": self.tables_url, "scheduler": self.scheduler_url, "executor": self.executor_url}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order the sources as the class's description says."""
        del env_settings, dotenv_settings, file_secret_settings
        return (
            init_settings,
            EnvSettingsSource(settings_cls, env_prefix=f"STOA_{cls.service.upper()}_"),
            EnvSettingsSource(settings_cls, env_prefix="STOA_"),
            *_toml_sources(settings_cls, cls.service),
        )


def _toml_sources(settings_cls: type[BaseSettings], service: str) -> list[PydanticBaseSettingsSource]:
    path = os.environ.get("STOA_CONFIG")
    if not path:
        return []
    if not Path(path).is_file():
        msg = f"STOA_CONFIG names {path}, which is not a file"
        raise FileNotFoundError(msg)
    content: dict[str, Any] = TomlConfigSettingsSource(settings_cls, toml_file=Path(path)).toml_data
    section = content.get(service, {})
    top = {key: value for key, value in content.items() if not isinstance(value, dict)}
    return [InitSettingsSource(settings_cls, section), InitSettingsSource(settings_cls, top)]
