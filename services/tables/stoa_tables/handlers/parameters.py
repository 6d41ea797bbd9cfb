"""Parameters that several addresses share."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated

from fastapi import Depends, Header, Path, Query

from stoa_chassis.log import Origin
from stoa_chassis.service import origin_of
from stoa_contracts.types import RowStatus
from stoa_tables.moments import AsOf
from stoa_tables.problems import InvalidRequestError
from stoa_tables.queries import Page

__all__ = [
    "AsOfParameter",
    "IfMatch",
    "MomentText",
    "PageParameter",
    "RowParameter",
    "TableParameter",
    "VersionParameter",
    "read_moment",
]

TableParameter = Annotated[str, Path(description="Id or name of the table.", examples=["sources"], max_length=100)]
RowParameter = Annotated[int, Path(description="Id of the row.", ge=1, lt=2**63)]
VersionParameter = Annotated[str, Path(description="The workflow version: SHA-256.", pattern="^[0-9a-f]{64}$")]

_POSITION = re.compile(r"^[0-9]{1,18}$")
_ETAG = re.compile(r'^"([0-9]{1,18})"$')


def _page(
    origin: Annotated[Origin, Depends(origin_of)],
    limit: Annotated[int, Query(ge=1, le=10_000, description="At most so many items.")] = 100,
    after: Annotated[str | None, Query(description="The `next` of the page before.", max_length=200)] = None,
    offset: Annotated[
        int, Query(ge=0, lt=2**31, description="So many items are left out; not together with `after`.")
    ] = 0,
    sort: Annotated[
        str | None,
        Query(
            description="Columns, comma separated, with a minus for descending; missing values come last.",
            examples=["-snr,object"],
        ),
    ] = None,
    filter: Annotated[  # noqa: A002 - the name on the wire
        list[str] | None,
        Query(
            description="`column OP value` with one of `= != < <= > >= ~` (`~`: contains, whatever the case) and `null` for "
            "a missing value; may be given several times, and all must hold.",
            examples=[["snr>5", "object~cen", "flag=suspicious"]],
        ),
    ] = None,
    status: Annotated[RowStatus | None, Query(description="Only rows of this status.")] = None,
    view: Annotated[
        str | None,
        Query(
            description="A saved view: its filters hold, too, and its order and status where none are given; only its columns are"
            " shown.",
            max_length=36,
        ),
    ] = None,
) -> Page:
    if after is not None and offset:
        raise InvalidRequestError("A page begins behind `after` or at `offset`, not both")
    return Page(
        limit=limit,
        after=after,
        offset=offset,
        sort=sort,
        filters=filter or (),
        status=status,
        view=view,
        person=origin.actor,
    )


PageParameter = Annotated[Page, Depends(_page)]


def _if_match(
    if_match: Annotated[
        str | None,
        Header(
            description='The ETag of the row that the editor saw, such as `"3"`: if it has another one, nothing is changed.'
        ),
    ] = None,
) -> int | None:
    if if_match is None or if_match.strip() == "*":
        return None
    found = _ETAG.fullmatch(if_match.strip())
    if found is None:
        raise InvalidRequestError(f'The header If-Match holds one ETag such as "3", not {if_match}')
    return int(found[1])


IfMatch = Annotated[int | None, Depends(_if_match)]


#: A moment as it is written in an address.
MomentText = Annotated[str, Query(max_length=50)]


def read_moment(name: str, text: str) -> AsOf:
    """Read a moment: a position of the log, or an RFC 3339 time.

    Parameters
    ----------
    name
        Of the parameter.
    text
        Its value.
    """
    if _POSITION.fullmatch(text):
        return AsOf(int(text))
    try:
        # A plus that was not escaped arrives as a space.
        time = datetime.fromisoformat(text.replace(" ", "+"))
        if time.tzinfo is not None:
            return AsOf(time)
    except ValueError:
        pass
    raise InvalidRequestError(
        f"{name} is a position of the log or a time with its zone such as 2026-03-01T20:00:00Z, not {text!r}"
    )


def _as_of(
    as_of: Annotated[
        str | None,
        Query(
            description="Show what was there then: a position of the log, or an RFC 3339 time such as `2026-03-01T20:00:00Z`.",
            max_length=50,
            examples=["1500", "2026-03-01T20:00:00Z"],
        ),
    ] = None,
) -> AsOf | None:
    return None if as_of is None else read_moment("as_of", as_of)


AsOfParameter = Annotated[AsOf | None, Depends(_as_of)]
