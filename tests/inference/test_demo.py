"""demo.py: the answers of its page, who may see it, and how it looks in a real browser."""

import fcntl
import importlib.util
import io
import json
import os
import shutil
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

from common.drawing import PREDICTION
from common.errors import UserError
from formats.masks import iou
from formats.picture_files import FORMATS, read_mask
from inference.predictor import Found, Predictor
from tests.made import ROOT
from tests.made.browser import Page, needs_browser

needs_gradio = pytest.mark.skipif(
    importlib.util.find_spec("gradio") is None, reason="gradio is not installed (pip install -r requirements-demo.txt)"
)
SAMPLES = ROOT / "assets/samples"
QUERY, TARGET = SAMPLES / "jar/query.jpg", SAMPLES / "jar/target.jpg"
SENT = [{"path": str(path)} for path in (QUERY, TARGET)]  # as the browser sends them
NOT_KNOWN = "I don't know"
BRUSH = {"tool": "brush", "width": 40, "lines": [[[100, 100], [140, 100]]]}


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    """The module. It imports gradio, which takes as long as all else that tests import together."""
    return importlib.import_module("inference.demo")


def test_marks_are_drawn_as_the_browser_shows_them(demo):
    image = np.full((200, 300, 3), 150, np.uint8)
    disc = cv2.circle(np.zeros((200, 300), np.uint8), (120, 90), 40, 1, -1)
    image[disc > 0] = 20, 60, 200
    box = {"tool": "box", "width": 9, "lines": [[[75, 135], [165, 45]]]}
    cut = demo.mask_of_marks(image, [box])
    assert (cut & disc).sum() / (cut | disc).sum() > 0.95
    both = demo.mask_of_marks(image, [box, BRUSH | {"lines": [[[250, 150], [250, 150]]]}])
    assert both[150, 265] and both[150, 235] and not both[150, 275] and both[90, 120]
    rest = demo.mask_of_marks(image, [box, BRUSH | {"tool": "eraser", "lines": [[[60, 90], [200, 90]]]}])
    assert not rest[75:106].any() and rest[60, 120] and rest[120, 120]
    tiny, stroke = box | {"lines": [[[9, 9], [9, 9]]]}, BRUSH["lines"][0]
    for wrong, line in (
        ([], "mark the object"),
        ([tiny], "a box is too small"),
        ([box] * 11, "at most 10 boxes, 1,000 lines and 10,000 points can be marked; press Undo or Clear"),
        ([BRUSH | {"lines": [stroke * 6000]}], "at most 10 boxes"),  # of 12,000 points
    ):
        with pytest.raises(UserError, match=line):
            demo.mask_of_marks(image, wrong)
    assert demo.mask_of_marks(image, [BRUSH | {"width": 1e9, "lines": [[[9, 9], [9, 9]]]}]).mean() < 0.2


