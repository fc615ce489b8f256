"""Snapshots: one Parquet file per stage and run, from which any batch can be explained and planned again.

Here: where the files are, and frames to files and back without a loss. Not here: what is in the frames
(``domain.frames``).

``<RECON_SNAPSHOT_URL>/<date>/<run id>/<stage>.parquet``, a local directory or any fsspec URL. Column types:

========== ====================================================== ==================================================
frames     Parquet                                                note
========== ====================================================== ==================================================
quantity   decimal(38, 0), unit 1e-9; decimal(76, 0) where needed exact also beyond int64
price      string                                                 the exact decimal
money      string                                                 the exact decimal
instant    timestamp(ms, UTC)                                     null where the time is not known
list       string (JSON)
========== ====================================================== ==================================================
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recon_pipeline.domain.frames import NO_TIME, Column, Schema
from recon_pipeline.domain.quantities import decimal_text, integer_array


class SnapshotError(RuntimeError):
    """A snapshot can't be written or read; the text names the place and what to do."""


@dataclass(frozen=True)
class RunSnapshots:
    """The snapshots of one run."""

    base_url: str
    run_id: str
    day: str

    @classmethod
    def of_run(cls, base_url: str, run_id: str, started: datetime) -> "RunSnapshots":
        """Return the snapshots of a run that started at that time."""
        return cls(base_url.rstrip("/"), run_id, started.date().isoformat())

    @property
    def url(self) -> str:
        """Return where the run's files are."""
        return f"{self.base_url}/{self.day}/{self.run_id}"

    def path(self, stage: str) -> str:
        """Return the place of one stage's file."""
        return f"{self.url}/{stage}.parquet"

    def write(self, stage: str, schema: Schema, frame: pd.DataFrame) -> str:
        """Write a stage's frame and return its place.

        :raises SnapshotError: it can't be written
        """
        import pyarrow.parquet as pq

        try:
            table = to_table(schema, frame)
            filesystem, place = self._open(stage)
            with filesystem.open(f"{place}.part" if _is_local(filesystem) else place, "wb") as file:
                pq.write_table(table, file, compression="zstd")
            if _is_local(filesystem):
                Path(f"{place}.part").replace(place)
        except (OSError, ValueError, ImportError) as error:
            raise SnapshotError(
                f"snapshot {self.path(stage)} can't be written: {error}. Mend RECON_SNAPSHOT_URL; without its snapshot no"
                " plan is recorded or applied."
            ) from error
        return self.path(stage)

    def read(self, stage: str, schema: Schema) -> pd.DataFrame:
        """Read a stage's frame as it was written.

        :raises SnapshotError: it is not there or can't be read
        """
        import pyarrow.parquet as pq

        try:
            filesystem, place = self._open(stage)
            with filesystem.open(place, "rb") as file:
                table = pq.read_table(file)
        except (OSError, ValueError, ImportError) as error:
            raise SnapshotError(f"snapshot {self.path(stage)} can't be read: {error}") from error
        return from_table(schema, table)

    def _open(self, stage: str) -> tuple[Any, str]:
        import fsspec

        filesystem, place = fsspec.core.url_to_fs(self.path(stage))
        if _is_local(filesystem):
            Path(place).parent.mkdir(parents=True, exist_ok=True)
        return filesystem, place


def _is_local(filesystem: Any) -> bool:
    protocol = filesystem.protocol
    return "file" in ((protocol,) if isinstance(protocol, str) else protocol)


def to_table(schema: Schema, frame: pd.DataFrame) -> Any:
    """Return the frame as an Arrow table, its columns described and nothing rounded."""
    import pyarrow as pa

    arrays, fields = [], []
    for column in schema.columns:
        array = _array(column, frame[column.name].tolist())
        notes = {"description": column.description, **({"unit": column.unit} if column.unit else {})}
        arrays.append(array)
        fields.append(pa.field(column.name, array.type, metadata=notes))
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata={"schema": schema.name}))


def _array(column: Column, values: list[Any]) -> Any:
    import pyarrow as pa

    if column.type == "quantity":
        # A Decimal made from an int is exact, whatever the context.
        exact = [Decimal(int(value)) for value in values]
        wide = any(value.adjusted() >= 38 for value in exact)
        return pa.array(exact, type=pa.decimal256(76, 0) if wide else pa.decimal128(38, 0))
    if column.type in {"price", "money"}:
        return pa.array([None if value is None else decimal_text(value) for value in values], type=pa.string())
    if column.type == "instant":
        known = [None if value == NO_TIME else int(value) for value in values]
        return pa.array(known, type=pa.int64()).cast(pa.timestamp("ms", tz="UTC"))
    if column.type == "bool":
        return pa.array([bool(value) for value in values], type=pa.bool_())
    if column.type == "count":
        return pa.array([int(value) for value in values], type=pa.int64())
    if column.type == "list":
        return pa.array(
            [None if value is None else json.dumps(value, default=str) for value in values], type=pa.string()
        )
    return pa.array([str(value) for value in values], type=pa.string())


def from_table(schema: Schema, table: Any) -> pd.DataFrame:
    """Return the frame that :func:`to_table` was given."""
    import pyarrow as pa

    columns: dict[str, Any] = {}
    for column in schema.columns:
        stored = table.column(column.name)
        if column.type == "instant":
            stored = stored.cast(pa.int64())
        values = stored.to_pylist()
        if column.type == "quantity":
            columns[column.name] = integer_array([int(value) for value in values])
        elif column.type in {"price", "money"}:
            columns[column.name] = _objects(None if value is None else Decimal(value) for value in values)
        elif column.type == "instant":
            columns[column.name] = pd.Series([NO_TIME if value is None else value for value in values], dtype="int64")
        elif column.type == "list":
            columns[column.name] = _objects(None if value is None else _plain(json.loads(value)) for value in values)
        elif column.type in {"bool", "count"}:
            columns[column.name] = pd.Series(values, dtype="bool" if column.type == "bool" else "int64")
        else:
            columns[column.name] = _objects(values)
    return pd.DataFrame(columns, columns=schema.names)


def _objects(values: Iterable[Any]) -> "pd.Series[Any]":
    listed = list(values)
    array = np.empty(len(listed), dtype=object)
    for index, value in enumerate(listed):
        array[index] = value
    return pd.Series(array, dtype=object)


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
