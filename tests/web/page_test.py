"""The page in a real browser, before the real tables service and scheduler; the test plays the executor."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI, Request, Response
from playwright.async_api import Browser, Locator, Page, expect
from pydantic import SecretStr
from starlette.responses import StreamingResponse

from stoa_chassis.memory_bus import MemoryBus
from stoa_chassis.migrations import upgrade
from stoa_scheduler.app import SERVICE as SCHEDULER
from stoa_scheduler.settings import SchedulerSettings
from stoa_web.app import create_app
from stoa_web.settings import WebSettings
from tests.tables.harness import Harness, running
from tests.web.browser import browser, chromium
from tests.web.serving import serving

expect.set_options(timeout=15_000)

_INPUTS = {"object": "string", "threshold": {"type": "double", "default": 5}, "deep": "boolean?", "image": "File?"}
_OUTPUTS = {"ra": "double[]", "flux": "double[]", "source_id": "long[]", "map": "File"}


class Files:
    """What the executor keeps: files and logs."""

    def __init__(self) -> None:
        self.logs: dict[str, str] = {}
        self.files: dict[str, bytes] = {}
        self.more: asyncio.Queue[str | None] = asyncio.Queue()
        self.app = FastAPI()
        self.app.get("/api/logs/{job}")(self.log)
        self.app.post("/api/files")(self.upload)

    async def log(self, job: str, request: Request) -> Response:
        if "text/event-stream" not in request.headers["accept"]:
            return Response(self.logs[job], media_type="text/plain")

        async def frames() -> AsyncIterator[str]:
            while (text := await self.more.get()) is not None:
                yield f"event: log\ndata: {json.dumps({'text': text})}\n\n"
            yield 'event: end\ndata: {"outcome": "success", "error": null}\n\n'

        return StreamingResponse(frames(), media_type="text/event-stream")

    async def upload(self, name: str, request: Request) -> dict[str, Any]:
        async with request.form() as form:
            part = form["file"]
            assert not isinstance(part, str)
            content = await part.read()
        digest = hashlib.sha256(content).hexdigest()
        self.files[digest] = content
        size = len(content)
        return {
            "class": "File",
            "location": f"sha256:{digest}",
            "basename": name,
            "size": size,
            "checksum": f"sha256${digest}",
        }


@dataclass
class Site:
    """All of Stoa but its executor, and a page that shows it."""

    tables: Harness
    files: Files
    url: str
    page: Page
    errors: list[str] = field(default_factory=list)
    stop_web: Callable[[], Awaitable[None]] | None = None

    async def open(self, address: str = "") -> None:
        await self.page.goto(f"{self.url}/{address}")

    def row(self, number: int) -> Locator:
        return self.page.locator(f'tr[data-key="{number}"]')

    def cell(self, number: int, column: str) -> Locator:
        return self.row(number).locator(f'td[data-column="{column}"]')

    async def job_of(self, table: str, row: int) -> str:
        async with asyncio.timeout(15):
            while True:
                found = await self.tables.get(f"/tables/{table}/rows/{row}")
                if found["status"] == "queued":
                    return str(found["job"])
                await asyncio.sleep(0.02)

    async def worktable(self, name: str = "sources", rows: int = 3) -> Any:
        created = await self.tables.worktable(name, _INPUTS, _OUTPUTS)
        names = ["Cen A", "M 87", "NGC 1068"]
        given = [{"object": names[number] if number < 3 else f"J{number:04}"} for number in range(rows)]
        if given:
            await self.tables.add(name, *given)
        return created


@pytest.fixture
async def site(sqlite_url: str, tmp_path: Path) -> AsyncIterator[Site]:
    chromium()
    files = Files()
    async with AsyncExitStack() as stack:
        tables = await stack.enter_async_context(running(sqlite_url, tmp_path))
        tables_url = await stack.enter_async_context(serving(cast("httpx.ASGITransport", tables.client._transport).app))
        settings = SchedulerSettings(
            data=tmp_path,
            database_url=SecretStr(f"sqlite:///{tmp_path / 'scheduler.sqlite'}"),
            actor="ada",
            tables_url=tables_url,
        )
        scheduler = SCHEDULER.create_app(settings, bus=MemoryBus(tables.broker))
        upgrade(scheduler.state.context.database, SCHEDULER.migrations)
        scheduler_url = await stack.enter_async_context(serving(scheduler, lifespan=True))
        executor_url = await stack.enter_async_context(serving(files.app))
        web = create_app(WebSettings(tables_url=tables_url, scheduler_url=scheduler_url, executor_url=executor_url))
        started: Browser = await stack.enter_async_context(browser())
        gateway = AsyncExitStack()
        url = await gateway.enter_async_context(serving(web, lifespan=True))
        stack.push_async_callback(gateway.aclose)
        page = await started.new_page(viewport={"width": 1280, "height": 800})
        site = Site(tables, files, url, page, stop_web=gateway.aclose)
        page.on("pageerror", lambda error: site.errors.append(str(error)))
        page.on("console", lambda said: site.errors.append(said.text) if "Content Security" in said.text else None)
        yield site
        # An open connection for live updates would hold up the servers behind.
        scheduler.state.context.background.stop.set()
        tables.context.background.stop.set()
        web.state.context.background.stop.set()
        assert site.errors == []


async def test_without_tables_the_page_says_how_to_make_one(site: Site) -> None:
    await site.open()
    await expect(site.page.get_by_role("heading", name="No tables yet")).to_be_visible()
    await expect(site.page.get_by_text("stoa table create")).to_be_visible()
    await site.tables.plain("targets", {"object": "string"})
    await expect(site.page.get_by_role("link", name="targets: plain table, 0 rows")).to_be_visible()


async def test_the_graph_shows_the_tables_and_what_fills_them(site: Site) -> None:
    await site.tables.plain("targets", {"object": "string"})
    await site.tables.add("targets", {"object": "Cen A"}, {"object": "M 87"})
    await site.worktable(rows=0)
    await site.tables.post(
        "/tables/sources/links", {"parent": "targets", "per": "row", "mapping": {"object": "object"}}
    )
    await site.tables.join("catalogue", "sources", "targets", [("object", "object")])
    await site.open()
    nodes = {}
    for name in ["targets", "sources", "catalogue"]:
        box = await site.page.locator(f'a[data-table="{name}"]').bounding_box()
        assert box is not None
        nodes[name] = box
    assert nodes["targets"]["x"] < nodes["sources"]["x"] < nodes["catalogue"]["x"]
    await expect(site.page.locator("svg.graph path.edge")).to_have_count(3)
    await expect(site.page.locator('a[data-table="sources"]')).to_have_attribute(
        "aria-label", "sources: 2 rows; 2 stale"
    )
    await site.tables.add("targets", {"object": "NGC 1068"})
    await expect(site.page.locator('a[data-table="sources"]')).to_have_attribute(
        "aria-label", "sources: 3 rows; 3 stale"
    )
    await site.page.locator('a[data-table="sources"]').focus()
    await site.page.keyboard.press("Enter")
    await expect(site.page).to_have_url(re.compile("#table=sources$"))
    await expect(site.page.get_by_role("heading", name="sources")).to_be_visible()
    await expect(site.page.get_by_text("Filled from targets. Fills catalogue.")).to_be_visible()
    await site.page.go_back()
    await expect(site.page.locator("svg.graph")).to_be_visible()


async def test_a_row_is_followed_from_stale_to_current(site: Site) -> None:
    created = await site.worktable()
    await site.tables.request(
        "PATCH", "/tables/sources/columns/ra", expect=200, json={"unit": "deg", "ucd": "pos.eq.ra;meta.main"}
    )
    await site.open("#table=sources")
    await expect(site.row(2).get_by_text("stale")).to_be_visible()
    await expect(site.page.get_by_role("columnheader", name="ra deg · pos.eq.ra;meta.main · out")).to_be_visible()
    await site.page.get_by_role("button", name="Run row 2").click()
    job = await site.job_of("sources", 2)
    await expect(site.row(2).get_by_text("queued")).to_be_visible()
    await expect(site.row(1).get_by_text("stale")).to_be_visible()
    await site.tables.start("sources", 2, job)
    await expect(site.row(2).get_by_text("running")).to_be_visible()
    digest = "7" * 64
    outputs = {
        "ra": [187.7059, 187.71, 187.72, 187.73],
        "flux": [1.5, 0.00001, 3e-20, 7],
        "source_id": [3907709379217411584] * 4,
        "map": {"class": "File", "location": f"sha256:{digest}", "basename": "m 87.fits", "size": 2880},
    }
    await site.tables.finish("sources", 2, job, outputs)
    await expect(site.row(2).get_by_text("current")).to_be_visible()
    await expect(site.cell(2, "ra")).to_have_text("187.7059, 187.71, 187.72, … (4)")
    link = site.cell(2, "map").get_by_role("link")
    await expect(link).to_have_text("▣ m 87.fits")
    await expect(link).to_have_attribute("href", f"/api/files/{digest}?name=m%2087.fits")
    await site.page.get_by_role("button", name="Elements").click()
    await expect(site.page).to_have_url(re.compile("view=elements"))
    line = site.page.locator('tr[data-key="2/1"]')
    # Identifiers that no JavaScript number can hold arrive whole.
    await expect(line.locator('td[data-column="source_id"]')).to_have_text("3907709379217411584")
    await expect(line.locator('td[data-column="flux"]')).to_have_text("0.00001")
    assert created["name"] == "sources"


async def test_outputs_of_an_earlier_run_stay_and_are_dimmed(site: Site) -> None:
    await site.worktable()
    await site.open("#table=sources")
    await site.page.get_by_role("button", name="Run row 1").click()
    job = await site.job_of("sources", 1)
    await site.tables.start("sources", 1, job)
    outputs = {"ra": [201.36], "flux": [1.0], "source_id": [1], "map": None}
    await site.tables.finish(
        "sources", 1, job, {**outputs, "map": {"class": "File", "location": f"sha256:{'1' * 64}", "basename": "m"}}
    )
    await expect(site.row(1).get_by_text("current")).to_be_visible()
    await site.cell(1, "threshold").dblclick()
    await site.page.get_by_label("threshold of row 1").fill("3.5")
    await site.page.keyboard.press("Enter")
    await expect(site.row(1).get_by_text("stale")).to_be_visible()
    await expect(site.cell(1, "ra")).to_have_text("201.36 (1)")
    await expect(site.cell(1, "ra")).to_have_class(re.compile("outdated"))
    assert (await site.tables.get("/tables/sources/rows/1"))["values"]["threshold"] == 3.5


async def test_cells_are_edited_by_keyboard(site: Site) -> None:
    await site.worktable()
    await site.open("#table=sources")
    await site.cell(1, "object").click()
    await site.page.keyboard.press("ArrowDown")
    await expect(site.cell(2, "object")).to_be_focused()
    await site.page.keyboard.press("Enter")
    field = site.page.get_by_label("object of row 2")
    await expect(field).to_be_focused()
    await expect(field).to_have_value("M 87")
    await field.fill("Virgo A")
    await site.page.keyboard.press("Enter")
    await expect(site.cell(2, "object")).to_have_text("Virgo A")
    await expect(site.cell(2, "object")).to_be_focused()
    await site.page.keyboard.press("ArrowRight")
    await site.page.keyboard.press("Enter")
    await site.page.get_by_label("threshold of row 2").fill("many")
    await site.page.keyboard.press("Enter")
    await expect(site.page.get_by_role("alert").filter(has_text="not a number")).to_be_visible()
    await site.page.keyboard.press("Escape")
    await expect(site.cell(2, "threshold")).to_have_text("5")
    row = await site.tables.get("/tables/sources/rows/2")
    assert (row["values"]["object"], row["values"]["threshold"]) == ("Virgo A", 5)


async def test_what_somebody_else_wrote_is_not_lost(site: Site) -> None:
    await site.worktable()
    await site.open("#table=sources")
    await site.cell(1, "object").dblclick()
    await site.page.get_by_label("object of row 1").fill("mine")
    await site.tables.patch("/tables/sources/rows/1", {"object": "theirs"})
    await site.page.keyboard.press("Enter")
    notice = site.page.get_by_role("alert").filter(has_text="changed by somebody else")
    await expect(notice).to_contain_text("object is theirs, and you wrote mine")
    assert (await site.tables.get("/tables/sources/rows/1"))["values"]["object"] == "theirs"
    await notice.get_by_role("button", name="Write mine").click()
    await expect(site.cell(1, "object")).to_have_text("mine")
    assert (await site.tables.get("/tables/sources/rows/1"))["values"]["object"] == "mine"


async def test_files_are_put_into_cells(site: Site, tmp_path: Path) -> None:
    await site.worktable()
    chosen = tmp_path / "cen a.fits"
    chosen.write_bytes(b"SIMPLE")
    await site.open("#table=sources")
    await site.cell(1, "image").dblclick()
    await site.page.get_by_label("image of row 1").set_input_files(chosen)
    await expect(site.cell(1, "image").get_by_role("link")).to_have_text("▣ cen a.fits")
    value = (await site.tables.get("/tables/sources/rows/1"))["values"]["image"]
    assert value["location"] == f"sha256:{hashlib.sha256(b'SIMPLE').hexdigest()}"


async def test_a_failure_tells_its_reason_and_its_log(site: Site) -> None:
    await site.worktable()
    await site.open("#table=sources")
    await site.page.get_by_role("button", name="Run stale (3)").click()
    job = await site.job_of("sources", 3)
    await site.tables.start("sources", 3, job)
    await site.page.get_by_role("button", name="Log of row 3").click()
    panel = site.page.get_by_role("complementary", name="Row")
    await site.files.more.put("reading <b>clean.fits</b>\n")
    await expect(panel.get_by_label("Log")).to_contain_text("reading <b>clean.fits</b>")
    site.files.logs[job] = "reading\ncannot open clean_pb.fits\n"
    await site.files.more.put(None)
    await site.tables.finish("sources", 3, job, None, outcome="permanentFail", error="cannot open clean_pb.fits")
    await expect(site.row(3).get_by_text("failed")).to_be_visible()
    await expect(site.row(3).get_by_text("cannot open clean_pb.fits")).to_be_visible()
    await expect(panel.get_by_label("Log")).to_contain_text("cannot open clean_pb.fits")
    await expect(panel.locator("ol.history li").first).to_contain_text("cannot open clean_pb.fits")
    await expect(site.page).to_have_url(re.compile("row=3"))
    await site.page.keyboard.press("Escape")
    await expect(panel).to_be_hidden()
    await site.page.get_by_role("button", name="Run failed (1)").click()
    assert await site.job_of("sources", 3) != job
    await site.page.get_by_role("button", name="Stop (3)").click()
    await expect(site.page.locator("tbody .status.cancelled")).to_have_count(3)


async def test_a_table_is_made_to_run_by_itself(site: Site) -> None:
    await site.worktable()
    await site.open("#table=sources")
    switch = site.page.get_by_role("switch", name="Automatic")
    await expect(switch).to_have_attribute("aria-checked", "false")
    await switch.click()
    await expect(switch).to_have_attribute("aria-checked", "true")
    await expect(site.page.locator("tbody .status.queued")).to_have_count(3)
    await site.page.reload()
    await expect(switch).to_have_attribute("aria-checked", "true")


async def test_pages_filters_and_order_stand_in_the_address(site: Site) -> None:
    await site.tables.plain("stars", {"object": "string", "ra": "double"})
    await site.tables.add("stars", *({"object": f"J{number:04}", "ra": number / 2} for number in range(250)))
    await site.open("#table=stars")
    page = site.page
    await expect(page.get_by_text("1\u2013100 of 250")).to_be_visible()
    await page.get_by_role("button", name="Next").click()
    await expect(page.get_by_text("101\u2013200 of 250")).to_be_visible()
    await expect(site.cell(101, "object")).to_have_text("J0100")
    await page.get_by_role("button", name=re.compile("^ra")).click()
    await page.get_by_role("button", name=re.compile("^ra")).click()
    await expect(page.locator("tbody tr").first).to_have_attribute("data-key", "250")
    await expect(page.get_by_role("columnheader", name=re.compile("^ra"))).to_have_attribute("aria-sort", "descending")
    await page.get_by_label("Filter", exact=True).fill("ra < 10")
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("20 of 250 rows")).to_be_visible()
    await expect(page.locator("tbody tr").first).to_have_attribute("data-key", "20")
    await expect(page).to_have_url(re.compile(r"filter=ra\+%3C\+10"))
    await page.reload()
    await expect(page.get_by_text("20 of 250 rows")).to_be_visible()
    await page.get_by_label("Filter", exact=True).fill("colour = red")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert").filter(has_text="no column 'colour'")).to_be_visible()
    await page.get_by_role("button", name="Remove the filter colour = red").click()
    await page.get_by_role("button", name="Remove the filter ra < 10").click()
    await expect(page.get_by_text("1\u2013100 of 250")).to_be_visible()


async def test_lost_live_updates_are_said(site: Site) -> None:
    await site.worktable()
    await site.open("#table=sources")
    await expect(site.page.get_by_text("live", exact=True).last).to_be_visible()
    assert site.stop_web is not None
    await site.page.route("**/api/changes", lambda route: route.abort())
    await site.stop_web()
    await expect(site.page.get_by_text("Live updates are lost")).to_be_visible()


async def test_a_table_that_is_not_there_is_said(site: Site) -> None:
    await site.open("#table=nothing")
    await expect(site.page.get_by_text("There is no table “nothing”")).to_be_visible()


@pytest.mark.parametrize("width", [800, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_nothing_sticks_out_and_text_can_be_read(site: Site, width: int, scheme: Any) -> None:
    await site.worktable(rows=30)
    await site.page.emulate_media(color_scheme=scheme)
    await site.page.set_viewport_size({"width": width, "height": 700})
    for address in ["", "#table=sources", "#table=sources&row=2"]:
        await site.open(address)
        await expect(site.page.locator(".stale").first).to_be_visible()
        assert await site.page.evaluate("document.documentElement.scrollWidth") == width
        assert await site.page.evaluate("document.documentElement.scrollHeight") == 700
        assert await site.page.evaluate(_POOR_CONTRAST) == []


# WCAG 2.2, 1.4.3, for the text that stands directly on a colour.
_POOR_CONTRAST = """() => {
  const channel = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const ground = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const colour = parse(getComputedStyle(each).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const element of document.querySelectorAll("body *:not(svg *)")) {
    if (![...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim())) continue;
    if (!element.checkVisibility() || element.closest("button:disabled, noscript, option")) continue;
    const [a, b] = [light(parse(getComputedStyle(element).color)), light(ground(element))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) poor.push(`${element.textContent.slice(0, 30)}: ${contrast.toFixed(2)}`);
  }
  return poor;
}"""
