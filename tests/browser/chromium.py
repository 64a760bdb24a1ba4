"""A headless Chromium driven over a pipe (its DevTools protocol), with nothing but the standard library.

Messages are JSON that ends in a zero byte; the browser reads them from its file descriptor 3 and answers on 4. What a page
reports on its own (console, errors, violations of its content policy) is collected.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BINARY = shutil.which("chromium") or shutil.which("google-chrome")
_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
]
# What the page complains of: console calls, uncaught errors, and the browser's own log (content policy, blocked loads).
_COMPLAINTS = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded", "Page.javascriptDialogOpening")


class Browser:
    """One page of one browser. `complaints` are the messages of the page since it was opened."""

    def __init__(self, send: int, receive: int) -> None:
        self._send, self._receive, self._buffer, self._count = send, receive, b"", 0
        self._session: str | None = None
        self.complaints: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command and its result; an error of the browser is a RuntimeError."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._send, json.dumps(message).encode() + b"\0")
        while True:
            found = self._read()
            if found.get("id") == self._count:
                if "error" in found:
                    raise RuntimeError(f"{method}: {found['error']}")
                return found["result"]

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            block = os.read(self._receive, 1 << 16)
            if not block:
                raise RuntimeError("the browser is gone")
            self._buffer += block
        message, self._buffer = self._buffer.split(b"\0", 1)
        found = json.loads(message)
        if found.get("method") in _COMPLAINTS:
            self.complaints.append(f"{found['method']}: {json.dumps(found['params'])[:400]}")
            if found["method"] == "Page.javascriptDialogOpening":
                self.call("Page.handleJavaScriptDialog", accept=True)
        return found

    def open(self, path: Path, width: int, height: int = 900, dark: bool = False) -> None:
        """Loads a file at a window's size and waits for its load event."""
        self.complaints.clear()
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=path.resolve().as_uri())
        while self._read().get("method") != "Page.loadEventFired":
            pass

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, run beside the page (the page's own policy does not hold it)."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(str(found["exceptionDetails"]))
        return found["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """The whole page as a PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]))

    def pdf(self, path: Path) -> None:
        """The page as it is printed on A4."""
        self.call("Emulation.setEmulatedMedia", media="", features=[])
        data = self.call("Page.printToPDF", paperWidth=8.27, paperHeight=11.69, printBackground=False)["data"]
        path.write_bytes(base64.b64decode(data))


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A browser of its own with a fresh profile folder; it ends with the block."""
    assert BINARY is not None
    to_browser, send = os.pipe()
    receive, from_browser = os.pipe()

    def wire() -> None:  # the browser wants its pipe at 3 and 4; both may be taken by the other's number
        first, second = os.dup(to_browser), os.dup(from_browser)
        os.dup2(first, 3)
        os.dup2(second, 4)

    command = [BINARY, *_FLAGS, f"--user-data-dir={profile}", "about:blank"]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        preexec_fn=wire, close_fds=False,
    )
    try:
        os.close(to_browser)
        os.close(from_browser)
        page = Browser(send, receive)
        yield page
        page._session = None
        page.call("Browser.close")
    finally:
        os.close(send)
        os.close(receive)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
