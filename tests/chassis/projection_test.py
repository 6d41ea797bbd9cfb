"""A rebuilt read model is equal row by row, and the old one serves until it is replaced."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import sqlalchemy as sa
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from stoa_chassis.database import Database
from stoa_chassis.log import Log
from stoa_chassis.projection import EventStore, compare, rebuild
from stoa_contracts.envelope import Envelope
from stoa_contracts.events.tables import RowsRemoved
from tests.chassis.observatory import ORIGIN, Observatory, create, dump, opened, pointed, read_model, telescope

NAMES = st.sampled_from(["a", "b", "c"])


class Elsewhere:
    """Another service: it tells of removed rows."""

    def __init__(self, url: str) -> None:
        self.database, _ = create(url)
        self.log = Log("tables")

    def tell(self, stream: str, rows: int) -> Envelope:
        with self.database.writing() as connection:
            event = RowsRemoved(table=stream, rows=list(range(1, rows + 1)))
            return self.log.append(connection, stream, [event], ORIGIN)[0]

    def fetch(self, source: str, after: int, until: int) -> Sequence[Envelope]:
        assert source == "tables"
        with self.database.reading() as connection:
            return self.log.read(connection, after=after, until=until)


def observe(database: Database, store: EventStore, envelopes: Sequence[Envelope]) -> None:
    with database.writing() as connection:
        store.log.record_consumption(
            connection, "observatory", "tables", envelopes[0].log_position, envelopes[-1].log_position
        )
        for envelope in envelopes:
            store.observe(connection, envelope)


def test_a_damaged_read_model_is_healed_while_it_serves(database_url: str, tmp_path: Path) -> None:
    elsewhere = Elsewhere(f"sqlite:///{tmp_path}/elsewhere.sqlite")
    with opened(database_url) as (database, store):
        for number in range(50):
            with database.writing() as connection:
                modes = [pointed(f"t{number}", ["manual", "automatic"][change % 2]) for change in range(number)]
                store.record(connection, f"t{number}", [*modes, pointed(f"t{number}")], ORIGIN)
            if number % 10 == 0:
                observe(database, store, [elsewhere.tell(f"t{number}", 2), elsewhere.tell("t1", 1)])
        with database.reading() as connection:
            expected = dump(connection)
        with database.writing() as connection:
            connection.execute(sa.update(telescope).values(mode="damaged"))
            connection.execute(sa.delete(read_model.tables["seen"]))
        during = []

        def look(_events: int) -> None:
            with database.reading() as connection:
                during.append(connection.execute(sa.select(telescope.c.mode).distinct()).scalars().all())

        done = rebuild(database, store.log, Observatory(), elsewhere.fetch, on_progress=look)
        assert during
        assert all(modes == ["damaged"] for modes in during)
        assert done.events == 1285
        assert done.rows == {"telescope": 50, "seen": 6}
        with database.reading() as connection:
            assert dump(connection) == expected
            assert not [name for name in sa.inspect(connection).get_table_names() if name.startswith("shadow")]


def test_what_is_written_during_a_rebuild_is_not_lost(database_url: str, tmp_path: Path) -> None:
    elsewhere = Elsewhere(f"sqlite:///{tmp_path}/elsewhere.sqlite")
    with opened(database_url) as (database, store):
        with database.writing() as connection:
            store.record(connection, "a", [pointed("a")] * 10, ORIGIN)
        written: list[int] = []

        def write(_events: int) -> None:
            if len(written) < 3:
                written.append(1)
                observe(database, store, [elsewhere.tell("a", 1)])
                with database.writing() as connection:
                    store.record(connection, "b", [pointed("b")], ORIGIN)

        rebuild(database, store.log, Observatory(), elsewhere.fetch, on_progress=write)
        with database.reading() as connection:
            assert dump(connection) == {
                "telescope": [("a", "automatic", 10), ("b", "automatic", 3)],
                "seen": [("a", 3, "automatic")],
            }


class AnyHistory(RuleBasedStateMachine):
    """Replaying any prefix gives the state that was, also where the order of two logs matters."""

    @initialize()
    def begin(self) -> None:
        import tempfile

        folder = tempfile.mkdtemp()
        self.database, self.store = create(f"sqlite:///{folder}/own.sqlite")
        self.elsewhere = Elsewhere(f"sqlite:///{folder}/elsewhere.sqlite")
        self.waiting: list[Envelope] = []

    def _remember(self) -> None:
        with self.database.reading() as connection:
            self.now = dump(connection)

    @rule(name=NAMES, mode=st.sampled_from(["manual", "automatic"]), times=st.integers(1, 3))
    def point(self, name: str, mode: str, times: int) -> None:
        with self.database.writing() as connection:
            self.store.record(connection, name, [pointed(name, mode)] * times, ORIGIN)
        self._remember()

    @rule(name=NAMES, rows=st.integers(1, 4))
    def tell(self, name: str, rows: int) -> None:
        self.waiting.append(self.elsewhere.tell(name, rows))

    @rule(number=st.integers(1, 3))
    def hear(self, number: int) -> None:
        batch, self.waiting = self.waiting[:number], self.waiting[number:]
        if batch:
            observe(self.database, self.store, batch)
            self._remember()

    @invariant()
    def a_rebuild_gives_the_same(self) -> None:
        if hasattr(self, "now"):
            rebuild(self.database, self.store.log, Observatory(), self.elsewhere.fetch, swap=False)
            assert list(compare(self.database, Observatory())) == []

    def teardown(self) -> None:
        if hasattr(self, "now"):
            rebuild(self.database, self.store.log, Observatory(), self.elsewhere.fetch)
            with self.database.reading() as connection:
                assert dump(connection) == self.now
        if hasattr(self, "database"):
            self.database.engine.dispose()
            self.elsewhere.database.engine.dispose()


AnyHistory.TestCase.settings = settings(settings(), stateful_step_count=12)
TestAnyHistory = AnyHistory.TestCase
