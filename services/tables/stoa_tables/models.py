"""The tables of the database: the read model, which is computed from the log, and what lies beside it."""

from __future__ import annotations

import sqlalchemy as sa

from stoa_chassis.idempotency import idempotency_key as define_idempotency_key
from stoa_chassis.migrations import merged

__all__ = [
    "NO_ELEMENT",
    "blob",
    "comment",
    "comment_version",
    "edit_step",
    "edit_step_event",
    "element",
    "flag",
    "idempotency_key",
    "join_index",
    "link",
    "link_parent",
    "metadata",
    "own",
    "read_model",
    "removed_row",
    "row",
    "row_event",
    "row_file",
    "row_flag",
    "row_lock",
    "saved_view",
    "snapshot",
    "snapshot_part",
    "status_count",
    "table_version",
    "workflow_version",
    "worktable",
]

#: Stands for "the row as a whole" where a primary key needs an element.
NO_ELEMENT = -1

_CONVENTION = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
}

#: What the projection writes, and nobody else.
read_model = sa.MetaData(naming_convention=_CONVENTION)

#: What lies beside the read model and survives its rebuild.
own = sa.MetaData(naming_convention=_CONVENTION)


def _json(name: str, *, nullable: bool = False, doc: str | None = None) -> sa.Column[object]:
    # JSON as text: PostgreSQL's jsonb would reorder keys and rewrite numbers.
    return sa.Column(name, sa.JSON(none_as_null=True), nullable=nullable, doc=doc)


