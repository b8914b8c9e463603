"""Where a warehouse is: the settings of the four kinds of target."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError, field_validator, model_validator

from towpath.destination import Settings
from towpath.redaction import is_credential

_WORD = re.compile(r"(\w+)=('(?:[^'\\]|\\.)*'|\S*)")
_WORDS = re.compile(rf"\s*(?:{_WORD.pattern}\s*)+").fullmatch
"""How libpq takes a database beside a URL: `host=… dbname=…`."""


class DuckDbTarget(Settings):
    """A DuckDB file. It is opened only while something is written to it."""

    kind: Literal["duckdb"] = "duckdb"
    path: str = Field(
        min_length=1, description="The file, relative to the configuration; made where it is not."
    )
    db_schema: str = Field(default="main", alias="schema", description="The schema of the tables.")

    @property
    def about(self) -> str:
        """Where it is, for people."""
        return f"DuckDB {self.path}"


class PostgresTarget(Settings):
    """A PostgreSQL database."""

    kind: Literal["postgres"] = "postgres"
    url: SecretStr = Field(description="`postgresql://user:password@host/database`.")
    db_schema: str = Field(
        default="customerio", alias="schema", description="The schema; made where it is not."
    )

    @field_validator("url")
    @classmethod
    def _is_url(cls, value: SecretStr) -> SecretStr:
        text = value.get_secret_value()
        try:
            right = urlsplit(text).scheme in ("postgres", "postgresql") or bool(_WORDS(text))
        except ValueError:
            right = False
        if not right:
            raise ValueError("is not a PostgreSQL URL; write postgresql://user:password@host/database")
        return value

    @property
    def about(self) -> str:
        """Where it is, for people, without its password."""
        text = self.url.get_secret_value()
        if _WORDS(text):
            said = dict(_WORD.findall(text))
            host, database = f"{said.get('host', 'local')}:{said.get('port', '5432')}", said.get("dbname", "")
        else:
            place = urlsplit(text)
            host, database = place.netloc.rpartition("@")[2] or "local", place.path.lstrip("/")
        return f"PostgreSQL {host}/{database}, schema {self.db_schema}"


class ParquetTarget(Settings):
    """Parquet files below a directory, one directory per table, with a manifest that names those in force."""

    kind: Literal["parquet"] = "parquet"
    path: str = Field(min_length=1, description="The directory, relative to the configuration.")

    @property
    def about(self) -> str:
        """Where it is, for people."""
        return f"Parquet files in {self.path}"


def _hidden(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields whose names say that they hold a secret, as secrets; hosts and users are shown."""
    return {
        name: _hidden(one) if isinstance(one, dict)
        else SecretStr(one) if isinstance(one, str) and is_credential(name)
        else one
        for name, one in fields.items()
    }  # fmt: skip


Credentials: TypeAlias = Annotated[dict[str, Any], AfterValidator(_hidden)]


class DltTarget(Settings):
    """Any destination of dlt: BigQuery, Snowflake, Redshift, Databricks, ClickHouse, and others."""

    kind: Literal["dlt"] = "dlt"
    destination: str = Field(description="The name dlt knows it by, like `bigquery` or `filesystem`.")
    dataset: str = Field(default="customerio", description="The dataset or schema of the tables.")
    credentials: Credentials | SecretStr | None = Field(
        default=None, description="What dlt needs to open it: a URL, or its fields."
    )
    options: dict[str, Any] = Field(
        default={}, description="More arguments of dlt's destination, like `bucket_url`."
    )

    @property
    def about(self) -> str:
        """Where it is, for people."""
        return f"{self.destination} through dlt, dataset {self.dataset}"


Target: TypeAlias = Annotated[
    DuckDbTarget | PostgresTarget | ParquetTarget | DltTarget, Field(discriminator="kind")
]


class WarehouseAccount(Settings):
    """An entry of `accounts` of the type `warehouse`: exactly one kind of target."""

    duckdb: str | DuckDbTarget | None = Field(default=None, description="A DuckDB file, or its settings.")
    postgres: SecretStr | PostgresTarget | None = Field(
        default=None, description="A PostgreSQL URL, or its settings."
    )
    parquet: str | ParquetTarget | None = Field(default=None, description="A directory of Parquet files.")
    dlt: DltTarget | None = Field(default=None, description="A destination of dlt.")
    hash_key: SecretStr | None = Field(
        default=None,
        min_length=16,
        description="The secret of hashed columns, 16 characters or more; needed where a table hashes one.",
    )

    @model_validator(mode="after")
    def _one(self) -> WarehouseAccount:
        given = [one for one in (self.duckdb, self.postgres, self.parquet, self.dlt) if one is not None]
        if len(given) != 1:
            raise ValueError("needs exactly one of duckdb, postgres, parquet, dlt")
        try:
            _ = self.target  # a text stands for settings that have to be right as well
        except ValidationError as error:
            (first, *_) = error.errors(include_url=False, include_input=False)
            raise ValueError(first["msg"].removeprefix("Value error, ")) from None
        return self

    @property
    def target(self) -> DuckDbTarget | PostgresTarget | ParquetTarget | DltTarget:
        """The one that is given, in full."""
        if isinstance(self.duckdb, str):
            return DuckDbTarget(path=self.duckdb)
        if isinstance(self.postgres, SecretStr):
            return PostgresTarget(url=self.postgres)
        if isinstance(self.parquet, str):
            return ParquetTarget(path=self.parquet)
        found = self.duckdb or self.postgres or self.parquet or self.dlt
        assert found is not None  # noqa: S101 - the validator above saw to it
        return found

    def placed(self, directory: Path) -> WarehouseAccount:
        """The same with a relative path made absolute, from a directory; `~` is the home."""
        target = self.target
        if not isinstance(target, DuckDbTarget | ParquetTarget):
            return self
        path = directory.absolute() / Path(target.path).expanduser()
        return self.model_copy(update={target.kind: target.model_copy(update={"path": str(path)})})


def in_the_clear(value: Any) -> Any:
    """A setting with what it hides shown, as whoever opens the target needs it."""
    match value:
        case SecretStr():
            return value.get_secret_value()
        case dict():
            return {name: in_the_clear(one) for name, one in value.items()}
        case list():
            return [in_the_clear(one) for one in value]
        case _:
            return value
