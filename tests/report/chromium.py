"""Chromium for tests of pages, driven over the WebDriver protocol by the standard library alone; loaded by its path."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
needed = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs Chromium and chromedriver (Debian: apt install chromium chromium-driver)"
)

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--window-size=1200,900",
]  # fmt: skip
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
HOSTILE = [
    '<img src=x onerror="window.hit=1;alert(1)">',
    "</script><script>window.hit=1</script>",
    "<!--<script>window.hit=1",
    "javascript:window.hit=1",
    "\u202egnirts eht esrever\u2028\u0000",
    '" onmouseover="window.hit=1" x=\'{{7*7}}${window.hit=1}',
    "<svg onload=window.hit=1><style>@import 'https://example.invalid/x.css'</style>",
    "http://example.invalid/pixel.png",
]


class Browser:
    """One tab of a headless Chromium."""

    def __init__(self, port: int, profile: Path) -> None:
        self._open = build_opener(ProxyHandler({})).open
        self._root = f"http://127.0.0.1:{port}"
        options = {"binary": CHROMIUM, "args": [*FLAGS, f"--user-data-dir={profile}"]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}
        wanted["unhandledPromptBehavior"] = "ignore"  # a dialog must be seen, not closed
        self._root += f"/session/{self._send('POST', '/session', {'capabilities': {'alwaysMatch': wanted}})['sessionId']}"

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = Request(self._root + path, data, {"Content-Type": "application/json"}, method=method)
        with self._open(request, timeout=60) as reply:
            return json.load(reply)["value"]

    def visit(self, page: Path) -> None:
        self.log("performance")
        self.log("browser")
        self._send("POST", "/url", {"url": page.as_uri()})

    def js(self, code: str, *arguments: Any) -> Any:
        return self._send("POST", "/execute/sync", {"script": code, "args": arguments})

    def find(self, selector: str) -> str:
        return str(self._send("POST", "/element", {"using": "css selector", "value": selector})[ELEMENT])

    def click(self, selector: str) -> None:
        self._send("POST", f"/element/{self.find(selector)}/click", {})

    def type(self, selector: str, text: str) -> None:
        self._send("POST", f"/element/{self.find(selector)}/value", {"text": text})

    def choose(self, selector: str, label: str) -> None:
        code = "for (const o of arguments[0].options) if (o.label === arguments[1]) return o"
        found = self.js(code, {ELEMENT: self.find(selector)}, label)
        self._send("POST", f"/element/{found[ELEMENT]}/click", {})

    def press(self, keys: str) -> None:
        """Press keys wherever the focus is."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._send("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def texts(self, selector: str) -> list[str]:
        """Text of the elements that are shown."""
        found = "[...document.querySelectorAll(arguments[0])].filter(e => e.checkVisibility())"
        return list(self.js(f"return {found}.map(e => e.textContent.trim())", selector))

    def log(self, kind: str) -> list[dict[str, Any]]:
        return list(self._send("POST", "/se/log", {"type": kind}))

    def devtools(self, command: str, **params: Any) -> Any:
        return self._send("POST", "/goog/cdp/execute", {"cmd": command, "params": params})

    def size(self, width: int, height: int) -> None:
        self.devtools("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def scheme(self, name: str) -> None:
        self.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def has_dialog(self) -> bool:
        try:
            self._send("GET", "/alert/text")
        except OSError:  # 404: there is none
            return False
        return True

    def requests(self) -> list[str]:
        """URLs that the page has asked for since `visit`, itself included."""
        events = [json.loads(entry["message"])["message"] for entry in self.log("performance")]
        return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]

    def quit(self) -> None:
        self._send("DELETE", "")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    folder = tmp_path_factory.mktemp("chromium")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert DRIVER
    with subprocess.Popen([DRIVER, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as driver:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        one = Browser(port, folder)
        yield one
        one.quit()
        driver.terminate()
