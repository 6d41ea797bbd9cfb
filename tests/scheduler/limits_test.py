"""Limits and fairness: nobody has more in flight than allowed, and nobody is passed over for ever."""

from __future__ import annotations

from collections import Counter, deque

from hypothesis import given
from hypothesis import strategies as st

from stoa_scheduler.domain import Group, Turns, share
from stoa_scheduler.limits import PEOPLE, Limits
from stoa_scheduler.views import LimitRequest, RunRequest
from tests.scheduler.site import Site

PERSON, TABLE = st.sampled_from("xyz"), st.sampled_from("abcd")
CAP = st.none() | st.integers(0, 4)


@st.composite
def limits(draw: st.DrawFn) -> Limits:
    return Limits(
        draw(st.dictionaries(TABLE, st.integers(0, 4))),
        draw(st.dictionaries(PERSON, st.integers(0, 6))),
        draw(CAP),
        draw(CAP),
    )


GROUPS = st.lists(
    st.tuples(TABLE, PERSON, st.integers(-1, 1), st.integers(1, 30)), unique_by=lambda item: item[:3], max_size=12
)


@given(GROUPS, st.integers(0, 40), limits())
def test_nobody_goes_beyond_a_limit_and_no_room_is_left_unused(
    waiting: list[tuple[str, str, int, int]], room: int, allowed: Limits
) -> None:
    groups = [Group(*item) for item in waiting]
    share(groups, room, {}, Turns(), allowed)
    people: Counter[str] = Counter()
    tables: Counter[str] = Counter()
    for group in groups:
        people[group.requested_by] += group.taken
        tables[group.table] += group.taken
    for person, number in people.items():
        cap = allowed.people.get(person, allowed.per_person)
        assert cap is None or number <= cap
    for table, number in tables.items():
        cap = allowed.tables.get(table, allowed.per_table)
        assert cap is None or number <= cap
    if people.total() < room:
        for group in groups:
            assert (
                group.taken == group.waiting
                or not allowed.leaves_person(group.requested_by, people[group.requested_by])
                or not allowed.leaves_table(group.table, tables[group.table])
            )


@given(
    st.lists(st.tuples(TABLE, PERSON), unique=True, min_size=1, max_size=8),
    st.integers(1, 6),
    st.lists(st.integers(0, 100), min_size=60, max_size=60),
)
def test_no_one_starves(who: list[tuple[str, str]], slots: int, ends: list[int]) -> None:
    """Each slot is given to the next job as soon as it is free, whichever job ends; all have endless work."""
    turns = Turns()
    in_flight: Counter[tuple[str, str]] = Counter()
    running: deque[tuple[str, str]] = deque()
    passed: Counter[tuple[str, str]] = Counter()
    people = {person for _, person in who}
    for end in ends:
        while len(running) < slots:
            groups = [Group(table, person, 0, 1000) for table, person in who]
            share(groups, 1, in_flight, turns)
            (chosen,) = (group for group in groups if group.taken)
            key = (chosen.requested_by, chosen.table)
            running.append(key)
            in_flight[key] += 1
            for table, person in who:
                passed[person, table] += 1
            passed[key] = 0
            for (person, table), times in passed.items():
                # Whoever has nothing in flight comes after everybody else had one turn at most.
                of_theirs = sum(1 for _, other in who if other == person)
                if not sum(number for (other, _), number in in_flight.items() if other == person):
                    assert times <= len(people) * of_theirs + slots, (person, table)
        running.rotate(end % len(running))
        in_flight[running.popleft()] -= 1
    served = Counter(key for key, number in passed.items() if number < len(ends))
    assert len(served) == len(who) or slots < len(who)


async def test_a_table_and_a_person_at_their_limits_wait_and_others_do_not(site: Site) -> None:
    survey, few = site.tables.create("survey", rows=20), site.tables.create("few", rows=5)
    site.deliver_all()
    service = site.queue_service()
    await service.set_limit(LimitRequest(table="survey", running=3))
    await service.set_limit(LimitRequest(person="reber", running=2))
    await service.set_limit(LimitRequest(person="reber", running=2))
    assert [event.subject for event in site.own_events("limit-set")] == [survey, PEOPLE]
    await site.service("jansky").start_run(RunRequest(table="survey"))
    await site.service("reber").start_run(RunRequest(table="few"))
    seen: list[Counter[str]] = []
    for _ in range(9):
        await site.dispatch()
        # Nothing is left to do until something ends, so that the dispatcher may rest.
        assert await site.dispatcher.step() > 0.2
        done = await site.finish_all()
        seen.append(Counter(item.table for item in done))
    assert [item[survey] for item in seen] == [3] * 6 + [2, 0, 0]
    assert [item[few] for item in seen] == [2, 2, 1, 0, 0, 0, 0, 0, 0]
    assert site.rebuilt_differently() == []


async def test_a_limit_of_none_holds_everything_back_until_it_is_lifted(site: Site) -> None:
    site.tables.create("survey", rows=3)
    site.deliver_all()
    service = site.queue_service()
    await service.set_limit(LimitRequest(table="survey", running=0))
    await site.service().start_run(RunRequest(table="survey"))
    await site.dispatch()
    assert await site.handed_out() == []
    held = await service.queue()
    assert (held.waiting, held.dispatched) == (3, 0)
    (limit,) = (await service.limits(after=None, limit=10)).limits
    assert (limit.name, limit.running) == ("survey", 0)
    await service.set_limit(LimitRequest(table="survey", running=None))
    assert (await service.limits(after=None, limit=10)).limits == []
    await site.dispatch()
    assert len(await site.handed_out()) == 3


async def test_settings_limit_those_without_a_limit_of_their_own(site: Site) -> None:
    site.settings.limit_per_person = 1
    site.tables.create("survey", rows=9)
    site.deliver_all()
    await site.queue_service().set_limit(LimitRequest(person="reber", running=4))
    await site.service("jansky").start_run(RunRequest(table="survey", scope="rows", rows=[1, 2, 3]))
    await site.service("reber").start_run(RunRequest(table="survey"))
    await site.dispatch()
    handed = [item.requested_by for _, item in await site.handed_out()]
    assert Counter(handed) == {"jansky": 1, "reber": 4}


async def test_limits_are_listed_page_by_page(site: Site) -> None:
    service = site.queue_service()
    for name in ("cannon", "leavitt", "payne"):
        await service.set_limit(LimitRequest(person=name, running=1))
    first = await service.limits(after=None, limit=2)
    rest = await service.limits(after=first.next, limit=2)
    assert [item.person for item in (*first.limits, *rest.limits)] == ["cannon", "leavitt", "payne"]
    assert rest.next is None
