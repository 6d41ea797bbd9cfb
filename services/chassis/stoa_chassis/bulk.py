"""Many rows at once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

import sqlalchemy as sa

__all__ = ["insert_many"]


def insert_many(connection: sa.Connection, statement: sa.Insert, values: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows that all have the same columns, with nothing between us and the driver: it takes half the time.

    Parameters
    ----------
    connection
        Of the transaction.
    statement
        Inserts into a table; its JSON columns are written here, values of all others have to be what the driver takes.
    values
        One mapping for each row, at least one.
    """
    names = list(values[0])
    compiled = statement.compile(dialect=connection.dialect, column_keys=names)
    write = {name: json.dumps for name in names if isinstance(statement.table.c[name].type, sa.JSON)}
    columns = [
        [value if value is None else write[name](value) for value in map(itemgetter(name), values)]
        if name in write
        else list(map(itemgetter(name), values))
        for name in names
    ]
    if connection.dialect.positional:
        order = [names.index(name) for name in compiled.positiontup or names]
        connection.exec_driver_sql(str(compiled), list(zip(*(columns[index] for index in order), strict=True)))
    else:
        connection.exec_driver_sql(
            str(compiled), [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
        )
