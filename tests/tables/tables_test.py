from __future__ import annotations

import json

import pytest

from stoa_chassis.database import Database
from stoa_chassis.migrations import differences, upgrade
from stoa_tables.app import SERVICE
from tests.tables.harness import Harness, tool


def test_the_migrations_lead_to_the_models(database_url: str) -> None:
    database = Database(database_url)
    upgrade(database, SERVICE.migrations)
    assert differences(database, SERVICE.metadata) == []
    database.engine.dispose()


async def test_a_worktable_takes_its_columns_from_the_workflow(stoa: Harness) -> None:
    inputs = {"image": "File", "threshold": {"type": "double", "default": 5.0, "label": "Threshold"}}
    detail = await stoa.worktable("sources", inputs, {"ra": "double[]", "n": "int"}, label="Find sources")
    assert (detail["name"], detail["kind"], detail["owner"], detail["rows"]) == ("sources", "worktable", "ada", 0)
    columns = {column["name"]: column for column in detail["columns"]}
    assert {name: column["role"] for name, column in columns.items()} == {
        "image": "input",
        "threshold": "input",
        "ra": "output",
        "n": "output",
    }
    assert columns["threshold"]["default"] == 5.0
    assert columns["threshold"]["label"] == "Threshold"
    assert detail["workflow"]["process_class"] == "CommandLineTool"
    assert detail["workflow"]["label"] == "Find sources"
    assert await stoa.get("/tables/sources") == detail
    assert await stoa.get(f"/tables/{detail['id']}") == detail


async def test_the_files_of_a_workflow_come_back_as_they_were(stoa: Harness) -> None:
    script = b"print('\xc3\xa9')\n"
    cwl = tool({"x": "int"}, {})
    files = [("files", ("flow/main.cwl", cwl)), ("files", ("flow/bin/run.py", script))]
    described = json.dumps({"name": "t"})
    response = await stoa.request("POST", "/tables", expect=201, files=files, data={"table": described})
    workflow = response.json()["workflow"]
    assert [file["name"] for file in workflow["files"]] == ["flow/bin/run.py", "flow/main.cwl"]
    address = f"/workflows/{workflow['version']}"
    assert await stoa.get(address) == workflow
    assert await stoa.get("/tables/t/workflow") == workflow
    got = await stoa.request("GET", f"{address}/files/flow/bin/run.py", expect=200)
    assert got.content == script
    assert got.headers["content-disposition"] == "attachment"
    missing = await stoa.request("GET", f"{address}/files/nothing.py", expect=404)
    assert "flow/bin/run.py" in missing.json()["detail"]


async def test_a_name_is_taken_whatever_its_case(quick: Harness) -> None:
    first = await quick.plain("Targets", {"ra": "double"})
    problem = await quick.post("/tables", {"name": "targets", "columns": []}, expect=409)
    assert problem["type"] == "urn:stoa:problem:name-taken"
    assert problem["table"] == first["id"]
    await quick.request("DELETE", "/tables/Targets", expect=204)
    again = await quick.plain("targets", {"ra": "double"})
    assert again["id"] != first["id"]
    await quick.request("GET", f"/tables/{first['id']}", expect=404)


@pytest.mark.parametrize("name", ["", "1st", "a b", "a" * 64, "x/y"])
async def test_what_is_no_name_is_refused(quick: Harness, name: str) -> None:
    problem = await quick.post("/tables", {"name": name, "columns": []}, expect=422)
    assert "no name for a table" in problem["detail"]


async def test_an_invalid_workflow_is_refused_with_its_places(quick: Harness) -> None:
    broken = tool({"x": "integer"}, {})
    described = {"table": json.dumps({"name": "t"})}
    response = await quick.request(
        "POST", "/tables", expect=422, files=[("files", ("main.cwl", broken))], data=described
    )
    problem = response.json()
    assert problem["type"] == "urn:stoa:problem:invalid-workflow"
    assert problem["problems"][0]["file"] == "main.cwl"
    assert problem["problems"][0]["line"] == 1
    assert (await quick.get("/tables"))["tables"] == []
    assert await quick.head() == 0


async def test_tables_are_listed_with_their_counts(stoa: Harness) -> None:
    await stoa.plain("targets", {"ra": "double"})
    await stoa.worktable("grab", {"x": "int"}, {"y": "int"})
    await stoa.add("targets", {"ra": 1}, {"ra": 2})
    await stoa.add("grab", {"x": 1}, {"x": 2}, {"x": 3})
    await stoa.run("grab", 2, {"y": 4})
    listed = await stoa.get("/tables")
    assert [(table["name"], table["rows"], table["counts"]) for table in listed["tables"]] == [
        ("targets", 2, {"current": 2}),
        ("grab", 3, {"current": 1, "stale": 2}),
    ]
    assert listed["position"] == await stoa.head()
    only = await stoa.get("/tables", name="GRAB")
    assert [table["name"] for table in only["tables"]] == ["grab"]


