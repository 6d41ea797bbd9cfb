"""A long queue: choosing the next jobs costs what they are, not what waits."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import timedelta
from statistics import median

import pytest
import sqlalchemy as sa

from stoa_contracts.ids import new_id
from stoa_scheduler.models import backlog, dispatch, job
from tests.scheduler.neighbours import version
from tests.scheduler.site import Site


def queue(site: Site, table: str, number: int, *, delayed: int = 0) -> None:
    """Put many jobs where their events would put them."""
    jobs = [
        {
            "id": new_id(),
            "run": "r",
            "table_id": table,
            "row": row,
            "revision": 1,
            "workflow_version": version("one"),
            "inputs": {"image": f"{row}.fits"},
            "state": "waiting",
            "attempt": 1,
            "priority": 0,
            "requested_by": "jansky",
            "correlationid": "c",
            "causationid": "e",
            "queued": site.now,
            "not_before": site.now + timedelta(hours=1) if row <= delayed else None,
        }
        for row in range(1, number + 1)
    ]
    with site.database.writing() as connection:
        connection.execute(sa.insert(job), jobs)
        connection.execute(
            sa.insert(backlog), {"table_id": table, "requested_by": "jansky", "priority": 0, "waiting": number}
        )


def pick_ms(site: Site, times: int = 12) -> float:
    """Measure how long it takes to choose 32 jobs."""
    taken = []
    for _ in range(times):
        with site.database.writing() as connection:
            begin = time.perf_counter()
            assert len(site.dispatcher.take(connection, site.now)) == 32
            taken.append((time.perf_counter() - begin) * 1000)
            connection.execute(sa.update(dispatch).values(started=True))
    with site.database.writing() as connection:
        connection.execute(sa.delete(dispatch))
    return median(taken)


@pytest.mark.slow
async def test_choosing_from_100_000_jobs_takes_as_long_as_choosing_from_500(
    site: Site, record_property: Callable[[str, object], None], capsys: pytest.CaptureFixture[str]
) -> None:
    site.settings.smallest_window = site.settings.window = 32
    queue(site, "few", 500)
    few = pick_ms(site)
    queue(site, "survey", 100_000)
    many = pick_ms(site)
    queue(site, "outage", 20_000, delayed=20_000)
    after_an_outage = pick_ms(site)
    for name, value in (("500", few), ("100,000", many), ("100,000 and 20,000 that pause", after_an_outage)):
        record_property(f"ms to choose 32 of {name}", round(value, 2))
    dialect = site.database.engine.dialect.name
    with capsys.disabled():
        line = f"32 of 500 {few:.1f} ms, of 100,000 {many:.1f} ms, with 20,000 pausing {after_an_outage:.1f} ms"
        sys.stdout.write(f"\n{dialect}: {line}\n")
    # Loose, for busy machines: a scan of what waits would take a hundred times as long.
    assert max(many, after_an_outage) < 20 * few + 50
