"""demo.py: the page in a real browser."""

import base64
import importlib.util
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from common.drawing import QUERY
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
    """Of a page that runs in a process of its own, whose console has no traceback at the end."""
    network = make_network(tmp_path_factory.mktemp("net") / "net.pth")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, ROOT / "inference/demo.py", "--data_path", data_dir, "--ckpt_path", network]
    command += ["--port", str(port), "--device", "cpu"]
    console, uploads = tmp_path_factory.mktemp("console") / "console.txt", tmp_path_factory.mktemp("uploads")
    with console.open("w") as file:
        server = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env={**os.environ, "GRADIO_TEMP_DIR": str(uploads)}
        )
    try:
        while "Running on" not in console.read_text():
            assert server.poll() is None, console.read_text()
            time.sleep(0.1)
        assert f"{network}: tiny network of 96 pixels" in console.read_text()
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.terminate()
        server.wait()
    assert "Traceback" not in console.read_text()


def visit(page: Page, address: str) -> None:
    page.open(address)
    page.wait_for("return document.querySelector('#own_query input')")
    page.errors()  # what leaving the former page has cut off


def answer(page: Page, place: str, former: str = "") -> str:
    """The content of the answer once it differs from a former one."""
    script = "const views = document.querySelector(arguments[0] + ' .views')?.innerHTML;"
    return page.wait_for(f"{script} return views && views != arguments[1] && views", place, former)


def press(page: Page, text: str) -> None:
    buttons = "[...document.querySelectorAll('button')].filter(button => button.innerText.trim() == arguments[0])"
    page.run(f"{buttons}.forEach(button => button.click())", text)  # tabs have hidden twins


def value(page: Page, control: str) -> str:
    return page.run("return document.querySelector(arguments[0]).value", control)


def drop(page: Page, place: str, path: Path) -> None:
    """A file onto one of the places for pictures, and wait until the page has it."""
    source = "document.querySelector(arguments[0] + ' img')?.src"
    former = page.run(f"return {source}", f"#{place}")
    page.upload(f"#{place} input[type=file]", path)
    page.wait_for(f"return {source} && {source} != arguments[1]", f"#{place}", former)


def drop_query(page: Page, path: Path) -> None:
    """And wait until a box can be drawn on it."""
    source = "document.querySelector('#canvas img')?.src"
    former = page.run(f"return {source}")
    drop(page, "own_query", path)
    page.wait_for(f"return {source} && {source} != arguments[0]", former)


def draw_box(page: Page, *corners: tuple[float, float]) -> None:
    for corner in corners:
        former = page.run("return document.querySelector('#canvas img').src")
        page.drag("#canvas img", corner)
        page.wait_for("return document.querySelector('#canvas img').src != arguments[0]", former)


def told(page: Page, text: str) -> None:
    """Wait until the answer is this text, and nothing else."""
    page.wait_for("return document.querySelector('#answer').innerText.trim() == arguments[0]", text)


def pictures(content: str) -> list[np.ndarray]:
    """Those of an answer, and last the mask to save."""
    data = [base64.b64decode(text) for text in re.findall(r'base64,([^"]*)"', content)]
    return [cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_UNCHANGED) for picture in data]


def disc(path: Path, side: int, gray: int = 150) -> Path:
    """A picture of a blue disc, right and below its middle."""
    image = np.full((side, side, 3), gray, np.uint8)
    cv2.circle(image, (round(0.7 * side), round(0.65 * side)), round(0.2 * side), (200, 60, 20), -1)
    cv2.imwrite(str(path), image)
    return path


DISC = (0.48, 0.42), (0.92, 0.88)  # corners of a box around it


