"""Everything that an installation may set, read once from variables named DISPATCHER_*.

An unknown variable is refused: a misspelt limit that silently does nothing is worse than no start.
"""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "DISPATCHER_"
SHORTEST_SECRET_KEY, SHORTEST_API_KEY = 32, 16


def _at_least(characters: int) -> AfterValidator:
    """A secret of that length; what it is stands in no message."""

    def check(secret: SecretStr) -> SecretStr:
        if (n := len(secret)) < characters:
            said = "must have at least {least} characters, not {n}; make one with: openssl rand -hex 32"
            raise PydanticCustomError("short_secret", said, {"least": characters, "n": n})
        return secret

    return AfterValidator(check)


class WebSettings(BaseModel):
    """The process that receives postbacks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    port: int = Field(default=8440, ge=1, le=65535)
    public_url: str | None = None
    """How providers reach us; default http://host:port."""

    @property
    def local_url(self) -> str:
        """Where this machine reaches it."""
        local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://[{local}]:{self.port}" if ":" in local else f"http://{local}:{self.port}"

    most_load_bytes: int = Field(default=4 << 30, ge=1)
    """Longest file that one request may load."""
    most_connections: int = Field(default=3000, ge=1)
    """Open at once; fewer when the limit of open files is lower."""


class FlowerSettings(BaseModel):
    """Where people look on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    port: int = Field(default=5555, ge=1, le=65535)
    password: SecretStr | None = None
    """Of the user `operator`; without it one is made in the data folder."""


class DialSettings(BaseModel):
    """How a shift dials. The defaults keep each other's order: permit age < deadline < lease."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    workers: int = Field(default=2, ge=1, le=64)
    """Processes that `dispatcher up` starts to dial. One account uses as many of them as it has shifts."""
    shift_s: float = Field(default=20, gt=0, le=30)
    connections: int = Field(default=128, ge=1, le=1000)
    """Calls that one shift may have on the wire at once."""
    deadline_s: float = Field(default=12, gt=0, le=12)
    """Longest time for one POST, all of it."""
    permit_age_s: float = Field(default=3, gt=0, le=5)
    """A permit older than this is not used."""
    lease_s: float = Field(default=30, ge=20, le=300)
    retry_share: float = Field(default=0.5, ge=0, le=1)
    """Share of a claim that is kept for people who are to be dialled again."""

    @model_validator(mode="after")
    def _rows_outlive_the_shift(self) -> "DialSettings":
        if self.lease_s < self.shift_s + 5:
            raise ValueError("dial.lease_s must be at least 5 s more than dial.shift_s")
        return self


class RetentionSettings(BaseModel):
    """How long what is no longer needed is kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    postback_days: int | None = Field(default=90, ge=1)
    """Days after which the body of a postback is emptied; that it came stays known. None: never."""


class Settings(BaseSettings):
    """All settings; frozen."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        env_ignore_empty=True,
        hide_input_in_errors=True,  # a refused secret would stand in the log
    )

    database_url: SecretStr | None = None
    """postgresql://…; without it PostgreSQL is started from the extra [embedded]."""
    redis_url: SecretStr | None = None
    """redis://…, rediss://… or unix://…; without it Valkey is started from the extra [embedded]."""
    broker_url: SecretStr | None = None
    """amqp://… or amqps://… (RabbitMQ), or another Redis; without it Celery's messages go through `redis_url`."""
    data: Path | None = None
    """Folder for embedded servers, logs and secrets; default $XDG_DATA_HOME/dispatcher."""
    secret_key: Annotated[SecretStr, _at_least(SHORTEST_SECRET_KEY)] | None = None
    """Signs the addresses that providers post to; without it one is made in the data folder."""
    api_key: Annotated[SecretStr, _at_least(SHORTEST_API_KEY)] | None = None
    """What services send as `Authorization: Bearer …`; without it one is made in the data folder."""
    spool: Path | None = None
    """The only folder that loads asked for by Celery may read; default: `spool` in the data folder."""
    alive: Path | None = None
    """Folder where each worker and beat leave a sign of life; default: `alive` in the data folder."""
    web: WebSettings = WebSettings()
    flower: FlowerSettings = FlowerSettings()
    dial: DialSettings = DialSettings()
    retention: RetentionSettings = RetentionSettings()
    simulator_port: int = Field(default=8460, ge=1, le=65535)
    """Of the provider that `dispatcher up --simulator` plays."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @property
    def data_folder(self) -> Path:
        """Where we keep things."""
        if self.data:
            return self.data.expanduser().absolute()
        home = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
        return Path(home).expanduser().absolute() / "dispatcher"

    @property
    def spool_folder(self) -> Path:
        """Where files wait to be loaded."""
        return self.spool.expanduser().absolute() if self.spool else self.data_folder / "spool"

    @property
    def alive_folder(self) -> Path:
        """Where processes leave their signs of life."""
        return self.alive.expanduser().absolute() if self.alive else self.data_folder / "alive"


_ALSO = frozenset({"PG_BINDIR", "REDIS_SERVER"})
"""Read by the embedded launcher: where to find server binaries."""
_FREE = "CREDENTIALS_"
"""DISPATCHER_CREDENTIALS_… are for accounts: env:DISPATCHER_CREDENTIALS_MAIN."""


def load() -> Settings:
    """The settings of this process. Raises ValueError that names what is wrong."""
    known = {name.upper() for name in Settings.model_fields} | _ALSO
    for variable in os.environ:
        name = variable.removeprefix(PREFIX)
        if variable != name and not name.startswith(_FREE) and name.split("__")[0] not in known:
            raise ValueError(f"{variable} is no setting; known are {', '.join(PREFIX + k for k in sorted(known))}")
    return Settings()
