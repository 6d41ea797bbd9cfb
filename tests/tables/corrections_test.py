from __future__ import annotations

from typing import Any

import pytest

from tests.tables.harness import Harness


async def _guesses(stoa: Harness) -> None:
    """A table of guesses, from which thresholds of a worktable are derived, from which there is another."""
    await stoa.plain("guesses", {"name": "string", "threshold": "double?"})
    await stoa.worktable("sources", {"image": "string", "threshold": "double?", "note": "string?"}, {"flux": "double"})
    await stoa.worktable("plots", {"threshold": "double?"}, {"plot": "string"})
    await stoa.add("guesses", {"name": "a", "threshold": 3.0}, {"name": "b", "threshold": 4.0})
    mapping = {"image": "name", "threshold": "threshold"}
    await stoa.post("/tables/sources/links", {"parent": "guesses", "per": "row", "mapping": mapping})
    link = {"parent": "sources", "per": "row", "mapping": {"threshold": "threshold"}}
    await stoa.post("/tables/plots/links", link)


async def _corrected(stoa: Harness, row: int = 1) -> Any:
    return (await stoa.get(f"/tables/sources/rows/{row}"))["derived_from"]["corrected"]


async def test_a_correction_tells_who_made_it_when_why_and_what_is_derived(stoa: Harness) -> None:
    await _guesses(stoa)
    edited = await stoa.patch("/tables/sources/rows/1?reason=The%20guess%20was%20wrong.", {"threshold": 5, "note": "x"})
    position = await stoa.head()
    head = (await stoa.log(0, "row-edited"))[-2:]
    assert [envelope.data["reason"] for envelope in head] == ["The guess was wrong.", None]
    correction = edited["derived_from"]["corrected"]["threshold"]
    time = correction.pop("time")
    assert time.endswith("Z")
    assert correction == {
        "by": "ada",
        "position": position - 2,
        "reason": "The guess was wrong.",
        "derived": 3.0,
        "seen": 3.0,
        "review": False,
        "confirmed": None,
    }
    # A cell that no link fills is no correction.
    assert list(edited["derived_from"]["corrected"]) == ["threshold"]
    history = (await stoa.get("/tables/sources/rows/1/history"))["events"]
    assert history[-1]["summary"] == 'Changed note from null to "x", threshold from 3.0 to 5.0: The guess was wrong.'
    body = {"edits": [{"row": 2, "values": {"threshold": 6}}], "reason": "Both were."}
    await stoa.patch("/tables/sources/rows", body)
    assert (await _corrected(stoa, 2))["threshold"]["reason"] == "Both were."
    # A second edit of the cell leaves the derived value under it.
    await stoa.patch("/tables/sources/rows/2", {"threshold": 7})
    assert (await _corrected(stoa, 2))["threshold"]["derived"] == 4.0
    assert stoa.rebuilt()[1] == []


async def test_a_correction_is_reset_to_what_is_derived_now(stoa: Harness) -> None:
    await _guesses(stoa)
    await stoa.patch("/tables/sources/rows/1", {"threshold": 5, "image": "A"})
    await stoa.patch("/tables/sources/rows/2", {"threshold": 6})
    await stoa.patch("/tables/guesses/rows/1", {"threshold": 3.5})
    assert await stoa.values("plots", "threshold") == [(5.0,), (6.0,)]
    head = await stoa.head()
    chosen = {"rows": [1, 2], "columns": ["threshold"]}
    reset = await stoa.post("/tables/sources/corrections/reset", chosen, expect=200)
    assert [row["row"] for row in reset["rows"]] == [1, 2]
    assert await stoa.values("sources", "image", "threshold") == [("A", 3.5), ("b", 4.0)]
    assert await stoa.values("plots", "threshold") == [(3.5,), (4.0,)]
    event = (await stoa.log(head, "row-edited"))[0]
    assert [(row["changes"], row["reset"]) for row in event.data["rows"]] == [
        ({"threshold": 3.5}, ["threshold"]),
        ({"threshold": 4.0}, ["threshold"]),
    ]
    assert list(await _corrected(stoa)) == ["image"]
    # From now on the cell follows its source again.
    await stoa.patch("/tables/guesses/rows/1", {"threshold": 3.75, "name": "z"})
    assert await stoa.values("sources", "image", "threshold") == [("A", 3.75), ("b", 4.0)]
    await stoa.post("/tables/sources/corrections/reset", {"rows": [1]}, expect=200)
    assert await stoa.values("sources", "image", "threshold") == [("z", 3.75), ("b", 4.0)]
    history = (await stoa.get("/tables/sources/rows/1/history"))["events"]
    assert history[-1]["summary"] == 'Took back the correction of image; Changed image from "A" to "z"'
    assert stoa.rebuilt()[1] == []