async def test_a_table_is_renamed_and_keeps_its_address_by_id(quick: Harness) -> None:
    detail = await quick.plain("old", {"ra": "double"})
    renamed = await quick.patch("/tables/old", {"name": "new", "description": "Better."})
    assert (renamed["id"], renamed["name"], renamed["description"]) == (detail["id"], "new", "Better.")
    await quick.request("GET", "/tables/old", expect=404)
    head = await quick.head()
    await quick.patch("/tables/new", {"name": "new"})
    assert await quick.head() == head
    await quick.plain("other", {"ra": "double"})
    await quick.patch("/tables/other", {"name": "NEW"}, expect=409)


async def test_a_column_is_described(stoa: Harness) -> None:
    await stoa.worktable("t", {"ra": "double"}, {"flux": "double"})
    detail = await stoa.patch("/tables/t/columns/flux", {"unit": "Jy", "ucd": "phot.flux"})
    flux = next(column for column in detail["columns"] if column["name"] == "flux")
    assert (flux["unit"], flux["ucd"], flux["role"], flux["type"]) == ("Jy", "phot.flux", "output", "double")
    detail = await stoa.patch("/tables/t/columns/flux", {"unit": None})
    flux = next(column for column in detail["columns"] if column["name"] == "flux")
    assert (flux["unit"], flux["ucd"]) == (None, "phot.flux")
    problem = await stoa.patch("/tables/t/columns/fluks", {"unit": "Jy"}, expect=404)
    assert "did you mean 'flux'" in problem["detail"]


async def test_a_new_workflow_makes_the_rows_of_another_version_stale(stoa: Harness) -> None:
    first = await stoa.worktable("t", {"x": "int"}, {"y": "int"})
    await stoa.add("t", {"x": 1}, {"x": 2}, {"x": 3})
    await stoa.run("t", 1, {"y": 1})
    job = (await stoa.queue("t", 2))[2]
    await stoa.finish("t", 2, job, None, outcome="permanentFail", error="No.")
    await stoa.patch("/tables/t/columns/y", {"unit": "m"})
    head = await stoa.head()
    files = [("files", ("main.cwl", tool({"x": "int", "z": {"type": "int", "default": 7}}, {"y": "int"})))]
    second = (await stoa.request("PUT", "/tables/t/workflow", expect=200, files=files)).json()
    assert second["workflow"]["version"] != first["workflow"]["version"]
    assert second["counts"] == {"stale": 3}
    assert next(column for column in second["columns"] if column["name"] == "y")["unit"] == "m"
    row = (await stoa.rows("t"))[0]
    assert (row["values"], row["outdated"]) == ({"x": 1, "z": 7, "y": 1}, True)
    changed, invalidated = await stoa.log(head)
    assert (changed.name, invalidated.name) == ("workflow-changed", "table-invalidated")
    assert invalidated.data["cause"]["kind"] == "workflow"
    assert invalidated.data["rows"] is None
    # The same content in other words is the same version, and nothing happens.
    same = [("files", ("main.cwl", b" " + files[0][1][1]))]
    await stoa.request("PUT", "/tables/t/workflow", expect=200, files=same)
    assert await stoa.head() == head + 2
    # Back at the first version, the row that was run with it is current again.
    old = [("files", ("main.cwl", tool({"x": "int"}, {"y": "int"})))]
    third = (await stoa.request("PUT", "/tables/t/workflow", expect=200, files=old)).json()
    assert third["counts"] == {"current": 1, "stale": 2}
    assert (await stoa.log(head + 2, "table-invalidated"))[0].data["rows"] == [2, 3]


async def test_a_workflow_cannot_lose_a_column_that_a_link_needs(quick: Harness) -> None:
    await quick.worktable("products", {"x": "int"}, {"path": "string"})
    await quick.worktable("coords", {"product": "string"}, {"ra": "double"})
    await quick.post("/tables/coords/links", {"parent": "products", "mapping": {"product": "path"}})
    files = [("files", ("main.cwl", tool({"x": "int"}, {"other": "string"})))]
    problem = (await quick.request("PUT", "/tables/products/workflow", expect=409, files=files)).json()
    assert "'path', from which coords is filled" in problem["detail"]
    files = [("files", ("main.cwl", tool({"other": "string"}, {"ra": "double"})))]
    problem = (await quick.request("PUT", "/tables/coords/workflow", expect=409, files=files)).json()
    assert "'product', which a link fills" in problem["detail"]


