"""The executor's tables in SQL: the read model, and beside it what is only true while it works."""

from __future__ import annotations

import sqlalchemy as sa

from stoa_chassis.migrations import merged

__all__ = ["claim", "file_digest", "job", "metadata", "read_model", "watched_file"]

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
    sa.Column("key", sa.String(64), doc="Under which it was run and succeeded, so that others may take its outputs"),
    sa.Column("position", sa.BigInteger, doc="Of the event with those outputs"),
    sa.Index("ix_job_key", "key", "position"),
)

#: The files and directories that jobs have read where their content may change.
watched_file = sa.Table(
    "watched_file",
    read_model,
    sa.Column("id", sa.String(64), primary_key=True, doc="SHA-256 of the location, which may be long"),
    sa.Column("location", sa.Text, nullable=False),
    sa.Column("path", sa.String(64), nullable=False, doc="As file_digest names it"),
    sa.Column("directory", sa.Boolean, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False, doc="What it held when that was last told"),
    sa.Column("gone", sa.Boolean, nullable=False),
    sa.Index("ix_watched_file_path", "path"),
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

#: What files hold in a state in which they were read. If these rows were lost, the files would be read once more.
file_digest = sa.Table(
    "file_digest",
    _operational,
    sa.Column("path", sa.String(64), primary_key=True, doc="SHA-256 of the path, which may be long and any bytes"),
    sa.Column("state", sa.String(100), nullable=False, doc="Size, times of the last changes and inode"),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("size", sa.BigInteger, doc="Null for a directory"),
)

#: Everything but the log.
metadata = merged(read_model, _operational)
