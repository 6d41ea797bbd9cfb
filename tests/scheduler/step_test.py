"""Rows are named in SQL in as few words as it takes."""

from __future__ import annotations

import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from stoa_scheduler.step import among

_METADATA = sa.MetaData()
_ROW = sa.Table("row", _METADATA, sa.Column("row", sa.Integer, primary_key=True))
_RUNS = st.lists(st.tuples(st.integers(1, 400), st.integers(1, 120)), max_size=6)


@given(_RUNS)
def test_exactly_the_rows_that_are_meant_are_named(runs: list[tuple[int, int]]) -> None:
    meant = [row for first, length in runs for row in range(first, first + length)]
    engine = sa.create_engine("sqlite://")
    with engine.begin() as connection:
        _METADATA.create_all(connection)
        connection.execute(sa.insert(_ROW), [{"row": row} for row in range(1, 601)])
        found: list[int] = []
        for some in among(_ROW.c.row, meant):
            found += connection.execute(sa.select(_ROW.c.row).where(some)).scalars()
    engine.dispose()
    assert sorted(found) == sorted(set(meant))


def test_rows_that_follow_each_other_take_one_statement() -> None:
    assert len(list(among(_ROW.c.row, range(1, 300_001)))) == 1
    assert len(list(among(_ROW.c.row, range(1, 1001, 2)))) == 1