worktable = sa.Table(
    "worktable",
    read_model,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("name", sa.String(63), nullable=False),
    sa.Column("folded_name", sa.String(63), nullable=False, doc="Names differ in more than case"),
    sa.Column("kind", sa.String(10), nullable=False),
    sa.Column("owner", sa.String(200), nullable=False),
    sa.Column("project", sa.String(200), nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    _json("columns"),
    sa.Column("workflow_version", sa.String(64)),
    sa.Column("element_key", sa.Text, doc="The output column by whose value elements are known"),
    sa.Column("next_row", sa.BigInteger, nullable=False, doc="Row ids are never used again"),
    sa.Column("created", sa.String(40), nullable=False),
    sa.Column("deleted", sa.Boolean, nullable=False),
    sa.Index("ix_worktable_folded_name", "folded_name"),
)

_derived = sa.text("link IS NOT NULL")
_corrected = sa.text("corrected IS NOT NULL")
_review = sa.text("review")

row = sa.Table(
    "row",
    read_model,
    sa.Column("table_id", sa.String(36), primary_key=True),
    sa.Column("row", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("status", sa.String(10), nullable=False),
    sa.Column("reason", sa.Text, doc="Why the row failed, was cancelled or cannot be run"),
    _json("inputs"),
    _json("outputs", nullable=True, doc="Of the last run that belonged to the row when it ended"),
    sa.Column("elements", sa.BigInteger, doc="How many elements the outputs are; null where they are none"),
    sa.Column("outputs_revision", sa.BigInteger, doc="The newest revision that had the inputs of that run"),
    sa.Column("outputs_version", sa.String(64)),
    sa.Column("outputs_job", sa.String(100)),
    sa.Column("outputs_inputs", sa.String(64), doc="Digest of the inputs of that run"),
    _json("outputs_key", nullable=True, doc="What decided the outputs"),
    _json("outputs_files", nullable=True, doc="Location to digest of what that run read"),
    sa.Column("outputs_wall_s", sa.Float, doc="How long the last run took that was not spared"),
    sa.Column(
        "files_changed", sa.Integer, nullable=False, server_default="0", doc="How many of its files hold others now"
    ),
    sa.Column("accepted_revision", sa.BigInteger, doc="What a person declared the outputs to belong to"),
    sa.Column("accepted_version", sa.String(64)),
    sa.Column("suspected", sa.Boolean, nullable=False, server_default=sa.false(), doc="Whether a source is unsettled"),
    sa.Column("pinned", sa.String(64), doc="The workflow version with which the row stays"),
    sa.Column("job", sa.String(100), doc="The newest job that this row is known to have"),
    sa.Column("attempt", sa.Integer, doc="The newest attempt at that job"),
    sa.Column("link", sa.String(36), doc="What the row is derived through, and the rest of its derivation"),
    sa.Column("key", sa.String(64)),
    sa.Column("left_row", sa.BigInteger),
    sa.Column("left_element", sa.BigInteger),
    sa.Column("right_row", sa.BigInteger),
    sa.Column("right_element", sa.BigInteger),
    _json("corrected", nullable=True, doc="Derived cells that a person edited: column to who, when and why"),
    sa.Column(
        "review",
        sa.Boolean,
        nullable=False,
        server_default=sa.false(),
        doc="Whether upstream changed under a correction",
    ),
    sa.Index("ix_row_status", "table_id", "status"),
    sa.Index("ix_row_corrected", "table_id", "row", sqlite_where=_corrected, postgresql_where=_corrected),
    sa.Index("ix_row_review", "table_id", "row", sqlite_where=_review, postgresql_where=_review),
    sa.Index("ix_row_left", "link", "left_row", sqlite_where=_derived, postgresql_where=_derived),
    sa.Index("ix_row_right", "link", "right_row", sqlite_where=_derived, postgresql_where=_derived),
    sa.Index("ix_row_key", "link", "key", sqlite_where=_derived, postgresql_where=_derived),
)

row_file = sa.Table(
    "row_file",
    read_model,
    sa.Column("table_id", sa.String(36), primary_key=True),
    sa.Column("row", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("place", sa.String(64), primary_key=True, doc="Digest of the location, which may be long"),
    sa.Column("location", sa.Text, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False, doc="What it held when the row's outputs were made"),
    sa.Column(
        "changed", sa.Boolean, nullable=False, server_default=sa.false(), doc="Whether it holds something else now"
    ),
    sa.Index("ix_row_file_place", "place", "table_id"),
)

element = sa.Table(
    "element",
    read_model,
    sa.Column("table_id", sa.String(36), primary_key=True),
    sa.Column("row", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("element", sa.BigInteger, primary_key=True, autoincrement=False),
    _json("outputs", doc="One value for each output column"),
)

status_count = sa.Table(
    "status_count",
    read_model,
    sa.Column("table_id", sa.String(36), primary_key=True),
    sa.Column("status", sa.String(10), primary_key=True),
    sa.Column("n", sa.BigInteger, nullable=False),
)

link = sa.Table(
    "link",
    read_model,
    sa.Column("link", sa.String(36), primary_key=True),
    sa.Column("table_id", sa.String(36), nullable=False, doc="The child"),
    sa.Column("kind", sa.String(10), nullable=False),
    _json("specification"),
    sa.Index("ix_link_table_id", "table_id"),
)

link_parent = sa.Table(
    "link_parent",
    read_model,
    sa.Column("link", sa.String(36), primary_key=True),
    sa.Column(
        "side",
        sa.Integer,
        primary_key=True,
        autoincrement=False,
        doc="0 for the left or only parent, 1 for the right one",
    ),
    sa.Column("table_id", sa.String(36), nullable=False),
    sa.Index("ix_link_parent_table_id", "table_id"),
)

join_index = sa.Table(
    "join_index",
    read_model,
    sa.Column("link", sa.String(36), primary_key=True),
    sa.Column("side", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("row", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("element", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("key", sa.String(64), nullable=False, doc="Digest of the values that have to be equal"),
    sa.Index("ix_join_index_key", "link", "side", "key"),
)

workflow_version = sa.Table(
    "workflow_version",
    read_model,
    sa.Column("version", sa.String(64), primary_key=True),
    sa.Column("main", sa.Text, nullable=False),
    sa.Column("process_class", sa.String(100), nullable=False),
    _json("files"),
    _json("inputs", nullable=True, doc="The parameters of a job: name and default"),
    sa.Column("label", sa.Text),
    sa.Column("description", sa.Text),
)

table_version = sa.Table(
    "table_version",
    read_model,
    sa.Column("table_id", sa.String(36), primary_key=True),
    sa.Column("version", sa.String(64), primary_key=True),
    sa.Column(
        "number", sa.Integer, nullable=False, doc="Counted from 1 in the order in which the table first had them"
    ),
    sa.Column("position", sa.BigInteger, nullable=False, doc="Where the table got it for the first time"),
    sa.Column("time", sa.String(40), nullable=False),
    sa.Column("actor", sa.String(200), nullable=False),
    sa.Column("last_position", sa.BigInteger, nullable=False, doc="Where the table got it for the last time"),
    sa.Column("last_time", sa.String(40), nullable=False),
    sa.Column("last_actor", sa.String(200), nullable=False),
    _json("columns", nullable=True, doc="As people had described them when the table got another version"),
)

row_event = sa.Table(
    "row_event",
    read_model,
    sa.Column("table_id", sa.String(36), primary_key=True),
    sa.Column("row", sa.BigInteger, primary_key=True, autoincrement=False, doc="0 for events that concern every row"),
    sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("job", sa.String(100), doc="Of recorded outputs: a job's outcome is recorded once"),
    sqlite_with_rowid=False,
)

# --- people's marks ----------------------------------------------------------------------------------------------------

# Marks hang on the ids of rows, not on the rows: they are there again when a removal is taken back.

flag = sa.Table(
    "flag",
    read_model,
    sa.Column("table_id", sa.String(36), primary_key=True),
    sa.Column("flag", sa.String(63), primary_key=True),
    sa.Column("colour", sa.String(7), nullable=False),
    sa.Column("description", sa.Text),
)

row_flag = sa.Table(
    "row_flag",
    read_model,
    sa.Column("table_id", sa.String(36), primary_key=True),
    sa.Column("row", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("flag", sa.String(63), primary_key=True),
    sa.Index("ix_row_flag_flag", "table_id", "flag"),
)

comment = sa.Table(
    "comment",
    read_model,
    sa.Column("comment", sa.String(36), primary_key=True),
    sa.Column("table_id", sa.String(36), nullable=False),
    sa.Column("row", sa.BigInteger, nullable=False),
    sa.Column("element", sa.BigInteger),
    sa.Column("column", sa.String(200)),
    sa.Column("replies_to", sa.String(36), doc="The comment that began the thread"),
    sa.Column("author", sa.String(200), nullable=False),
    sa.Column("text", sa.Text, doc="Markdown; null where it was withdrawn"),
    sa.Column("created", sa.String(40), nullable=False),
    sa.Column("edited", sa.String(40)),
    sa.Column("position", sa.BigInteger, nullable=False),
    sa.Index("ix_comment_row", "table_id", "row"),
    sa.Index("ix_comment_position", "table_id", "position"),
)

comment_version = sa.Table(
    "comment_version",
    read_model,
    sa.Column("comment", sa.String(36), primary_key=True),
    sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("text", sa.Text),
    sa.Column("time", sa.String(40), nullable=False),
)

row_lock = sa.Table(
    "row_lock",
    read_model,
    sa.Column("table_id", sa.String(36), primary_key=True),
    sa.Column("row", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("by", sa.String(200), nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("time", sa.String(40), nullable=False),
    _json("withheld", nullable=True, doc="What upstream says of cells that the lock keeps as they are"),
    sa.Column("gone", sa.Boolean, nullable=False, doc="Whether nothing upstream gives the row any more"),
)

saved_view = sa.Table(
    "saved_view",
    read_model,
    sa.Column("view", sa.String(36), primary_key=True),
    sa.Column("table_id", sa.String(36), nullable=False),
    sa.Column("author", sa.String(200), nullable=False),
    sa.Column("name", sa.String(200), nullable=False),
    _json("specification"),
    sa.Index("ix_saved_view_table_id", "table_id"),
)

# --- what can be undone ------------------------------------------------------------------------------------------------

edit_step = sa.Table(
    "edit_step",
    read_model,
    sa.Column("table_id", sa.String(36), primary_key=True),
    sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False, doc="Of its first event"),
    sa.Column("last", sa.BigInteger, nullable=False, doc="The position of its last event"),
    sa.Column("actor", sa.String(200), nullable=False),
    sa.Column("correlationid", sa.String(200), nullable=False),
    sa.Column("kind", sa.String(10), nullable=False),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("time", sa.String(40), nullable=False),
    sa.Column("undone", sa.Boolean, nullable=False),
    sa.Index("ix_edit_step_actor", "table_id", "actor", "position"),
)

edit_step_event = sa.Table(
    "edit_step_event",
    read_model,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("table_id", sa.String(36), nullable=False),
    sa.Column("step", sa.BigInteger, nullable=False),
    sa.Column("position", sa.BigInteger, nullable=False),
    sa.Column("undone", sa.Boolean, nullable=False, doc="Whether it takes the step back"),
    sa.Column("live", sa.Boolean, nullable=False, doc="Whether no later event takes it back"),
    _json("corrected", nullable=True, doc="Row to column to what was known of its correction before"),
    sa.Index("ix_edit_step_event_step", "table_id", "step"),
)

removed_row = sa.Table(
    "removed_row",
    read_model,
    sa.Column("table_id", sa.String(36), primary_key=True),
    sa.Column("row", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
    _json("inputs"),
    sa.Column("pinned", sa.String(64), doc="The workflow version that the row stays with"),
)

blob = sa.Table(
    "blob",
    own,
    sa.Column("sha256", sa.String(64), primary_key=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("content", sa.LargeBinary, nullable=False),
)

snapshot = sa.Table(
    "snapshot",
    own,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("table_id", sa.String(36), nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False, doc="Of the table's stream"),
    sa.Column(
        "code", sa.String(64), nullable=False, doc="Names the program that computed it; another one does not read it"
    ),
    sa.Column("chain", sa.String(64), nullable=False, doc="The log's chain value at the event of this version"),
    sa.Column("sha256", sa.String(64), nullable=False, doc="Of what the parts hold together, unpacked"),
    sa.Column("size", sa.BigInteger, nullable=False, doc="Bytes of the parts"),
    sa.Index("ix_snapshot_table_id", "table_id", "code", "version", unique=True),
)

snapshot_part = sa.Table(
    "snapshot_part",
    own,
    sa.Column("snapshot", sa.String(36), primary_key=True),
    sa.Column("part", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("content", sa.LargeBinary, nullable=False),
)

idempotency_key = define_idempotency_key(own)

#: The whole database of the service but its log.
metadata = merged(read_model, own)
