"""The executor's tables in SQL: the read model, and beside it what is only true while it works."""

from __future__ import annotations

import sqlalchemy as sa

from stoa_chassis.migrations import merged

__all__ = ["claim", "job", "metadata", "read_model"]

_NAMING = {"pk": "pk_%(table_name)s", "ix": "ix_%(column_0_label)s"}

#: What the projection computes from events, and nothing else: a rebuild gives the same rows.
read_model = sa.MetaData(naming_convention=_NAMING)

job = sa.Table(
    "job",
    read_model,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("table_id", sa.String(36), nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False, doc="The newest that started; 0 where none did"),
    sa.Column("state", sa.String(20), nullable=False, doc="running, finished or cancelled"),
    sa.Column("outcome", sa.String(20)),
    sa.Column("error", sa.Text),
    sa.Column("log_sha256", sa.String(64), doc="Of the last attempt that left a log"),
)

_operational = sa.MetaData(naming_convention=_NAMING)

#: Who runs an attempt. Gone with its outcome; if these rows were lost, the running attempts would run once more.
claim = sa.Table(
    "claim",
    _operational,
    sa.Column("job", sa.String(36), primary_key=True),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("token", sa.String(36), nullable=False, doc="A result without the newest token is refused"),
    sa.Column("starts", sa.Integer, nullable=False, doc="How often this attempt was started"),
    sa.Column("place", sa.String(500), nullable=False, doc="Host and work folder of who runs it"),
    sa.Column("beat", sa.Float, nullable=False, doc="When it last gave a sign of life, in seconds since 1970"),
    sa.Column("request", sa.Text, nullable=False, doc="The job message, so that a restart goes on at once"),
    sa.Index("ix_claim_place", "place"),
)

#: Everything but the log.
metadata = merged(read_model, _operational)
