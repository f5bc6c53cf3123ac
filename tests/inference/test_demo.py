"""demo.py: what its page answers, to whom, and how it looks in a real browser."""

import asyncio
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
from inference.demo import PAINTED, SIDE, Given, find, object_mask
from tests.made import ROOT
from tests.made.browser import Page, chromium, needs_browser
from tests.made.networks import write_network

__all__ = ["chromium"]  # a fixture
needs_gradio = pytest.mark.skipif(
    importlib.util.find_spec("gradio") is None, reason="gradio is not installed (pip install -r requirements-demo.txt)"
)
SAMPLE = ROOT / "assets/samples/jar"
NOTHING = Given(None, None, None, None, PAINTED[0], "", "not known")


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
    """A transparent layer over a picture as the page shows it: the disc of it, or some dabs."""
    scale = min(1, SIDE / max(height, width))
    height, width = round(scale * height), round(scale * width)
    opacity = np.zeros((height, width), np.uint8) if dabs else disc(height, width) * 255
    for x, y in dabs:
        cv2.circle(opacity, (round(x * width), round(y * height)), 4, 255, -1)
    return {"layers": [write(path, np.dstack([np.full((height, width, 3), 200, np.uint8), opacity]))]}


@pytest.mark.parametrize(("height", "width"), [(600, 700), (2400, 3200)])
def test_the_object_is_what_was_painted_boxed_or_given_in_pictures_of_every_size(tmp_path, height, width):
    truth = disc(height, width)
    left, top, wide, high = cv2.boundingRect(truth)
    corners = [((left - 5) / width, (top - 5) / height), ((left + wide + 5) / width, (top + high + 5) / height)]
    query = demo.read_picture(Path(write_disc(tmp_path / "query.png", height, width)["path"]))
    for given in (
        {"painting": painting(tmp_path / "object.png", height, width)},
        {"painting": painting(tmp_path / "corners.png", height, width, *corners), "painted": PAINTED[1]},
        {"box": f" {left}, {top}.4 {left + wide},{top + high}"},
        {"mask": write(tmp_path / "mask.png", disc(height // 2, width // 2) * 255)},
    ):
        found = object_mask(query, NOTHING._replace(**given))
        assert found.shape == truth.shape and (found & truth).sum() / (found | truth).sum() > 0.95, given


@pytest.mark.parametrize(("existence", "text"), [(0.93, "found (93%)"), (0.08, "not visible (8%)")])
def test_what_is_said_not_to_be_visible_is_dashed_and_the_mask_is_as_large_as_its_picture(tmp_path, existence, text):
    asked = []

    def segment(query, mask, target, setting):
        asked.append(setting)
        return disc(*target.shape[:2]), existence

    files = {name: write_disc(tmp_path / f"{name}.png", 1500, 2000) for name in ("query", "target")}
    given = NOTHING._replace(**files, box="1100 675 1700 1275", camera="the target")
    answer = find(SimpleNamespace(segment=segment), given)
    assert answer.text == text and asked == ["exo-ego"]
    assert answer.mask.shape == (1500, 2000) and set(np.unique(answer.mask)) == {0, 255}
    outline = cv2.dilate(disc(1200, 1600), np.ones((3, 3), np.uint8)) - cv2.erode(disc(1200, 1600), np.ones((3, 3)))
    pink = abs(answer.target.astype(int) - PREDICTION).max(axis=2) < 60
    assert (pink[outline > 0].mean() > 0.95) == (existence > 0.5)


def test_whatever_is_wrong_is_said_in_one_line_without_a_path_of_this_machine(tmp_path):
    query = write_disc(tmp_path / "query.png", 600, 700)
    layer, elsewhere = (painting(tmp_path / f"{height}.png", height, 700) for height in (600, 500))
    text = {"path": str(tmp_path / "text.jpg")}
    Path(text["path"]).write_text("no picture")
    asked = NOTHING._replace(query=query, box="340 280 640 500")
    unread = "text.jpg is no picture that can be read; give JPEG or PNG"
    for given, line in [
        (NOTHING, "the query picture is missing; give it first"),
        (asked._replace(query=text), f"the query picture {unread}"),
        (asked._replace(target=text), f"the target picture {unread}"),
        (asked._replace(box="", mask=text), f"the mask {unread}"),
        (asked._replace(box="", painting={"layers": [text]}), f"the painting {unread}"),
        (asked._replace(box=" "), "the object is missing; paint it, or give a box, or give a mask"),
        (asked._replace(painting=layer), "the object is painted and given by a box; paint it, or give a box, or"),
        (asked._replace(box="", painting=elsewhere), "the painting 500.png is of another query picture; paint again"),
        (asked._replace(box="1, 2, 3"), "the box '1, 2, 3' is not left, top, right, bottom, in pixels of its"),
        (asked._replace(box="left"), "the box 'left' is not left, top, right, bottom, in pixels of its 700x600 image"),
        (asked, "this is the object that you gave; now give the target picture"),
    ]:
        answer = find(None, given)
        assert answer.text.startswith(line) and answer.mask is None and len(answer.text.splitlines()) == 1
        assert str(tmp_path) not in answer.text
    assert demo.to_paint_on(text) == (None, f"the query picture {unread}")


def test_without_gradio_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(demo, "gr", None)
    with pytest.raises(UserError, match="gradio is not installed; run pip install -r requirements-demo.txt"):
        demo.main([])


@needs_gradio
def test_a_taken_port_is_named(tmp_path):
    network = write_network(tmp_path / "net.pth")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} is taken; give --port"):
            demo.main(["--ckpt_path", str(network), "--device", "cpu", "--port", str(port)])


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

    client = TestClient(demo.door(PlainTextResponse("here"), host))
    for name in (*taken, *refused):
        assert client.get("/", headers={"host": name}).status_code == (200 if name in taken else 400)


@needs_gradio
def test_a_visitor_who_leaves_during_an_upload_leaves_no_traceback():
    from starlette.requests import ClientDisconnect

    async def upload(scope, receive, send):
        raise ClientDisconnect

    headers = [(b"host", b"localhost"), (b"content-length", b"1")]
    scope = {"type": "http", "path": "/upload", "method": "POST", "headers": headers}
    asyncio.run(demo.door(upload, "127.0.0.1")(scope, None, None))


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> str:
    """Of a page that runs in a process of its own, whose console has no traceback at the end."""
    network = write_network(tmp_path_factory.mktemp("net") / "net.pth")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, ROOT / "inference/demo.py", "--ckpt_path", network, "--port", str(port)]
    console, uploads = tmp_path_factory.mktemp("console") / "console.txt", tmp_path_factory.mktemp("uploads")
    with console.open("w") as file:
        environment = {**os.environ, "GRADIO_TEMP_DIR": str(uploads)}
        server = subprocess.Popen([*command, "--device", "cpu"], stdout=file, stderr=subprocess.STDOUT, env=environment)
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


def status(address: str, host: str = "localhost", body: bytes | None = None, kind: str = "application/json") -> int:
    request = urllib.request.Request(address, body, {"Host": host, "Content-Type": kind})
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


@needs_gradio
def test_another_host_is_refused_on_every_road_and_so_is_what_would_fill_the_memory(address):
    form = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n.\r\n--x--\r\n'
    for path, body in (("", None), ("config", None), ("gradio_api/queue/data", None), ("gradio_api/upload", form)):
        kind = "multipart/form-data; boundary=x"
        assert status(address + path, "evil.example", body, kind) == 400
        assert status(address + path, "localhost", body, kind) != 400 or path == "gradio_api/queue/data"
    large = json.dumps({"data": ["x" * 2**17], "session_hash": "a", "fn_index": 0}).encode()
    assert status(address + "gradio_api/queue/join", body=large) == 413
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address + "config") as response:
        parts = json.load(response)["components"]
    editor = next(part["id"] for part in parts if part["props"].get("elem_id") == "painting")
    call = {"component_id": editor, "fn_name": "accept_blobs", "session_hash": "a"}
    blobs = {"data": {"type": "layer", "index": 10**9, "id": "a"}, "files": [["a", ""]]}
    assert status(address + "gradio_api/component_server", body=json.dumps(call | {"data": blobs}).encode()) == 404


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
    page.wait_for("return ['given', 'found', 'saved'].every(id => document.querySelector(`#${id} img`)?.naturalWidth)")


@needs_browser
@needs_gradio
def test_a_visitor_paints_finds_and_sees_no_answer_that_is_of_something_else(address, chromium, tmp_path):
    page = chromium
    page.open(address)
    page.wait_for("return document.querySelector('#query input')")
    (tmp_path / "text.jpg").write_text("no picture")
    page.upload("#query input[type=file]", tmp_path / "text.jpg")
    shows(page, "the query picture text.jpg is no picture that can be read")
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
    assert not page.run("return document.querySelector('#found img, #saved img')")

    page.run("document.querySelectorAll('tr.tr-body')[1].querySelector('td').click()")
    page.wait_for("return document.querySelector('#mask img')")
    is_answered(page)
    elsewhere = (
        "return performance.getEntriesByType('resource').map(e => e.name).filter(n => !n.startsWith(arguments[0]))"
    )
    assert [name for name in page.run(elsewhere, address) if not name.startswith(("data:", "blob:"))] == []
    assert page.errors() == []
