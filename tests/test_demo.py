"""demo.py: the page in a real browser."""

import importlib.util
import os
import socket
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from common.errors import UserError
from formats.processed import ProcessedTake
from inference import demo
from inference.interactive import object_at
from tests.browser import Page, browser, chromium, needs_browser
from tests.made import EGO, ROOT
from tests.made.networks import make_network
from tests.made.processed import make_take

__all__ = ["chromium"]  # a fixture
needs_gradio = pytest.mark.skipif(
    importlib.util.find_spec("gradio") is None, reason="gradio is not installed (pip install -r requirements-demo.txt)"
)
FRAMES = [0, 30, 60]
LAYOUT = {"cup_0": {EGO: FRAMES, "cam01": FRAMES, "cam02": FRAMES}, "lid_0": {EGO: FRAMES, "cam02": [30]}}
SAMPLE = ROOT / "assets/samples/jar"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "processed"
    for seed, uid in enumerate(("take-a", "take-b")):
        make_take(folder, uid, LAYOUT, seed)
    return folder


@pytest.fixture(scope="module")
def address(tmp_path_factory, data_dir) -> str:
    """Of a page that runs in a process of its own."""
    network = make_network(tmp_path_factory.mktemp("net") / "net.pth")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, ROOT / "inference/demo.py", "--data_path", data_dir, "--ckpt_path", network]
    command += ["--port", str(port), "--device", "cpu"]
    environment = {**os.environ, "GRADIO_TEMP_DIR": str(tmp_path_factory.mktemp("uploads"))}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        try:
            lines = []
            for line in server.stdout:
                lines.append(line)
                if "Running on" in line:
                    break
            assert server.poll() is None, "".join(lines)
            assert f"{network}: tiny network of 96 pixels" in lines[0]
            yield f"http://127.0.0.1:{port}/"
        finally:
            server.terminate()


def answer(page: Page, place: str, former: str = "") -> str:
    """The content of the answer once it differs from a former one."""
    script = "const views = document.querySelector(arguments[0] + ' .views')?.innerHTML;"
    return page.wait_for(f"{script} return views && views != arguments[1] && views", place, former)


def press(page: Page, text: str) -> None:
    buttons = "[...document.querySelectorAll('button')].filter(button => button.innerText.trim() == arguments[0])"
    page.run(f"{buttons}.forEach(button => button.click())", text)  # tabs have hidden twins


def value(page: Page, control: str) -> str:
    return page.run("return document.querySelector(arguments[0]).value", control)


@needs_browser
@needs_gradio
def test_a_visitor_looks_through_a_take(address, data_dir, chromium):
    page = chromium
    page.open(address)
    page.wait_for("return document.querySelectorAll('#targets img').length == 2")
    text = page.run("return document.querySelector('#targets').innerText")
    assert "cam01 visible" in text and "cam02 visible" in text and "IoU" not in text

    first = answer(page, "#targets")
    page.run(
        "const slider = document.querySelector('#frame input[type=range]');"
        "slider.value = 30; slider.dispatchEvent(new Event('input', {bubbles: true}))"
    )
    second = answer(page, "#targets", first)
    page.run("document.querySelector('#truth input').click()")
    third = answer(page, "#targets", second)
    assert third.count("IoU") == 2

    take = ProcessedTake.read(data_dir, "take-a")
    height, width = cv2.imread(str(take.frame_path(EGO, 30))).shape[:2]
    row, col = next(
        (row, col)
        for row in range(5, height)
        for col in range(5, width)
        if all(object_at(take, EGO, 30, (col + d, row + d)) == "lid_0" for d in (0, 3))
    )
    page.drag("#query img", ((col + 1) / width, (row + 1) / height))
    answer(page, "#targets", third)
    assert value(page, "#object input") == "lid_0"

    press(page, "Play")
    page.wait_for("return document.querySelector('#frame input[type=range]').value == 60")
    page.wait_for("return document.querySelector('#frame input[type=range]').value == 0")
    press(page, "Stop")
    assert page.errors() == []


@needs_browser
@needs_gradio
def test_a_visitor_asks_about_pictures_by_clicks_by_painting_and_by_a_sample(address, chromium, tmp_path):
    page = chromium
    page.open(address)
    page.wait_for("return document.querySelectorAll('#targets img').length == 2")
    press(page, "Your pictures")
    (tmp_path / "text.jpg").write_text("no picture")
    page.upload("#own_query input[type=file]", tmp_path / "text.jpg")
    page.wait_for("return document.body.innerText.includes('text.jpg')")
    page.open(address)
    page.wait_for("return document.querySelectorAll('#targets img').length == 2")
    page.errors()  # leaving the page has cut off what it waited for
    press(page, "Your pictures")
    for view in ("query", "target"):
        page.upload(f"#own_{view} input[type=file]", SAMPLE / f"{view}.jpg")
        page.wait_for("return document.querySelector(arguments[0])?.naturalWidth", f"#own_{view} img")
    page.drag("#own_query img", (0.58, 0.52))
    clicked = answer(page, "#answer")
    assert clicked.count("<img") == 2

    with browser() as other:  # has nothing of the first visitor's
        other.open(address)
        other.wait_for("return document.querySelectorAll('#targets img').length == 2")
        press(other, "Your pictures")
        other.upload("#own_target input[type=file]", SAMPLE / "target.jpg")
        other.wait_for("return document.querySelector('#own_target img')?.naturalWidth")
        press(other, "Paint it")
        press(other, "Find it")
        other.wait_for("return document.body.innerText.includes('query picture is missing')")
        assert other.run("return document.querySelector('#answer .views')") is None

    press(page, "Paint it")
    page.wait_for("return document.querySelector('#editor canvas')")
    page.wait_for("return document.querySelector('#editor').innerText.includes('%')")
    page.drag("#editor canvas", (0.45, 0.5), (0.5, 0.6), (0.55, 0.5))
    press(page, "Find it")
    painted = answer(page, "#answer", clicked)
    page.run("document.querySelectorAll('tr.tr-body')[1].querySelector('td').click()")
    assert answer(page, "#answer", painted).count("<img") == 2
    assert page.errors() == []


def test_without_gradio_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(demo, "gr", None)
    with pytest.raises(UserError, match="gradio is not installed; run pip install -r requirements-demo.txt"):
        demo.main([])


def test_names_cannot_break_the_page():
    view = demo.View(np.zeros((4, 4, 3), np.uint8), '<b>"&', 0.5, 0.25)
    assert "&lt;b&gt;&quot;&amp;" in demo.as_html([view]) and "<b>&quot;" not in demo.as_html([view])
