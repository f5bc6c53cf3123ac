"""Control a headless Chromium from a test, through the protocol of chromedriver."""

import contextlib
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
DRIVER = shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no Chromium with chromedriver is installed (apt-get install chromium-driver)"
)
ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1300,1000"]


class Page:
    """An open page."""

    def __init__(self, session: str):
        self._session = session

    def open(self, page: Path | str) -> None:
        """Open a file or an address."""
        _post(f"{self._session}/url", {"url": page if isinstance(page, str) else page.resolve().as_uri()})

    def open_report(self, folder: Path) -> int:
        """Open the page of a folder and load all its pictures; returns the number of their files."""
        self.open(folder / "index.html")
        self.run("document.querySelectorAll('img').forEach(image => image.loading = 'eager')")
        self.run("return Promise.all([...document.images].map(image => image.decode().catch(() => null)))")
        widths = dict(self.run("return [...document.images].map(image => [image.src, image.naturalWidth])"))
        assert all(widths.values()), f"{[*widths.values()].count(0)} of {len(widths)} pictures did not load"
        return len(widths)

    def shown(self) -> list[dict[str, str]]:
        """The data attributes of the gallery's cards that are not hidden, in their order."""
        return self.run("return [...document.querySelectorAll('.card:not([hidden])')].map(card => ({...card.dataset}))")

    def set(self, control: str, value: str) -> None:
        """Set a control of the gallery to a value, as a user would."""
        self.run(
            "const control = document.querySelector(`.controls [name=${arguments[0]}]`);"
            "control.value = arguments[1]; control.dispatchEvent(new Event('input', {bubbles: true}));",
            control,
            value,
        )

    def wait_for(self, script: str, *arguments: Any, seconds: float = 300) -> Any:
        """Run the body of a JavaScript function again and again until it returns a true value; returns this value."""
        end = time.monotonic() + seconds
        while not (value := self.run(script, *arguments)):
            assert time.monotonic() < end, f"not after {seconds} s: {script}"
            time.sleep(0.05)
        return value

    def upload(self, control: str, path: Path) -> None:
        """Wait for an <input type=file>, named by its CSS selector, and give it a file."""
        self.wait_for("return document.querySelector(arguments[0]) != null", control)
        element = _post(f"{self._session}/element", {"using": "css selector", "value": control})
        _post(f"{self._session}/element/{next(iter(element.values()))}/value", {"text": str(path)})

    def drag(self, control: str, *points: tuple[float, float]) -> None:
        """Press the mouse at the first point of an element, move it along the other points, and release it. Points are
        fractions of the element's width and height; one point alone is a click.
        """
        self.run("document.querySelector(arguments[0]).scrollIntoView({block: 'center'})", control)
        box = "const box = document.querySelector(arguments[0]).getBoundingClientRect();"
        left, top, width, height = self.run(f"{box} return [box.left, box.top, box.width, box.height]", control)
        moves = [
            {"type": "pointerMove", "x": round(left + x * width), "y": round(top + y * height), "duration": 50}
            for x, y in points
        ]
        actions = [moves[0], {"type": "pointerDown", "button": 0}, *moves[1:], {"type": "pointerUp", "button": 0}]
        mouse = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": actions}
        _post(f"{self._session}/actions", {"actions": [mouse]})

    def resize(self, width: int, height: int) -> None:
        """Show the page on a screen of `width` x `height` pixels; one narrower than 500 is a phone."""
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        call = {"cmd": "Emulation.setDeviceMetricsOverride", "params": screen}
        _post(f"{self._session}/goog/cdp/execute", call)

    def run(self, script: str, *arguments: Any) -> Any:
        """Run the body of a JavaScript function; returns its value."""
        return _post(f"{self._session}/execute/sync", {"script": script, "args": arguments})

    def errors(self) -> list[str]:
        """Errors that the browser reported since the last call, such as failed scripts and missing files."""
        entries = _post(f"{self._session}/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]


@pytest.fixture(scope="module")
def chromium():
    with browser() as page:
        yield page


@contextlib.contextmanager
def browser() -> Iterator[Page]:
    with (
        tempfile.TemporaryDirectory() as profile,
        subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as driver,
    ):
        try:
            root = f"http://127.0.0.1:{_port(driver)}/session"
            options = {"binary": CHROMIUM, "args": [*ARGUMENTS, f"--user-data-dir={profile}"]}
            wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
            session = f"{root}/{_post(root, {'capabilities': {'alwaysMatch': wanted}})['sessionId']}"
            try:
                yield Page(session)
            finally:
                _request("DELETE", session)
        finally:
            driver.terminate()


def _port(driver: subprocess.Popen) -> int:
    """The port that chromedriver chose and prints."""
    for line in driver.stdout:
        if "started successfully on port" in line:
            return int(line.rstrip().rstrip(".").rpartition(" ")[2])
    raise RuntimeError("chromedriver ended before it listened")


def _post(url: str, body: dict) -> Any:
    return _request("POST", url, body)


def _request(method: str, url: str, body: dict | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as response:
        return json.loads(response.read())["value"]
