"""Parquet files, written by pyarrow (an optional extra)."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from dispatcher.domain.errors import UsageError
from dispatcher.domain.report import EXPORT_COLUMNS

_GROUP = 16 << 20
"""Bytes of lines that make a row group."""
_TYPES = {"line": "int64", "dials": "int16"}


@contextmanager
def parquet_writer(file: IO[bytes], variables: list[str]) -> Iterator[Callable[[bytes], None]]:
    """Writes JSON lines as row groups, with a column for each variable. Raises UsageError."""
    try:
        import pyarrow
        from pyarrow import json, parquet
    except ImportError:
        raise UsageError("Parquet needs pyarrow; install it with: pip install 'campaign-dispatcher[parquet]'") from None
    instant = pyarrow.timestamp("us", tz="UTC")
    types = {name: _TYPES.get(name, instant if name.endswith("_at") else "string") for name in EXPORT_COLUMNS}
    columns = [pyarrow.field(name, pyarrow.type_for_alias(t) if isinstance(t, str) else t) for name, t in types.items()]
    own = [pyarrow.field(name, pyarrow.string()) for name in variables]
    schema = pyarrow.schema([*columns, *own])
    read = json.ParseOptions(
        explicit_schema=pyarrow.schema([*columns, pyarrow.field("variables", pyarrow.struct(own))]),
        unexpected_field_behavior="ignore",
    )

    def table(lines: bytes) -> Any:
        found = json.read_json(io.BytesIO(lines), parse_options=read, read_options=json.ReadOptions(use_threads=False))
        cells = [found.column("variables").combine_chunks().field(i) for i in range(len(own))]
        return pyarrow.table([*(found.column(f.name) for f in columns), *cells], schema=schema)

    with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        waiting = bytearray()

        def write(lines: bytes) -> None:
            waiting.extend(lines)
            if len(waiting) >= _GROUP:
                writer.write_table(table(bytes(waiting)))
                waiting.clear()

        yield write
        if waiting:
            writer.write_table(table(bytes(waiting)))
