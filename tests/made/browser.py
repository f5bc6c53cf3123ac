"""Control a headless Chromium from a test, by selenium."""

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from selenium import webdriver

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
DRIVER = shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no Chromium with chromedriver is installed (apt-get install chromium-driver)"
)
ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1300,1000"]


class Page:
    """An open page."""

    def __init__(self, driver: webdriver.Chrome):
        self._driver = driver

    def open(self, page: Path | str) -> None:
        """Open a file or an address."""
        self._driver.get(page if isinstance(page, str) else page.resolve().as_uri())

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
        self.wait_for("return document.querySelector(arguments[0])", control).send_keys(str(path))

    def drag(self, control: str, *points: tuple[float, float]) -> None:
        """Press the mouse at the first point of an element, move it along the other points, and release it. Points are
        fractions of the element's width and height; one point alone is a click.
        """
        element = self.run("return document.querySelector(arguments[0])", control)
        self.run("arguments[0].scrollIntoView({block: 'center'})", element)
        width, height = element.size["width"], element.size["height"]
        mouse = webdriver.ActionChains(self._driver, duration=50)
        for number, (x, y) in enumerate(points):
            mouse.move_to_element_with_offset(element, round((x - 0.5) * width), round((y - 0.5) * height))
            if number == 0:
                mouse.click_and_hold()
        mouse.release().perform()

    def resize(self, width: int, height: int) -> None:
        """Show the page on a screen of `width` x `height` pixels; one narrower than 500 is a phone."""
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self._driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)

    def run(self, script: str, *arguments: Any) -> Any:
        """Run the body of a JavaScript function; returns its value."""
        return self._driver.execute_script(script, *arguments)

    def errors(self) -> list[str]:
        """Errors that the browser reported since the last call, such as failed scripts and missing files."""
        return [entry["message"] for entry in self._driver.get_log("browser") if entry["level"] == "SEVERE"]


@pytest.fixture(scope="module")
def chromium():
    with browser() as page:
        yield page


@contextlib.contextmanager
def browser() -> Iterator[Page]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for argument in ARGUMENTS:
        options.add_argument(argument)
    with patch.dict(os.environ, no_proxy="localhost,127.0.0.1"):  # the driver listens on this machine
        driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
        try:
            yield Page(driver)
        finally:
            driver.quit()
