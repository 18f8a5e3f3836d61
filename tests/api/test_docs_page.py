"""The rendered description in a real browser: it asks for the key, shows every operation and runs nothing."""

import asyncio
import re
import shutil
from html import unescape
from pathlib import Path

import pytest

from node.platform.apikeys import Role
from tests.api.door import Door
from tests.patience import stretched

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
_LIMIT_S = 60
_PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def browser() -> str:
    """The path of a Chromium."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.fail(f"This test needs a Chromium; none of {', '.join(BROWSERS)} is installed.")
    return found


async def run(browser: str, profile: Path, *arguments: str) -> bytes:
    """Run the browser once and return what it printed."""
    process = await asyncio.create_subprocess_exec(
        browser,
        *FLAGS,
        f"--user-data-dir={profile}",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(stretched(_LIMIT_S)):
            out, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, said.decode()[-2000:]
    return out


def address(door: Door, role: Role) -> str:
    host = door.base_url.removeprefix("http://")
    return f"http://reader:{door.keys[role].text}@{host}/api/docs"


def served(door: Door, route: str, status: int) -> int:
    """How often the node answered a route so."""
    text = door.node.metrics.render().decode()
    found = re.search(
        rf'hotline_http_requests_total{{method="GET",route="{re.escape(route)}",status="{status}"}} (\d+)', text
    )
    return 0 if found is None else int(found[1])


async def test_the_page_shows_every_operation_and_schema(door: Door, browser: str, tmp_path: Path) -> None:
    dom = unescape((await run(browser, tmp_path / "profile", "--dump-dom", address(door, Role.READER))).decode())
    document = (await door.ask("GET", "/api/openapi.json")).json()
    words = re.sub(r"<[^>]*>", "", dom)
    for path, operations in document["paths"].items():
        assert path in words
        for operation in operations.values():
            assert operation["summary"] in words
            assert f'id="{operation["operationId"]}"' in dom
    for name in document["components"]["schemas"]:
        assert f'id="schema-{name}"' in dom
    assert f"<title>{document['info']['title']}</title>" in dom
    # The browser asked for the stylesheet with the key, and for nothing else of ours.
    assert served(door, "/api/docs", 200) == 1
    assert served(door, "/api/docs.css", 200) == 1
    assert "<script" not in dom


async def test_the_page_is_drawn_with_its_stylesheet(door: Door, browser: str, tmp_path: Path) -> None:
    """A plain page of the same size compresses to far less: what is drawn is no blank sheet."""
    for width in (1280, 420):
        picture = tmp_path / f"docs-{width}.png"
        where = (f"--screenshot={picture}", f"--window-size={width},1600")
        await run(browser, tmp_path / "profile", *where, address(door, Role.READER))
        raw = picture.read_bytes()
        assert raw.startswith(_PNG)
        assert int.from_bytes(raw[16:20], "big") == width
        assert len(raw) > 40_000
    assert served(door, "/api/docs.css", 200) >= 1


async def test_without_a_key_the_browser_shows_nothing_of_it(door: Door, browser: str, tmp_path: Path) -> None:
    dom = await run(browser, tmp_path / "profile", "--dump-dom", f"{door.base_url}/api/docs")
    assert b"post_api_v1_reports" not in dom
    assert served(door, "/api/docs", 200) == 0
    assert served(door, "/api/docs", 401) == 1