async def test_writing_the_derived_value_takes_the_correction_back(stoa: Harness) -> None:
    await _guesses(stoa)
    await stoa.patch("/tables/sources/rows/1", {"threshold": 5})
    await stoa.patch("/tables/sources/rows/1", {"threshold": 3})
    assert await _corrected(stoa) == {}
    assert (await stoa.log(0, "row-edited"))[-2].data["rows"][0]["reset"] == ["threshold"]
    await stoa.patch("/tables/guesses/rows/1", {"threshold": 8})
    assert (await stoa.values("sources", "threshold"))[0] == (8.0,)
    assert stoa.rebuilt()[1] == []


async def test_a_change_under_a_correction_asks_for_a_review(stoa: Harness) -> None:
    await _guesses(stoa)
    await stoa.patch("/tables/sources/rows/1", {"threshold": 5})
    await stoa.patch("/tables/sources/rows/2", {"threshold": 6})
    await stoa.run("sources", 1, {"flux": 1.0})
    head = await stoa.head()
    await stoa.patch("/tables/guesses/rows/1", {"threshold": 3.5})
    changed = (await stoa.log(head, "derived-values-changed"))[0].data
    guesses = await stoa.get("/tables/guesses")
    assert changed["rows"] == [{"row": 1, "values": {"threshold": 3.5}}]
    assert (changed["cause"]["table"], changed["cause"]["rows"]) == (guesses["id"], [1])
    row = await stoa.get("/tables/sources/rows/1")
    # The correction wins, so nothing is to be computed.
    assert (row["status"], row["values"]["threshold"]) == ("current", 5.0)
    assert row["derived_from"]["review"]
    page = await stoa.get("/tables/sources/corrections", review=True)
    assert (page["total"], page["review"], page["next"]) == (1, 1, None)
    assert page["rows"][0]["corrected"]["threshold"]["derived"] == 3.5
    assert page["rows"][0]["values"] == {"threshold": 5.0}
    assert [row["row"] for row in await stoa.rows("sources", filter="review=true")] == [1]
    assert [row["row"] for row in await stoa.rows("sources", filter="corrected=true")] == [1, 2]
    confirmed = await stoa.post(
        "/tables/sources/corrections/confirm", {"rows": [1, 2], "reason": "I looked."}, expect=200
    )
    assert confirmed["rows"] == [1]
    assert confirmed["position"] == await stoa.head()
    correction = (await _corrected(stoa))["threshold"]
    assert (correction["seen"], correction["review"]) == (3.5, False)
    assert (correction["confirmed"]["by"], correction["confirmed"]["reason"]) == ("ada", "I looked.")
    assert (await stoa.get("/tables/sources/corrections", review=True))["rows"] == []
    summaries = [event["summary"] for event in (await stoa.get("/tables/sources/rows/1/history"))["events"]]
    assert summaries[-2:] == [
        "Under a correction threshold would be 3.5, because guesses row 1 changed",
        "Kept the correction of threshold: I looked.",
    ]
    assert stoa.rebuilt()[1] == []


