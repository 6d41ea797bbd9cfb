"""Answers questions from the read model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from stoa_chassis.log import Log
from stoa_contracts.types import FileReference, RowStatus
from stoa_tables.domain import Table
from stoa_tables.filtering import Cells, Cursor, conditions, order
from stoa_tables.history import tell
from stoa_tables.marks_queries import apply_view, comment_count, mark_filters, show_columns, show_marks
from stoa_tables.models import NO_ELEMENT, blob
from stoa_tables.problems import NotFoundError
from stoa_tables.store import Store, to_row
from stoa_tables.wire import (
    ElementPage,
    ElementView,
    Graph,
    GraphLink,
    History,
    RowAnswer,
    RowPage,
    TableDetail,
    TableList,
    TableSummary,
    WorkflowView,
    row_view,
    shown_values,
)

__all__ = ["Page", "Queries"]

#: Conditions, an order, and what can be selected beside the columns.
_Selected = tuple[list[sa.ColumnElement[bool]], list[sa.ColumnElement[Any]], Mapping[str, sa.ColumnElement[Any]]]


class Page:
    """Which part of a list is asked for.

    Parameters
    ----------
    limit
        At most so many items.
    after
        The cursor that the page before gave.
    offset
        So many items are left out.
    sort
        Columns, comma separated, with a minus for descending ones.
    filters
        Conditions that must hold.
    status
        Only rows of this status.
    view
        The id of a saved view, which adds its filters; its order and status hold where nothing else is asked for.
    person
        Who asks.
    """

    def __init__(
        self,
        *,
        limit: int = 100,
        after: str | None = None,
        offset: int = 0,
        sort: str | None = None,
        filters: Sequence[str] = (),
        status: RowStatus | None = None,
        view: str | None = None,
        person: str = "",
    ) -> None:
        self.limit = limit
        self.cursor = Cursor.decode(after) if after is not None else Cursor(offset=offset)
        self.sort = sort
        self.filters = filters
        self.status = status
        self.view = view
        self.person = person
        self.columns: Sequence[str] | None = None


class Queries:
    """Questions about the tables.

    Parameters
    ----------
    store
        The read model of one transaction, which gives one consistent view.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._connection = store.connection
        self._row = store.tables["row"]
        self._element = store.tables["element"]

    @property
    def store(self) -> Store:
        """The read model, for questions that stand in modules of their own."""
        return self._store

    def table(self, name: str) -> Table:
        """Find a table by its id or name.

        Raises
        ------
        NotFoundError
            If there is none.
        """
        # PostgreSQL cannot even ask for a text with a NUL character.
        table = None if "\0" in name else self._store.find(name)
        if table is None:
            raise NotFoundError(f"There is no table {name!r}", table=name)
        return table

    # --- tables --------------------------------------------------------------------------------------------------------

    def tables(self, position: int, *, name: str | None = None, project: str | None = None) -> TableList:
        """List tables."""
        return TableList(position=position, tables=self._summaries(name=name, project=project))

    def _summaries(self, *, name: str | None = None, project: str | None = None) -> list[TableSummary]:
        counts = self._store.all_counts()
        parents: dict[str, list[str]] = {}
        for child, link in self._store.links():
            parents.setdefault(child, []).extend(parent for parent in link.parents if parent not in parents[child])
        return [
            TableSummary.model_validate(
                {
                    "id": table.id,
                    "name": table.name,
                    "kind": table.kind,
                    "owner": table.owner,
                    "project": table.project,
                    "description": table.description,
                    "created": table.created,
                    "rows": sum(counts.get(table.id, {}).values()),
                    "counts": counts.get(table.id, {}),
                    "parents": parents.get(table.id, []),
                }
            )
            for table in self._store.all_tables(name=name, project=project)
        ]

    def detail(self, name: str, position: int) -> TableDetail:
        """Show a table with its columns, workflow and links."""
        table = self.table(name)
        counts = self._store.counts(table.id)
        return TableDetail.model_validate(
            {
                "position": position,
                "id": table.id,
                "name": table.name,
                "kind": table.kind,
                "owner": table.owner,
                "project": table.project,
                "description": table.description,
                "created": table.created,
                "columns": table.columns,
                "workflow": self.workflow(table.workflow_version) if table.workflow_version else None,
                "rows": sum(counts.values()),
                "counts": counts,
                "links": self._store.links_of(table.id),
                "element_key": table.element_key,
            }
        )

    def graph(self, position: int) -> Graph:
        """List every table and every link."""
        links = [GraphLink.model_validate({"table": child, **link.model_dump()}) for child, link in self._store.links()]
        return Graph(position=position, tables=self._summaries(), links=links)

    def workflow(self, version: str) -> WorkflowView:
        """Show a workflow version.

        Raises
        ------
        NotFoundError
            If there is none.
        """
        item = self._store.tables["workflow_version"]
        found = self._connection.execute(sa.select(item).where(item.c.version == version)).first()
        if found is None:
            raise NotFoundError(f"There is no workflow version {version}", version=version)
        return WorkflowView.model_validate(found._asdict())

    def workflow_of(self, name: str) -> WorkflowView:
        """Show the workflow version of a table.

        Raises
        ------
        NotFoundError
            If it has none.
        """
        table = self.table(name)
        if table.workflow_version is None:
            raise NotFoundError(f"{table.name} is a {table.kind} table; it has no workflow", table=table.id)
        return self.workflow(table.workflow_version)

    def workflow_file(self, version: str, name: str) -> tuple[FileReference, bytes]:
        """Give a file of a workflow version.

        Raises
        ------
        NotFoundError
            If there is none.
        """
        workflow = self.workflow(version)
        file = next((file for file in workflow.files if file.name == name), None)
        if file is None:
            known = ", ".join(file.name for file in workflow.files[:20])
            raise NotFoundError(f"The workflow version has no file {name!r}; it has {known}", name=name)
        content = self._connection.execute(sa.select(blob.c.content).where(blob.c.sha256 == file.sha256)).scalar_one()
        return file, bytes(content)

    # --- rows ----------------------------------------------------------------------------------------------------------

    def row(self, name: str, row: int, position: int) -> RowAnswer:
        """Show a row.

        Raises
        ------
        NotFoundError
            If there is none.
        """
        table = self.table(name)
        found = self._store.row(table.id, row)
        if found is None:
            raise NotFoundError(f"The table {table.name} has no row {row}", table=table.id, row=row)
        view = row_view(table, found, self._parents(table))
        show_marks(self._store, table.id, [view])
        return RowAnswer.model_construct(position=position, **dict(view))

    def _parents(self, table: Table) -> dict[str, list[str]]:
        if not table.derived:
            return {}
        return {link.link: link.parents for link in self._store.links_of(table.id)}

    def rows(self, name: str, page: Page, position: int) -> RowPage:
        """List rows."""
        table = self.table(name)
        where, written, _ = self._selected_rows(table, page)
        item = self._row
        if len(where) == 1:
            total = sum(self._store.counts(table.id).values())
        else:
            total = self._connection.execute(sa.select(sa.func.count()).select_from(item).where(*where)).scalar_one()
        if page.cursor.row is not None:
            where.append(item.c.row > page.cursor.row)
        statement = (
            sa.select(item)
            .where(*where)
            .order_by(*written, item.c.row)
            .limit(page.limit + 1)
            .offset(page.cursor.offset)
        )
        found = [to_row(entry) for entry in self._connection.execute(statement)]
        parents = self._parents(table)
        shown = [row_view(table, row, parents) for row in found[: page.limit]]
        show_marks(self._store, table.id, shown)
        show_columns(page, shown)
        after = None
        if len(found) > page.limit:
            after = self._next(page, written, shown[-1].row, None)
        return RowPage.model_construct(position=position, rows=shown, next=after, total=total)

    def _selected_rows(self, table: Table, page: Page) -> _Selected:
        apply_view(self._store, table, page)
        item = self._row
        special = {
            "row": item.c.row,
            "status": item.c.status,
            "revision": item.c.revision,
            "corrected": _truth(item.c.corrected.is_not(None)),
            "review": _truth(item.c.review),
            "comments": comment_count(self._store),
        }
        marks = mark_filters(self._store)
        cells = Cells(table, self._connection.dialect.name, item.c.inputs, item.c.outputs, special, marks=marks)
        where = [item.c.table_id == table.id, *self._narrowed(cells, page)]
        return where, order(cells, page.sort), special

    def elements(self, name: str, page: Page, position: int) -> ElementPage:
        """List elements, and rows as a whole where they have none."""
        table = self.table(name)
        where, written, _ = self._selected_elements(table, page)
        row, element, source, number = self._row, self._element, self._row_elements, self._number
        total = self._connection.execute(sa.select(sa.func.count()).select_from(source).where(*where)).scalar_one()
        if page.cursor.row is not None:
            begin = -2 if page.cursor.element is None else page.cursor.element
            where.append(sa.or_(row.c.row > page.cursor.row, sa.and_(row.c.row == page.cursor.row, number > begin)))
        statement = (
            sa.select(row, element.c.element.label("number"), element.c.outputs.label("element_outputs"))
            .select_from(source)
            .where(*where)
            .order_by(*written, row.c.row, number)
            .limit(page.limit + 1)
            .offset(page.cursor.offset)
        )
        found = self._connection.execute(statement).all()
        shown = [_element_view(table, entry) for entry in found[: page.limit]]
        show_columns(page, shown)
        after = None
        if len(found) > page.limit:
            last = shown[-1]
            after = self._next(page, written, last.row, NO_ELEMENT if last.element is None else last.element)
        return ElementPage.model_construct(position=position, elements=shown, next=after, total=total)

    @property
    def _row_elements(self) -> sa.Join:
        row, element = self._row, self._element
        return row.outerjoin(element, sa.and_(element.c.table_id == row.c.table_id, element.c.row == row.c.row))

    @property
    def _number(self) -> sa.ColumnElement[int]:
        return sa.func.coalesce(self._element.c.element, NO_ELEMENT)

    def _selected_elements(self, table: Table, page: Page) -> _Selected:
        apply_view(self._store, table, page)
        row, element = self._row, self._element
        outputs = sa.case((element.c.element.is_not(None), element.c.outputs), else_=row.c.outputs)
        special: dict[str, sa.ColumnElement[Any]] = {
            "row": row.c.row,
            "status": row.c.status,
            "revision": row.c.revision,
            "element": element.c.element,
            "comments": comment_count(self._store),
        }
        marks = mark_filters(self._store)
        dialect = self._connection.dialect.name
        cells = Cells(table, dialect, row.c.inputs, outputs, special, elements=True, marks=marks)
        where = [row.c.table_id == table.id, *self._narrowed(cells, page)]
        if table.outputs:
            where += [row.c.outputs_job.is_not(None), sa.or_(row.c.elements.is_(None), element.c.element.is_not(None))]
        return where, order(cells, page.sort), special

    def unpaged(self, table: Table, page: Page, special: Sequence[str], *, elements: bool) -> sa.Select[Any]:
        """Select all rows, or elements, that a page would be cut from, in its order, with their inputs and outputs as JSON.

        Parameters
        ----------
        table
            The table.
        page
            Its filters, status and order count.
        special
            What else is selected: row, status, revision, element.
        elements
            Whether elements are selected.
        """
        row, element = self._row, self._element
        where, written, known = (self._selected_elements if elements else self._selected_rows)(table, page)
        outputs = (
            sa.case(
                (element.c.element.is_not(None), sa.cast(element.c.outputs, sa.Text)),
                else_=sa.cast(row.c.outputs, sa.Text),
            )
            if elements
            else sa.cast(row.c.outputs, sa.Text)
        )
        return (
            sa.select(sa.cast(row.c.inputs, sa.Text), outputs, *(known[name] for name in special))
            .select_from(self._row_elements if elements else row)
            .where(*where)
            .order_by(*written, row.c.row, *([self._number] if elements else []))
        )

    def _narrowed(self, cells: Cells, page: Page) -> list[sa.ColumnElement[bool]]:
        where = conditions(cells, page.filters)
        if page.status is not None:
            where.append(self._row.c.status == page.status)
        return where

    @staticmethod
    def _next(page: Page, written: Sequence[Any], row: int, element: int | None) -> str:
        if written:
            return Cursor(offset=page.cursor.offset + page.limit).encode()
        return Cursor(row=row, element=element).encode()

    # --- history -------------------------------------------------------------------------------------------------------

    def history(self, name: str, row: int, position: int, log: Log, *, limit: int, before: int | None) -> History:
        """Tell what happened to a row, also to one that was removed.

        Raises
        ------
        NotFoundError
            If the table never had such a row.
        """
        table = self.table(name)
        item = self._store.tables["row_event"]
        mine = sa.and_(item.c.table_id == table.id, item.c.row == row)
        first = self._connection.execute(sa.select(sa.func.min(item.c.position)).where(mine)).scalar_one()
        if first is None:
            raise NotFoundError(f"The table {table.name} has no row {row}, and never had", table=table.id, row=row)
        statement = sa.select(item.c.position).where(
            item.c.table_id == table.id, item.c.row.in_([0, row]), item.c.position >= first
        )
        if before is not None:
            statement = statement.where(item.c.position < before)
        statement = statement.order_by(item.c.position.desc()).limit(limit)
        positions = list(self._connection.execute(statement).scalars())
        names = {table.id: table.name for table in self._store.all_tables()}
        events = [
            tell(envelope, row, names)
            for found in sorted(positions)
            for envelope in log.read(self._connection, after=found - 1, until=found)
        ]
        return History(position=position, table=table.id, row=row, events=events)


def _truth(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[str]:
    return sa.case((condition, "true"), else_="false")


def _element_view(table: Table, entry: Any) -> ElementView:
    row = to_row(entry)
    outputs = row.outputs if entry.number is None else entry.element_outputs
    return ElementView.model_construct(
        row=row.row,
        element=entry.number,
        status=row.status,
        outdated=row.outdated(table.workflow_version),
        values=shown_values(table, row.inputs, outputs),
    )