async def test_a_table_with_children_is_not_deleted(stoa: Harness) -> None:
    await stoa.plain("targets", {"name": "string"})
    await stoa.worktable("coords", {"object": "string"}, {"ra": "double"})
    await stoa.post("/tables/coords/links", {"parent": "targets", "mapping": {"object": "name"}})
    await stoa.add("targets", {"name": "M 87"})
    problem = (await stoa.request("DELETE", "/tables/targets", expect=409)).json()
    assert "coords is filled from it" in problem["detail"]
    await stoa.request("DELETE", "/tables/coords", expect=204)
    await stoa.request("DELETE", "/tables/targets", expect=204)
    assert (await stoa.get("/graph")) == {"position": await stoa.head(), "tables": [], "links": []}
    assert stoa.rebuilt()[1] == []


async def test_a_post_with_a_key_is_carried_out_once(stoa: Harness) -> None:
    await stoa.plain("targets", {"ra": "double"})
    body = {"rows": [{"ra": 1.0}]}
    first = await stoa.post("/tables/targets/rows", body, headers={"Idempotency-Key": "k1"})
    second = await stoa.post("/tables/targets/rows", body, headers={"Idempotency-Key": "k1"})
    assert first == second
    assert len(await stoa.rows("targets")) == 1
    other = await stoa.post(
        "/tables/targets/rows", {"rows": [{"ra": 2.0}]}, expect=422, headers={"Idempotency-Key": "k1"}
    )
    assert other["type"] == "urn:stoa:problem:idempotency-key-reused"


async def test_every_write_tells_its_position(quick: Harness) -> None:
    created = await quick.request("POST", "/tables", json={"name": "t", "columns": [{"name": "ra", "type": "double"}]})
    assert created.headers["Stoa-Position"] == str(await quick.head()) == "1"
    for method, path, body in [
        ("POST", "/tables/t/rows", {"rows": [{}, {}, {}]}),
        ("PATCH", "/tables/t/rows", {"edits": [{"row": 1, "values": {"ra": 1}}]}),
        ("PATCH", "/tables/t/rows/1", {"ra": 2}),
        ("DELETE", "/tables/t/rows", {"rows": [1]}),
        ("DELETE", "/tables/t/rows/2", None),
        ("PATCH", "/tables/t/columns/ra", {"unit": "deg"}),
        ("PATCH", "/tables/t", {"name": "u"}),
        ("DELETE", "/tables/u", None),
    ]:
        before = await quick.head()
        response = await quick.request(method, path, json=body)
        assert response.is_success, response.text
        assert int(response.headers["Stoa-Position"]) == before + 1 == await quick.head()


async def test_the_api_is_described_completely(quick: Harness) -> None:
    from openapi_spec_validator import validate

    document = (await quick.client.get("/openapi.json")).json()
    validate(document)
    operations = [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    assert len({operation["operationId"] for _, _, operation in operations}) == len(operations)
    references = set()

    def walk(node: object) -> None:
        if isinstance(node, dict):
            if "$ref" in node:
                references.add(node["$ref"])
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(document)
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert references <= known
    for path, method, operation in operations:
        if path.startswith("/api"):
            assert operation["summary"], (path, method)
            assert operation.get("description"), (path, method)


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("double", "double"),
        ("double?", ["null", "double"]),
        ("double[]", {"type": "array", "items": "double"}),
        ("string[]?", ["null", {"type": "array", "items": "string"}]),
        (["int", "null", "int"], ["null", "int"]),
        ({"type": "enum", "symbols": ["a", "b"]}, {"type": "enum", "symbols": ["a", "b"]}),
        (
            {"type": "record", "fields": [{"name": "ra", "type": "double?"}]},
            {"type": "record", "fields": [{"name": "ra", "type": ["null", "double"]}]},
        ),
    ],
)
async def test_the_types_of_a_plain_table_are_written_out(quick: Harness, written: object, kept: object) -> None:
    detail = await quick.plain("t", {"x": written})
    assert detail["columns"][0]["type"] == kept
    assert detail["columns"][0]["role"] == "input"


@pytest.mark.parametrize(
    "written", ["real", "", "[]", 5, None, [], {"type": "enum"}, {"type": "record", "fields": [1]}]
)
async def test_what_is_no_type_is_refused(quick: Harness, written: object) -> None:
    columns = [{"name": "x", "type": written}]
    problem = await quick.post("/tables", {"name": "t", "columns": columns}, expect=422)
    assert "'x' has the type" in problem["detail"]


async def test_two_columns_cannot_have_one_name(quick: Harness) -> None:
    columns = [{"name": "x", "type": "int"}, {"name": "x", "type": "double"}]
    problem = await quick.post("/tables", {"name": "t", "columns": columns}, expect=422)
    assert "Two columns are called 'x'" in problem["detail"]
