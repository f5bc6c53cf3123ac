"""demo.py: what its page answers, to whom, and how it looks in a real browser."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from common.drawing import PREDICTION
from common.errors import UserError
from inference import demo
from inference.demo import OPACITY, PAINT_SIDE, find
from tests.made import ROOT
from tests.made.browser import Page, needs_browser

needs_gradio = pytest.mark.skipif(
    importlib.util.find_spec("gradio") is None, reason="gradio is not installed (pip install -r requirements-demo.txt)"
)
SAMPLE = ROOT / "assets/samples/jar"
NOTHING = {"query": None, "target": None, "painting": None, "camera": "not known"}


@pytest.fixture()
def uploads(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    return tmp_path


def disc(height: int, width: int) -> np.ndarray:
    """Its mask, right and below the middle."""
    center, radius = (round(0.7 * width), round(0.65 * height)), round(0.2 * min(height, width))
    return cv2.circle(np.zeros((height, width), np.uint8), center, radius, 1, -1)


def write(path: Path, image: np.ndarray) -> dict:
    """A file as the page sends it."""
    cv2.imwrite(str(path), image)
    return {"path": str(path)}


def write_disc(path: Path, height: int, width: int) -> dict:
    return write(path, np.where(disc(height, width)[..., None], (200, 60, 20), 150).astype(np.uint8))


def painting(path: Path, height: int, width: int, *dabs: tuple[float, float]) -> dict:
    """A layer over a picture as the page shows it: the disc of it, or some dabs."""
    scale = min(1, PAINT_SIDE / max(height, width))
    height, width = round(scale * height), round(scale * width)
    paint = np.zeros((height, width), np.uint8) if dabs else disc(height, width)
    for x, y in dabs:
        cv2.circle(paint, (round(x * width), round(y * height)), 6, 1, -1)
    layer = np.dstack([np.full((height, width, 3), 200), 255 * OPACITY * paint]).astype(np.uint8)
    return {"layers": [write(path, layer)]}


@needs_gradio
@pytest.mark.parametrize(("height", "width"), [(600, 700), (2400, 3200)])
def test_the_object_is_what_is_painted_or_in_the_box_between_two_dabs_in_pictures_of_every_size(uploads, height, width):
    seen = []

    def segment(query, mask, target, setting):
        seen.append(mask)
        return disc(*target.shape[:2]), 0.9

    query = write_disc(uploads / "query.png", height, width)
    left, top, wide, high = cv2.boundingRect(disc(height, width))
    two = [((left - 5) / width, (top + high + 5) / height), ((left + wide + 5) / width, (top - 5) / height)]
    aside = [(0.1, 0.1), (0.13, 0.14)]  # so near each other that they are paint
    for dabs, is_box in ((), False), (two, True), (aside, False):
        paint = painting(uploads / "paint.png", height, width, *dabs)
        inputs = NOTHING | {"query": query, "target": query, "painting": paint}
        answer, mask = find(SimpleNamespace(segment=segment), **inputs), seen.pop()
        truth = disc(*mask.shape)
        assert answer.is_cut == is_box
        assert ((mask & truth).sum() / (mask | truth).sum() > 0.95) == (dabs is not aside)


@needs_gradio
@pytest.mark.parametrize(("existence", "text"), [(0.93, "found (93 %)"), (0.08, "not visible (8 % that it is)")])
def test_what_is_said_not_to_be_visible_is_dashed_and_the_mask_is_as_large_as_its_picture(uploads, existence, text):
    asked = []

    def segment(query, mask, target, setting):
        asked.append(setting)
        return disc(*target.shape[:2]), existence

    files = {name: write_disc(uploads / f"{name}.png", 1500, 2000) for name in ("query", "target")}
    inputs = {**files, "painting": painting(uploads / "paint.png", 1500, 2000), "camera": "the other"}
    answer = find(SimpleNamespace(segment=segment), **inputs)
    assert answer.text == text and asked == ["exo-ego"]
    assert answer.mask.shape == (1500, 2000) and set(np.unique(answer.mask)) == {0, 1}
    outline = cv2.dilate(disc(1200, 1600), np.ones((3, 3), np.uint8)) - cv2.erode(disc(1200, 1600), np.ones((3, 3)))
    pink = abs(answer.picture.astype(int) - PREDICTION).max(axis=2) < 60
    assert (pink[outline > 0].mean() > 0.95) == (existence > 0.5)


@needs_gradio
def test_whatever_is_wrong_is_said_in_one_line_without_a_path_of_this_machine(uploads):
    query, paint = write_disc(uploads / "query.png", 600, 700), painting(uploads / "paint.png", 600, 700)
    text = {"path": str(uploads / "text.jpg")}
    Path(text["path"]).write_text("no picture")
    unread = "text.jpg is no picture that can be read; give JPEG or PNG"
    asked = NOTHING | {"query": query, "painting": paint}
    for inputs, line in [
        (NOTHING, "give the first picture"),
        (asked | {"query": text}, f"the first picture {unread}"),
        (asked | {"target": text}, f"the other picture {unread}"),
        (asked | {"painting": {"layers": [text]}}, f"the painting {unread}"),
        (asked | {"painting": None}, "mark the object in the first picture: paint over it, or dab two corners"),
        (asked, "give the other picture"),
    ]:
        answer = find(None, **inputs)
        assert answer.text.startswith(line) and answer.mask is None and len(answer.text.splitlines()) == 1
        assert str(uploads) not in answer.text
    assert demo.start_painting(text) == (None, f"the first picture {unread}")


def test_without_gradio_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(demo, "gr", None)
    with pytest.raises(UserError, match="gradio is not installed; run pip install -r requirements-demo.txt"):
        demo.main([])


@needs_gradio
def test_a_taken_port_is_named(checkpoint):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} is taken; give --port"):
            demo.main(["--ckpt_path", str(checkpoint), "--device", "cpu", "--port", str(port)])


@needs_gradio
@pytest.mark.parametrize(
    ("host", "taken", "refused"),
    [
        ("127.0.0.1", ["127.0.0.1:80", "LOCALHOST", "[::1]:7860"], ["10.0.0.1", "127.0.0.1.evil.com", "", "a]:1"]),
        ("lab.example", ["lab.example:7860", "localhost"], ["10.0.0.1", "evil.com", "lab.example.evil.com"]),
        ("0.0.0.0", ["10.0.0.1:7860", "[fe80::1]", socket.gethostname()], ["evil.com", "10.0.0.1.evil.com", "1.evil"]),
    ],
)
def test_the_page_is_there_for_the_hosts_that_it_was_started_for(host, taken, refused):
    from starlette.responses import PlainTextResponse
    from starlette.testclient import TestClient

    client = TestClient(demo.host_guard(PlainTextResponse("here"), host))
    for name in (*taken, *refused):
        assert client.get("/", headers={"host": name}).status_code == (200 if name in taken else 400)


@pytest.fixture(scope="module")
def address(checkpoint, tmp_path_factory) -> str:
    """Of a page that runs in a process of its own, whose console has no traceback at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, ROOT / "inference/demo.py", "--ckpt_path", checkpoint, "--port", str(port)]
    console, uploads = tmp_path_factory.mktemp("console") / "console.txt", tmp_path_factory.mktemp("uploads")
    with console.open("w") as file:
        environment = {**os.environ, "GRADIO_TEMP_DIR": str(uploads)}
        server = subprocess.Popen([*command, "--device", "cpu"], stdout=file, stderr=subprocess.STDOUT, env=environment)
    try:
        while "Running on" not in console.read_text():
            assert server.poll() is None, console.read_text()
            time.sleep(0.1)
        assert f"{checkpoint}: tiny network of 96 pixels" in console.read_text()
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.terminate()
        server.wait()
    assert "Traceback" not in console.read_text()