async def test_there_is_nothing_to_review_where_upstream_says_what_somebody_saw_or_wrote(stoa: Harness) -> None:
    await _guesses(stoa)
    await stoa.patch("/tables/sources/rows/1", {"threshold": 5})

    async def review() -> int:
        found = await stoa.get("/tables/sources/corrections")
        return int(found["review"])

    await stoa.patch("/tables/guesses/rows/1", {"threshold": 3.5})
    assert await review() == 1
    await stoa.patch("/tables/guesses/rows/1", {"threshold": 3.0})
    assert await review() == 0
    # Upstream agrees: the correction stays, but there is nothing to decide.
    await stoa.patch("/tables/guesses/rows/1", {"threshold": 5.0})
    assert await review() == 0
    assert list(await _corrected(stoa)) == ["threshold"]
    await stoa.patch("/tables/guesses/rows/1", {"threshold": 5.5})
    assert await review() == 1
    assert (await stoa.values("sources", "threshold"))[0] == (5.0,)
    # Another correction is a judgement of its own.
    await stoa.patch("/tables/sources/rows/1", {"threshold": 5.25})
    assert await review() == 0
    assert stoa.rebuilt()[1] == []


async def test_corrections_are_listed_page_by_page(quick: Harness) -> None:
    await _guesses(quick)
    await quick.add("guesses", *({"name": str(number), "threshold": number} for number in range(5)))
    await quick.patch(
        "/tables/sources/rows", {"edits": [{"row": row, "values": {"threshold": -1}} for row in range(2, 7)]}
    )
    seen: list[int] = []
    after = 0
    while True:
        page = await quick.get("/tables/sources/corrections", limit=2, after=after)
        assert page["total"] == 5
        seen += [row["row"] for row in page["rows"]]
        if page["next"] is None:
            break
        after = page["next"]
    assert seen == [2, 3, 4, 5, 6]
    assert (await quick.get("/tables/sources/corrections", review=False))["total"] == 5


async def test_a_correction_survives_a_new_workflow(stoa: Harness) -> None:
    from tests.tables.harness import tool

    await _guesses(stoa)
    await stoa.patch("/tables/sources/rows/1", {"threshold": 5.5})
    inputs = {"image": "string", "threshold": "double?", "note": "string?", "more": "int?"}
    files = [("files", ("main.cwl", tool(inputs, {"flux": "double"})))]
    await stoa.request("PUT", "/tables/sources/workflow", expect=200, files=files)
    assert await stoa.values("sources", "threshold") == [(5.5,), (4.0,)]
    assert (await _corrected(stoa))["threshold"]["derived"] == 3.0
    assert stoa.rebuilt()[1] == []


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"rows": [9]}, 404, "no row 9"),
        ({"rows": [1], "columns": ["nothing"]}, 422, "no column 'nothing'"),
        ({"rows": [2]}, 409, "Row 2 of sources has no correction"),
        ({"rows": [1], "columns": ["image"]}, 409, "Row 1 of sources has no correction in image"),
        ({"rows": [2, 2]}, 409, "Row 2 of sources has no correction"),
        ({"rows": []}, 422, "rows"),
        ({"rows": [1], "columns": []}, 422, "columns"),
    ],
)
@pytest.mark.parametrize("what", ["reset", "confirm"])
async def test_what_is_not_corrected_cannot_be_judged(
    quick: Harness, what: str, body: Any, status: int, words: str
) -> None:
    await _guesses(quick)
    await quick.patch("/tables/sources/rows/1", {"threshold": 5})
    head = await quick.head()
    problem = await quick.post(f"/tables/sources/corrections/{what}", body, expect=status)
    assert words in problem["detail"]
    assert await quick.head() == head


async def test_corrections_are_reset_once_for_each_key(quick: Harness) -> None:
    await _guesses(quick)
    await quick.patch("/tables/sources/rows/1", {"threshold": 5})
    headers = {"Idempotency-Key": "k"}
    first = await quick.post("/tables/sources/corrections/reset", {"rows": [1]}, expect=200, headers=headers)
    again = await quick.post("/tables/sources/corrections/reset", {"rows": [1]}, expect=200, headers=headers)
    assert first == again