@needs_gradio
def test_the_page_finds_in_its_samples_what_the_predictor_finds(demo, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    predictor = Predictor.load(checkpoint, "cpu")
    for number, name in enumerate(demo.SAMPLES):
        mask = read_mask(SAMPLES / name / "query_mask.png")
        sample = demo.load_sample(number)
        query, marks, target = sample["query"], sample["marks"], sample["target"]
        expected, _ = predictor.segment(query, mask, target, size="larger")
        answer = demo.answer_visitor(predictor, {"path": query}, marks, {"path": target}, "larger")
        assert np.array_equal(read_white(answer["found_mask"]), expected), name
        assert np.array_equal(read_white(answer["marked_mask"]), mask), name
    packet = SAMPLES / "packet/query.jpg"
    page = demo.keep_picture({"path": str(packet)}, [BRUSH], [])
    images, masks = [packet, query], [demo.mask_of_marks(np.asarray(Image.open(packet)), [BRUSH]), mask]
    for given, count in (((page["query"], page["marks"]), 1), (({"path": query}, marks), 2)):  # the kept one is enough
        answer = demo.answer_visitor(predictor, *given, {"path": target}, "larger", page["kept"])
        expected, _ = predictor.segment(images[:count], masks[:count], target, size="larger")
        assert np.array_equal(read_white(answer["found_mask"]), expected)


def read_white(path: str | io.BytesIO) -> np.ndarray:
    return (np.asarray(Image.open(path)) == 255).astype(np.uint8)


@needs_gradio
@pytest.mark.parametrize(("existence", "text"), [(0.93, "There"), (0.75, "Unsure"), (0.08, "Probably not there")])
def test_what_is_not_visible_has_a_dashed_outline(demo, tmp_path, monkeypatch, existence, text):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    disc = cv2.circle(np.zeros((540, 960), np.uint8), (480, 270), 150, 1, -1)
    small = cv2.circle(np.zeros((540, 960), np.uint8), (100, 400), 10, 1, -1)
    found = [Found(disc, existence), Found(1 - disc, 0.04), Found(small, 0.03), Found(0 * disc, 0.6)]
    predictor = SimpleNamespace(places=lambda *inputs, size: found, limits=(0.1, 0.9))
    answer = demo.answer_visitor(predictor, SENT[0], [BRUSH], SENT[1], NOT_KNOWN)
    gallery, places, shown = answer["gallery"]["value"], answer["places"], answer["gallery"]["label"]
    assert shown == "The answer first, then other places: click one to see it"
    assert [caption for _, caption in gallery] == [f"{round(100 * existence)} %", "4 %", "3 %", "not found"]
    with Image.open(gallery[2][0]) as close_up:  # is cut to what was found, which one could not see otherwise
        assert close_up.size == (108, 108)
        assert (abs(np.asarray(close_up).astype(int) - PREDICTION).max(axis=2) < 60)[40:68, 40:68].any()
    assert places[0].items() <= answer.items() and answer["text"] == f"{text} ({round(100 * existence)} %)"
    assert places[1]["text"] == "Probably not there (4 %)"
    assert np.array_equal(read_white(places[1]["found_mask"]), 1 - disc)
    line = cv2.dilate(disc, np.ones((3, 3), np.uint8)) - cv2.erode(disc, np.ones((3, 3), np.uint8))
    is_pink = abs(np.asarray(Image.open(answer["found"])).astype(int) - PREDICTION).max(axis=2) < 60
    assert (is_pink[line > 0].mean() > 0.8) == (text == "There")


@needs_gradio
def test_of_several_second_pictures_the_likeliest_comes_first_and_is_named(demo, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    pictures = [tmp_path / f"{name}.png" for name in ("black", "gray", "white")]
    for path, gray in zip(pictures, (0, 100, 250), strict=True):
        Image.new("RGB", (90, 60), (gray,) * 3).save(path)
    black, *others = [{"path": str(path)} for path in pictures]
    page = demo.add_targets([black, *others], None, [])
    more, shown = page["more"], page["more_gallery"]
    assert page["target"] == black["path"] and [name for _, name in shown] == ["gray.png", "white.png"]
    assert [np.asarray(Image.open(picture)).max() // 50 for picture, _ in shown] == [2, 5]
    page = demo.add_targets(others, black, [])
    assert page["more"] == more and "target" not in page  # the shown picture stays
    assert demo.add_targets(others * 4, black, more)["text"].startswith("no more than 8 more second pictures")

    def places(images, masks, target, count, size):
        assert count == 1
        return [
            Found(np.full((60, 90), target[0, 0, 0] > 200, np.uint8), {0: 0.3, 100: 0.1, 250: 0.95}[target[0, 0, 0]])
        ]

    for target, order in ((black, ["white", "black", "gray"]), (None, ["white", "gray"])):
        visit = SENT[0], [BRUSH], target, NOT_KNOWN, (), more
        answer = demo.answer_visitor(SimpleNamespace(places=places, limits=(0.2, 0.9)), *visit)
        assert answer["text"] == "There (95 %) in white.png" and read_white(answer["found_mask"]).all()
        assert [place["text"].split()[-1] for place in answer["places"]] == [f"{name}.png" for name in order]
        shown = answer["gallery"]
        assert shown["label"] == "Likeliest first: click one to see it" and len(shown["value"]) == len(order)


@needs_gradio
def test_whatever_is_wrong_is_said_in_one_line_without_a_path_of_this_machine(demo, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    text = tmp_path / "text.jpg"
    text.write_text("no picture")
    heic = {"path": str(shutil.copy(text, tmp_path / "IMG_1.HEIC"))}
    for inputs, line in [
        ((heic, [BRUSH], SENT[1]), "IMG_1.HEIC is HEIC; save it as JPEG (iPhone: Camera, Formats, Most Compatible)"),
        ((None, [], SENT[1]), "give the first picture"),
        ((SENT[0], [BRUSH], None), "give the second picture"),
        (({"path": str(text)}, [BRUSH], SENT[1]), f"text.jpg cannot be read as a picture; give {', '.join(FORMATS)}"),
    ]:
        answer = demo.answer_visitor(None, *inputs, NOT_KNOWN)
        assert answer.pop("text") == line and len(answer) == 5 and not any(answer.values())
    assert demo.show_cut_out({"path": str(text)}, [BRUSH | {"tool": "box"}]) == {"marked": None}
    three = [demo.Kept(SENT[0], [BRUSH], "shown")] * 3
    for marks, kept, line in (
        ([], [], "mark the object in the first picture"),
        ([BRUSH], three, "no more than 3 pictures"),
    ):
        page = demo.keep_picture(SENT[0], marks, kept)
        assert page.pop("text").startswith(line) and not page  # nothing changes


def test_without_gradio_one_line_says_what_to_install(demo, monkeypatch):
    monkeypatch.setattr(demo, "gr", None)
    with pytest.raises(UserError, match="gradio is not installed; run pip install -r requirements-demo.txt"):
        demo.main([])


@needs_gradio
def test_a_page_that_cannot_open_is_said_in_one_line_before_the_network_is_loaded(demo, monkeypatch):
    monkeypatch.delattr(demo.Predictor, "load")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        reasons = {"127.0.0.1": "already in use", "::1": "family", "203.0.113.9": "assign"}  # the last is nobody's
        for host, reason in reasons.items():
            match = rf"^[^\n]*{reason}[^\n]*\('{host}', {port}\)\); give another --port, or a --host of this machine"
            with pytest.raises(UserError, match=match):
                demo.main(["--host", host, "--port", str(port)])


@pytest.fixture(scope="module")
def address(warm_python, strong_checkpoint, tmp_path_factory) -> str:
    """The address of a page in a process of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [warm_python, ROOT / "inference/demo.py", "--ckpt_path", strong_checkpoint, "--port", str(port)]
    folder, console = tmp_path_factory.mktemp("page"), tmp_path_factory.mktemp("console") / "console.txt"
    killed, other = folder / "xsegtx-page-killed", folder / "xsegtx-page-other"
    for left in killed, other:
        (left / "pictures").mkdir(parents=True)
    lock = os.open(other, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)  # as a second page does while it runs
    with console.open("w") as file:
        environment = {**os.environ, "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"}
        server = subprocess.Popen([*command, "--device", "cpu"], stdout=file, stderr=subprocess.STDOUT, env=environment)
    try:
        while "Ctrl-C" not in console.read_text():
            assert server.poll() is None, console.read_text()
            time.sleep(0.1)
        network, page = console.read_text().splitlines()  # and no word of gradio's
        assert (
            network.startswith(f"{strong_checkpoint.name}: tiny network of 96 pixels")
            and f"http://127.0.0.1:{port}/" in page
        )
        (mine,) = set(folder.glob("xsegtx-page-*")) - {other}  # not the killed page's
        assert mine.stat().st_mode & 0o777 == 0o700
        yield f"http://127.0.0.1:{port}/"
        visitor = Visitor(f"http://127.0.0.1:{port}/")
        box = BRUSH | {"tool": "box", "lines": [[[50, 50], [500, 400]]]}
        visitor.join(visitor.number, visitor.upload(QUERY), [box] * 10, visitor.upload(TARGET), NOT_KNOWN, None, None)
        assert list(mine.rglob("query.jpg"))
        said = console.read_text()  # in which libraries that do not fit each other may warn
        answers = [line for line in said.splitlines() if line.startswith("a request was not answered: ")]
        assert answers and max(map(len, answers)) < 250 and "Traceback" not in said, said
    finally:
        server.terminate()
        status = server.wait()
        os.close(lock)
    assert status == 0 and list(folder.glob("xsegtx-page-*")) == [other]  # no picture of a visitor


class Visitor:
    """A program that asks the page as a browser does."""

    def __init__(self, address: str):
        import httpx  # gradio's

        self.http = httpx.Client(base_url=address, trust_env=False, timeout=300)
        self.config = self.http.get("config").json()
        numbers = {count: [] for count in range(8)}  # by how many inputs a call has
        for call in self.config["dependencies"]:
            numbers[len(call["inputs"])] += [call["id"]] if call["backend_fn"] else []
        [self.number] = numbers[6]  # of Find, whose last inputs stay at the server
        [self.cut_out], [self.keep, self.add] = numbers[2], numbers[3]

    def upload(self, path: Path) -> dict:
        (stored,) = self.http.post("gradio_api/upload", files={"files": path.open("rb")}).json()
        return {"path": stored, "meta": {"_type": "gradio.FileData"}}

    def join(self, number: int, *inputs: object) -> str:
        """Call a function of the page; returns the session."""
        session = os.urandom(8).hex()
        call = {"data": inputs, "fn_index": number, "session_hash": session}
        self.http.post("gradio_api/queue/join", json=call).raise_for_status()
        return session

    def call(self, number: int, *inputs: object) -> dict:
        """What a function of the page answers."""
        session = self.join(number, *inputs)
        lines = self.http.get("gradio_api/queue/data", params={"session_hash": session}).text.splitlines()
        events = [json.loads(line.removeprefix("data: ")) for line in lines if line]
        return next(event["output"] for event in events if event["msg"] == "process_completed")

    def find(self, *inputs: object) -> dict:
        return self.call(self.number, *inputs, None, None)


@needs_gradio
def test_visitors_at_once_each_get_their_own_answer(demo, address):
    def visit(number: int) -> bool:
        visitor = Visitor(address)
        mark = BRUSH | {"lines": [[[60 * number + 10, 100], [60 * number + 40, 300]]]}
        inputs = [visitor.upload(QUERY), [mark], visitor.upload(TARGET), NOT_KNOWN]
        file = io.BytesIO(visitor.http.get(visitor.find(*inputs)["data"][4]["url"]).content)
        return np.array_equal(read_white(file), demo.mask_of_marks(np.asarray(Image.open(QUERY)), [mark]))

    with ThreadPoolExecutor(4) as visitors:
        assert all(visitors.map(visit, range(4)))


def test_a_picture_of_so_many_pixels_that_others_would_wait_is_reduced_and_its_marks_with_it(demo, monkeypatch):
    image, mask = demo.read_marked(SENT[0], [BRUSH])
    height, width = mask.shape
    for limit, value in (("MAX_PIXELS", height * width // 4), ("MAX_SIDE", width // 2)):
        with monkeypatch.context() as changed:
            changed.setattr(demo, limit, value)
            image, reduced = demo.read_marked(SENT[0], [BRUSH])
        assert image.shape[:2] == reduced.shape == (height // 2, width // 2)
        assert iou(reduced, cv2.resize(mask, (width // 2, height // 2), interpolation=cv2.INTER_AREA)) > 0.9


@needs_gradio
def test_no_post_reads_a_file_of_this_machine_or_tells_whether_it_is_there(demo, address, tmp_path):
    visitor = Visitor(address)
    Image.open(QUERY).save(tmp_path / "there.png")
    mine, meta = visitor.upload(QUERY), {"meta": {"_type": "gradio.FileData"}}
    forms = (
        {},
        meta,
        {**meta, "is_stream": True},
        {**meta, "url": "data:image/png;base64,"},
        {**meta, "orig_name": "a.svg"},
    )
    for form in forms:
        for place in 0, 2, 1, 3:
            answers = set()
            for name in "there.png", "where.png":
                inputs = [mine, [BRUSH], mine, NOT_KNOWN]
                inputs[place] = {"path": str(tmp_path / name), **form}
                answers.add(visitor.find(*inputs)["error"])
            assert answers == {demo.NO_ANSWER}, (form, place)
        for name in "there.png", "where.png":
            assert "error" in visitor.call(visitor.keep, {"path": str(tmp_path / name), **form}, [BRUSH], None)
            assert "error" in visitor.call(visitor.add, [{"path": str(tmp_path / name), **form}], None, None)
            assert "error" in visitor.call(visitor.add, [mine], {"path": str(tmp_path / name), **form}, None)
            box = BRUSH | {"tool": "box", "lines": [[[0, 0], [9, 9]]]}
            assert "error" in visitor.call(visitor.cut_out, {"path": str(tmp_path / name), **form}, [box])
        for call in visitor.config["dependencies"]:  # the samples' and those without a function
            if len(call["inputs"]) == 1:
                assert "error" in visitor.call(call["id"], {"path": str(tmp_path / "there.png"), **form})
    for road in "file=", "file/", "proxy=", "stream/":
        assert visitor.http.get(f"gradio_api/{road}{tmp_path / 'there.png'}").status_code >= 400
    unreadable = visitor.http.post("gradio_api/queue/join", json={"data": [], "fn_index": -1, "session_hash": "s"})
    assert (unreadable.status_code, unreadable.text) == (400, demo.NO_ANSWER)


@needs_gradio
def test_a_page_elsewhere_cannot_make_a_browser_ask_this_one_by_another_name(address):
    visitor = Visitor(address)
    for road, ask in ("", visitor.http.get), ("config", visitor.http.get), ("gradio_api/queue/join", visitor.http.post):
        for name in "evil.example", "127.0.0.1.evil.example", "10.0.0.1", "localhost.evil.example:80":
            assert ask(road, headers={"host": name}).status_code == 400
    assert visitor.http.get("config", headers={"host": "localhost:7860"}).status_code == 200


def answers(page: Page, beginning: str) -> None:
    """Wait until the answer's text begins so, or is empty."""
    script = "const text = document.querySelector('#answer textarea').value;"
    page.wait_for(f"{script} return arguments[0] ? text.startsWith(arguments[0]) : !text", beginning)


@needs_browser
@needs_gradio
def test_a_visitor_marks_finds_and_sees_no_answer_that_is_of_something_else(address, chromium, tmp_path):
    page = chromium
    page.open(address)
    page.upload("#query input[type=file]", QUERY)
    page.upload("#target input[type=file]", TARGET)
    page.wait_for(
        "return document.querySelector('#query canvas') && document.querySelector('#target img')?.naturalWidth"
    )
    for tool in range(3):
        if tool:  # it opens with boxes
            page.run("document.querySelectorAll('#marks input')[arguments[0]].click()", tool)
        page.drag("#query canvas", (0.5 + tool / 50, 0.4), (0.7, 0.6))
        answers(page, "")
        if tool == 0:  # what a box has cut out is seen before anybody asks
            page.wait_for("return document.querySelector('#marked img')?.naturalWidth")
        page.run("document.querySelector('#find').click()")
        page.wait_for("return /\\(\\d+ %\\)/.test(document.querySelector('#answer textarea').value)")
        page.wait_for("return document.querySelector('#found img')?.naturalWidth")
    likeliest = page.run("return document.querySelector('#found img').src")
    page.wait_for("return document.querySelectorAll('#places button').length > 1")
    page.run("document.querySelectorAll('#places button')[1].click()")
    page.wait_for("return document.querySelector('#found img')?.src != arguments[0]", likeliest)
    page.run("document.querySelector('#keep').click()")
    page.wait_for("return document.querySelector('#kept img') && !document.querySelector('#query img')")
    answers(page, "")
    page.run("document.querySelector('#find').click()")  # from the kept picture
    page.wait_for("return /\\(\\d+ %\\)/.test(document.querySelector('#answer textarea').value)")
    page.run("document.querySelector('#kept button').click()")
    page.wait_for("return !document.querySelector('#kept img')")
    answers(page, "")
    page.upload("#query input[type=file]", QUERY)
    page.wait_for("return document.querySelector('#query canvas')")
    page.drag("#query canvas", (0.5, 0.4), (0.7, 0.6))
    page.run("document.querySelectorAll('#size input')[1].click()")
    page.run("document.querySelector('#marks button').click()")  # undo
    answers(page, "")
    assert not page.run("return document.querySelector('#found img')")

    jar = page.run("return document.querySelector('#query img').src")
    page.run("document.querySelectorAll('.gallery-item')[5].click()")  # the smallest picture
    page.wait_for("return ![undefined, arguments[0]].includes(document.querySelector('#query img')?.src)", jar)
    page.run("document.querySelector('#query button[aria-label=\"Remove Image\"]').click()")
    page.upload("#query input[type=file]", SAMPLES / "packet/query.jpg")
    page.wait_for("return document.querySelector('#query canvas')")
    time.sleep(1)  # a new picture ends what is being searched, and nothing shows when it has done so
    page.run("document.querySelector('#find').click()")
    answers(page, "mark the object in the first picture")  # the marks were of the former picture
    loaded = page.run("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert all(name.startswith((address, "data:", "blob:")) for name in loaded) and page.errors() == []
    for width in 390, 1280:
        page.resize(width, 800)
        page.wait_for("return document.documentElement.scrollWidth <= innerWidth", seconds=10)
        tools = "[...document.querySelectorAll('#marks label, button')].filter(tool => tool.offsetHeight)"
        assert page.run(f"return {tools}.every(tool => tool.offsetHeight >= 32)")
        widths = "return ['#query', '#query img', '#query canvas'].map(x => document.querySelector(x).offsetWidth)"
        page.wait_for(
            f"{widths}.every((width, i, all) => width >= all[0] - 4)", seconds=10
        )  # the picture fills its frame