@needs_browser
@needs_gradio
def test_a_visitor_looks_through_a_take(address, data_dir, chromium):
    page = chromium
    visit(page, address)
    press(page, "A take")
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
def test_a_box_gives_the_object_inside_it_in_pictures_of_every_size(address, chromium, tmp_path):
    page = chromium
    visit(page, address)
    content = ""
    for side in (704, 1408, 2816):
        drop_query(page, disc(tmp_path / f"{side}.png", side))
        drop(page, "own_target", disc(tmp_path / f"target{side}.png", side))
        draw_box(page, *DISC)
        content = answer(page, "#answer", content)
        query, _, mask = pictures(content)
        yellow = abs(query.astype(int) - QUERY[::-1]).max(axis=2) < 60
        found = np.array([(at.min(), at.max()) for at in np.nonzero(yellow)]) / query.shape[0]
        assert abs(found - [(0.45, 0.85), (0.5, 0.9)]).max() < 0.03
        assert mask.shape == (side, side) and set(np.unique(mask)) <= {0, 255}  # as large as the target itself
    assert page.errors() == []


@needs_browser
@needs_gradio
def test_no_answer_stays_that_is_of_other_pictures(address, chromium, tmp_path):
    page = chromium
    visit(page, address)
    first, second = disc(tmp_path / "first.png", 500), disc(tmp_path / "second.png", 500, 60)
    (tmp_path / "text.jpg").write_text("no picture")
    drop_query(page, first)
    drop(page, "own_target", SAMPLE / "target.jpg")
    draw_box(page, *DISC)
    content = answer(page, "#answer")
    page.run("document.querySelector('#own_target button[aria-label=\"Remove Image\"]').click()")
    alone = answer(page, "#answer", content)
    assert alone.count("<img") == 1 and "found" not in alone
    drop(page, "own_target", tmp_path / "text.jpg")
    told(page, "the target picture text.jpg is no picture that can be read; give JPEG or PNG")
    drop(page, "own_target", SAMPLE / "target.jpg")
    answer(page, "#answer")
    draw_box(page, DISC[0])  # the first corner of another object
    told(page, "")

    draw_box(page, DISC[1])
    drop_query(page, second)  # while the first is being answered
    drop(page, "own_target", SAMPLE / "query.jpg")  # the mask of the first must not be asked about in it
    draw_box(page, *DISC)
    query, *_ = pictures(answer(page, "#answer"))
    assert abs(int(query[10, 10, 0]) - 60) < 5
    assert page.errors() == []


@needs_browser
@needs_gradio
def test_visitors_ask_by_painting_and_by_samples_and_do_not_see_each_others(address, chromium):
    page = chromium
    visit(page, address)
    drop_query(page, SAMPLE / "query.jpg")
    drop(page, "own_target", SAMPLE / "target.jpg")
    press(page, "Paint")
    page.wait_for("return document.querySelector('#editor canvas')")
    page.wait_for("return document.querySelector('#editor').innerText.includes('%')")
    for _ in range(20):  # the editor takes a while until it listens
        page.drag("#editor canvas", (0.45, 0.5), (0.5, 0.6), (0.55, 0.5))
        press(page, "Find it")
        text = "const text = document.querySelector('#answer').innerText;"
        if "found" in page.wait_for(f"{text} return (text.includes('found') || text.includes('missing')) && text"):
            break
    painted = answer(page, "#answer")
    assert painted.count("<img") == 2

    with browser() as other:
        visit(other, address)
        drop(other, "own_target", SAMPLE / "target.jpg")
        press(other, "Paint")
        press(other, "Find it")
        told(other, "the query picture is missing; give it first")

    page.run("document.querySelectorAll('tr.tr-body')[1].querySelector('td').click()")
    sample = answer(page, "#answer", painted)
    assert sample.count("<img") == 2 and pictures(sample)[0].shape != pictures(painted)[0].shape
    assert page.errors() == []


@needs_gradio
def test_a_taken_port_is_named(tmp_path):
    network = make_network(tmp_path / "net.pth")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} is taken; give --port"):
            demo.main(["--ckpt_path", str(network), "--device", "cpu", "--port", str(port)])


def test_without_gradio_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(demo, "gr", None)
    with pytest.raises(UserError, match="gradio is not installed; run pip install -r requirements-demo.txt"):
        demo.main([])


def test_names_cannot_break_the_page():
    panel = demo.Panel(np.zeros((4, 4, 3), np.uint8), '<b>"&', 0.5, 0.25)
    assert "&lt;b&gt;&quot;&amp;" in demo.as_html([panel]) and "<b>&quot;" not in demo.as_html([panel])