def fetch(address: str, body: dict | None = None, host: str = "localhost") -> str:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data, {"Host": host, "Content-Type": "application/json"})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as response:
        return response.read().decode()


@needs_gradio
def test_another_host_is_refused_on_every_road(address):
    for path, body in {"": None, "config": None, "gradio_api/queue/join": {}}.items():
        with pytest.raises(urllib.error.HTTPError, match="400"):
            fetch(address + path, body, "evil.example")


@needs_gradio
def test_a_picture_of_this_machine_is_not_read_for_a_visitor_nor_told_from_one_that_is_not_there(address, tmp_path):
    config = json.loads(fetch(address + "config"))
    query = next(part["id"] for part in config["components"] if part["props"].get("elem_id") == "query")
    (begin,) = (call["id"] for call in config["dependencies"] if call["inputs"] == [query])
    write_disc(tmp_path / "there.png", 60, 70)
    lines = set()
    for name in ("there.png", "nowhere.png"):
        call = {"data": [{"path": str(tmp_path / name)}], "fn_index": begin, "session_hash": name}
        fetch(address + "gradio_api/queue/join", call)
        events = fetch(f"{address}gradio_api/queue/data?session_hash={name}").split("data: ")
        (output,) = (event["output"] for event in map(json.loads, events[1:]) if event["msg"] == "process_completed")
        lines.add(json.dumps(output["data"]).replace(name, ""))
    assert len(lines) == 1 and "upload" in lines.pop()


