"""A real browser without a window, driven over its debugging protocol (CDP)."""

import asyncio
import base64
import itertools
import json
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.wait import DEADLINE

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
"""Where it is; empty: there is none."""


class Tab:
    """One page of a browser."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self.problems: list[str] = []
        """What the browser has complained of: errors of scripts, refused content, failed loads."""
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for message in self._socket:
            said = json.loads(message.data)
            if (waiting := self._answers.pop(said.get("id", 0), None)) and not waiting.done():
                waiting.set_result(said)
            elif said.get("method") == "Runtime.exceptionThrown":
                self.problems.append(str(said["params"]["exceptionDetails"]))
            elif said.get("method") == "Log.entryAdded":
                entry = said["params"]["entry"]
                self.problems.append(f"{entry['level']}: {entry['text']} {entry.get('url', '')}")

    async def do(self, method: str, **params: Any) -> dict[str, Any]:
        """A command of the protocol."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        async with asyncio.timeout(DEADLINE):
            said = await answer
        assert "error" not in said, (method, said)
        found: dict[str, Any] = said["result"]
        return found

    async def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        said = await self.do(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in said, (script, said["exceptionDetails"])
        return said["result"].get("value")

    async def until(self, script: str, seconds: float = DEADLINE) -> Any:
        """The value of an expression once it is true."""
        ends = time.monotonic() + seconds
        while True:
            with suppress(AssertionError):  # between two pages
                if value := await self.run(script):
                    return value
            if time.monotonic() > ends:
                text = await self.run("document.body.innerText")
                raise AssertionError(f"not so in time: {script}\n{text[:3000]}")
            await asyncio.sleep(0.05)

    async def open(self, url: str) -> None:
        """Go to a page, and wait for it."""
        await self.do("Page.navigate", url=url)
        await self.until("location.href !== 'about:blank' && document.readyState === 'complete'")

    async def fill(self, selector: str, value: str) -> None:
        """Write into an input, or choose of a choice."""
        await self.until(f"!!document.querySelector({json.dumps(selector)})")
        await self.run(
            f"(() => {{ const box = document.querySelector({json.dumps(selector)});"
            f" box.value = {json.dumps(value)}; }})()"
        )

    async def click(self, selector: str) -> None:
        """Click on the first that matches."""
        await self.until(f"!!document.querySelector({json.dumps(selector)})")
        await self.run(f"document.querySelector({json.dumps(selector)}).click()")

    async def press(self, text: str) -> None:
        """Click on the link, button or summary with this text."""
        found = (
            "[...document.querySelectorAll('a, button, summary')]"
            f".find((one) => one.textContent.trim() === {json.dumps(text)})"
        )
        await self.until(f"!!{found}")
        await self.run(f"{found}.click()")

    async def look(self, width: int, *, dark: bool = False) -> None:
        """See pages like this."""
        await self.do("Emulation.setDeviceMetricsOverride", width=width, height=900,
                      deviceScaleFactor=1, mobile=False)  # fmt: skip
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.do("Emulation.setEmulatedMedia", features=[theme])

    async def picture(self, path: Path) -> None:
        """Write a picture of the whole page."""
        shot = await self.do("Page.captureScreenshot", captureBeyondViewport=True)
        await asyncio.to_thread(path.write_bytes, base64.b64decode(shot["data"]))


@asynccontextmanager
async def browser(profile: Path) -> AsyncIterator[Tab]:
    """A browser with one page; `profile` is a new folder."""
    arguments = ("--headless=new", "--remote-debugging-port=0", "--no-sandbox", "--disable-gpu")
    process = await asyncio.create_subprocess_exec(
        CHROMIUM, *arguments, "--no-first-run", "--disable-dev-shm-usage",
        "--disable-background-networking", f"--user-data-dir={profile}", "about:blank",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with aiohttp.ClientSession() as http:
            page = await _page(http, profile / "DevToolsActivePort")
            async with http.ws_connect(page, max_msg_size=0) as socket:
                tab = Tab(socket)
                for domain in ("Page", "Runtime", "Log"):
                    await tab.do(f"{domain}.enable")
                yield tab
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _page(http: aiohttp.ClientSession, file: Path) -> str:
    """Where the page's socket is, once the browser has said so."""
    ends = time.monotonic() + DEADLINE
    while time.monotonic() < ends:
        with suppress(OSError, IndexError, aiohttp.ClientError, StopIteration):
            port = (await asyncio.to_thread(file.read_text)).splitlines()[0]
            async with http.get(f"http://127.0.0.1:{port}/json/list") as answer:
                pages = await answer.json(content_type=None)
            url: str = next(p for p in pages if p["type"] == "page")["webSocketDebuggerUrl"]
            return url
        await asyncio.sleep(0.05)
    raise AssertionError("the browser does not start")
