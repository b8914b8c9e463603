"""A destination of dlt as a database: rows go in by load packages, everything else by plain SQL."""

# ruff: noqa: S608 - names are quoted and values are passed beside
from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from towpath.errors import TowpathError

from .faults import Hindered
from .settings import DltTarget, in_the_clear
from .table import Kind

os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"  # read when dlt is imported
os.environ.setdefault("RUNTIME__LOG_LEVEL", "CRITICAL")

import dlt
from dlt.common.exceptions import DltException
from dlt.destinations.exceptions import DatabaseTransientException, DatabaseUndefinedRelation
from dlt.destinations.job_client_impl import SqlJobClientBase

PIPELINE = "towpath"
DIRECTORY = "towpath-dlt"
CHUNK = 500
"""Values of one statement; some databases take no more than 1,000."""
UNKNOWN = "E5655"
UNFIT = "E5656"
FAILED = "E5657"
TYPES: Mapping[Kind, str] = {
    "text": "text",
    "integer": "bigint",
    "number": "double",
    "boolean": "bool",
    "time": "timestamp",
    "date": "date",
    "json": "json",
}


class DltDatabase:
    """An open destination. Names are given as they are and spelt as dlt spells them.

    What dlt keeps on the way (packages, its copy of the schema) lies in a directory of this process and goes
    with it: what is in the destination is all that counts. Raises `TowpathError`.
    """

    def __init__(self, target: DltTarget) -> None:
        self._about = target.about
        self._directory = _fresh_directory()
        self._client: Any = None
        os.environ["DLT_DATA_DIR"] = str(self._directory / "data")
        os.environ["DLT_PROJECT_DIR"] = str(self._directory / "project")
        try:
            self._open(target)
        except BaseException:
            self.close()
            raise

    def _open(self, target: DltTarget) -> None:
        with self._told():
            self._pipeline = dlt.pipeline(
                PIPELINE,
                pipelines_dir=str(self._directory / "pipelines"),
                destination=_destination(target),
                dataset_name=target.dataset,
            )
            self._strategy = _strategy(self._pipeline.destination, target)
            self._naming = dlt.Schema(PIPELINE).naming

    def close(self) -> None:
        """Leave nothing behind."""
        self._hang_up()
        shutil.rmtree(self._directory, ignore_errors=True)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Say what went wrong there, without a traceback."""
        try:
            yield
        except TowpathError:
            raise
        except (DltException, DatabaseTransientException, OSError, ValueError) as error:
            raise _failed(self._about, error) from error

    # Writing

    def write(self, tables: Sequence[Rows]) -> None:
        """Merge rows into tables, all in one load package. Tables and columns that are missing are made."""
        self._hang_up()  # a package comes with connections of its own
        with self._told():
            try:
                self._pipeline.run([self._resource(rows) for rows in tables], loader_file_format="parquet")
            finally:  # the rows, and a trace that says where they went
                place = Path(self._pipeline.working_dir)
                shutil.rmtree(place / "load" / "loaded", ignore_errors=True)
                (place / "trace.pickle").unlink(missing_ok=True)

    def _resource(self, given: Rows) -> Any:
        names = {name: self.column(name) for name in given.rows.column_names}
        hints: Any = {
            self.column(name): {"data_type": TYPES[kind], "nullable": name not in given.key}
            for name, kind in given.kinds.items()
        }
        disposition: Any = {"disposition": "merge", "strategy": self._strategy}
        return dlt.resource(
            given.rows.rename_columns(list(names.values())),
            name=self.table(given.table),
            write_disposition=disposition,
            primary_key=[names[name] for name in given.key],
            columns=hints,
        )

    # Reading, and changing what is there

    def table(self, name: str) -> str:
        """A table's name as dlt spells it."""
        spelt: str = self._naming.normalize_table_identifier(name)
        return spelt

    def column(self, name: str) -> str:
        """A column's name as dlt spells it."""
        spelt: str = self._naming.normalize_identifier(name)
        return spelt

    def run(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement, `%s` for each value; its rows."""
        with self._told():
            found = self._called().execute_sql(sql, *values)
        return [tuple(row) for row in found or ()]

    def names(self, table: str, columns: Sequence[str]) -> tuple[str, Sequence[str]]:
        """A table and columns of it as they stand in statements."""
        with self._told():
            client = self._called()
            quoted = [client.escape_column_name(self.column(name)) for name in columns]
            return client.make_qualified_table_name(self.table(table)), quoted

    def exists(self, table: str) -> bool:
        """Whether there is such a table."""
        place, _ = self.names(table, ())
        try:
            self._called().execute_sql(f"SELECT 1 FROM {place} WHERE 1 = 0")
        except DatabaseUndefinedRelation:
            return False
        return True

    def _called(self) -> Any:
        """The connection for statements; a new one takes as long as many statements."""
        if self._client is None:
            self._client = self._pipeline.sql_client()
            self._client.open_connection()
        return self._client

    def _hang_up(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close_connection()


class Rows:
    """Rows for one table: its columns with their kinds, and which of them are the key."""

    def __init__(self, table: str, rows: pa.Table, kinds: Mapping[str, Kind], key: Sequence[str]) -> None:
        self.table = table
        self.rows = rows
        self.kinds = kinds
        self.key = key


def chunks(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """The values in parts that a statement takes."""
    for start in range(0, len(values), CHUNK):
        yield values[start : start + CHUNK]


def marks(values: Sequence[Any]) -> str:
    """The places of values in a statement."""
    return ", ".join(["%s"] * len(values))


def _destination(target: DltTarget) -> Any:
    factory = getattr(dlt.destinations, target.destination, None)
    if factory is None or not isinstance(factory, type):
        raise TowpathError(
            f"dlt knows no destination {target.destination}",
            code=UNKNOWN,
            why="it is the name of one of dlt's destinations, like bigquery, snowflake or redshift",
            fix="correct `destination` of the account",
            data="nothing was written",
        )
    secret = in_the_clear(target.credentials)
    return factory(**target.options, **({} if secret is None else {"credentials": secret}))


def _strategy(destination: Any, target: DltTarget) -> str:
    """How rows are merged there. Files merge only in table formats that nobody asked for."""
    strategies = destination.capabilities().supported_merge_strategies or ()
    if not strategies or not issubclass(destination.client_class, SqlJobClientBase):
        raise _unfit(target)
    return "upsert" if "upsert" in strategies else "delete-insert"


def _fresh_directory() -> Path:
    """A directory of this process; those of processes that were killed are removed, as they hold rows."""
    place = Path(tempfile.gettempdir())
    for left in place.glob(f"{DIRECTORY}-*"):
        if not _runs(left.name.split("-")[2]):
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{DIRECTORY}-{os.getpid()}-", dir=place))


def _runs(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        pass
    return True


def _unfit(target: DltTarget) -> TowpathError:
    return TowpathError(
        f"the destination {target.destination} of dlt cannot merge rows",
        code=UNFIT,
        why="a row that comes again must replace the one before, and dlt only appends there",
        fix="use a database; for files, the target `parquet`, and for a directory of DuckDB `duckdb`",
        data="nothing was written",
    )


def _failed(about: str, error: Exception) -> Hindered:
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return Hindered(
        f"{about} did not take it: {said}",
        code=FAILED,
        why="the destination is out of reach, full, or refuses the credentials or a right",
        fix="check the account's credentials and options, and that the destination answers",
        data="what was not confirmed is sent again; rows are merged by their key",
    )