def shows(page: Page, text: str) -> None:
    """Wait until this is the answer, or the beginning of it."""
    script = "const text = document.querySelector('#answer textarea').value;"
    page.wait_for(f"{script} return arguments[0] ? text.startsWith(arguments[0]) : !text", text)


def has_picture(page: Page, place: str, path: Path | None = None) -> None:
    """Wait until a place shows a picture; `path`: drop this one there first."""
    script = "return document.querySelector(arguments[0] + ' img')?.src"
    former = page.run(script, place)
    if path:
        page.upload(f"{place} input[type=file]", path)
    page.wait_for(f"const source = {script[7:]}; return source && source != arguments[1]", place, former)


def is_answered(page: Page, *stroke: tuple[float, float]) -> None:
    """Paint and ask, again and again: the editor takes a while until it has a picture and listens."""
    text = "const text = document.querySelector('#answer textarea').value; return text"
    for _ in range(20):
        if stroke:
            page.drag("#painting canvas", *stroke)
        page.run("document.querySelector('#find').click()")
        if page.wait_for(text).startswith(("found (", "not visible (")):
            break
        page.run("document.querySelector('#changed').click()")
        shows(page, "")
    page.wait_for("return document.querySelector('#found img')?.naturalWidth")


@needs_browser
@needs_gradio
def test_a_visitor_paints_finds_and_sees_no_answer_that_is_of_something_else(address, chromium, tmp_path):
    page = chromium
    page.open(address)
    page.wait_for("return document.querySelector('#query input') && document.querySelector('#answer textarea')")
    (tmp_path / "text.jpg").write_text("no picture")
    page.upload("#query input[type=file]", tmp_path / "text.jpg")
    shows(page, "the first picture text.jpg is no picture that can be read")
    page.run("document.querySelector('#query button[aria-label=\"Remove Image\"]').click()")
    page.wait_for("return document.querySelector('#query input')")

    has_picture(page, "#query", SAMPLE / "query.jpg")
    has_picture(page, "#target", SAMPLE / "target.jpg")
    is_answered(page, (0.5, 0.5), (0.6, 0.6), (0.5, 0.6))
    page.drag("#painting canvas", (0.4, 0.5), (0.5, 0.5))
    shows(page, "")
    is_answered(page)
    page.run("document.querySelectorAll('#camera input')[1].click()")
    shows(page, "")
    assert not page.run("return document.querySelector('#found img')")

    former = page.run("return document.querySelector('#query img').src")
    page.run("document.querySelectorAll('.gallery-item')[1].click()")
    page.wait_for("return ![undefined, arguments[0]].includes(document.querySelector('#query img')?.src)", former)
    is_answered(page)
    loaded = page.run("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert all(name.startswith((address, "data:", "blob:")) for name in loaded) and page.errors() == []
    bottoms = "return ['painting', 'find', 'saved'].map(x => document.getElementById(x).getBoundingClientRect().bottom)"
    for width in (390, 1280):
        page.resize(width, 800)
        page.wait_for("return document.documentElement.scrollWidth <= innerWidth", seconds=10)
    page.run("scrollTo(0, 0)")
    assert max(page.run(bottoms)) < 800  # all but the samples is on one screen
