"""Serve a web page: mark an object in one picture, and see where it is in another.

    python inference/demo.py

It needs gradio (pip install -r requirements-demo.txt), loads nothing from other machines, and opens on this machine
only, unless --host admits others. Ctrl-C ends it, and deletes the pictures that visitors gave.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from common.start import start

start(__name__)

import argparse
import asyncio
import contextlib
import fcntl
import functools
import json
import math
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image

from common.arguments import CKPT_HELP, Parser, add_network_options, at_least, network_options
from common.errors import UserError, printable, run_script

try:
    import gradio as gr
    from gradio.data_classes import FileData
    from gradio.processing_utils import save_pil_to_cache
    from gradio.utils import get_upload_folder
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.responses import PlainTextResponse
except ImportError:  # gradio is not in requirements.txt
    gr: Any = None

from common.drawing import PREDICTION, QUERY, Color, around, overlay
from formats.masks import fit_mask
from formats.picture_files import read_mask, read_picture
from inference.cut_out import MIN_SIDE, cut_out
from inference.predictor import Found, Predictor

WEB = Path(__file__).resolve().parent / "web"
SAMPLES_DIR = Path(__file__).resolve().parents[1] / "assets" / "samples"
# How well the network of this repository finds the object: easy is an IoU above 90 %, fair above 65, fails below 30.
SAMPLES = {"jar": "easy", "pot": "easy", "bin": "fair", "motorcycle": "fair", "person": "fair"}
SAMPLES |= {"packet": "fails", "cup": "not there"}
PLACES = 3  # that are shown at most
MAX_FILE = 30 * 2**20  # bytes of an upload
# An answer takes 0.25 s for each million pixels, while all others wait, and can need a square of the long side, 700 MB.
MAX_PIXELS, MAX_SIDE = 25_000_000, 10_000  # larger pictures are reduced
MAX_KEPT, MAX_MORE = 3, 8  # first pictures beside the one that is marked, and second ones beside the one that is shown
MAX_BOXES, MAX_LINES, MAX_POINTS = 10, 1000, 10_000  # of the marks; a box takes about 1 s, while all others wait
SHOWN_SIDE = 1600  # pixels that the long side of a shown picture has at most
SIZE_WORDS = {"smaller": "smaller", "about as large": "same", "larger": "larger", "I don't know": None}
TO_DO = f"""### Find an object again in another picture
Give a first picture, and mark an object in it: draw a box around the object, or paint over it. Up to three more
pictures of the object can help. Give a second picture, or several, and press Find. Pictures of more than
{MAX_PIXELS // 10**6} million pixels are made smaller, with their masks. Your pictures stay on the machine that serves
this page, and are deleted when it ends."""
CAUTION = """Look at each answer; it can be wrong. For 8 of 24 photographs that show only something of the same kind,
the answer was "there". More than half of the small things, such as a cup across a room, are missed."""
NO_ANSWER = "this could not be answered; load the page again"
SEVERAL_PLACES = "The answer first, then other places: click one to see it"
SEVERAL_PICTURES = "Likeliest first: click one to see it"
# Options of gradio's events. RAW: our own reader reads the pictures, so that its errors name the file and the reason.
RAW, SILENT = {"preprocess": False}, {"show_progress": "hidden"}
# What functions of the page return has the names of its parts (`lay_out`); other parts stay. So many show an answer:
CLEARED = {"text": "", "found": None, "found_mask": None, "marked": None, "marked_mask": None, "gallery": None}


class Kept(NamedTuple):
    """A marked first picture beside the one that is being marked."""

    file: dict  # as the browser sends it
    marks: list
    shown: str  # the file of the picture with the object's outline


class Added(NamedTuple):
    """A second picture beside the one that is shown."""

    file: dict
    shown: tuple[str, str]  # the file of a smaller picture, and its name


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add_network_options(parser, CKPT_HELP)
    add("--host", default="127.0.0.1", help="name or IPv4 address under which the page opens; 0.0.0.0 admits everybody")
    add("--port", type=at_least(1, most=65535), default=7860, help="port of the page")
    return parser.parse_args(argv)


def answer_visitor(
    predictor: Predictor,
    query: Any,
    marks: list,
    target: Any,
    size: str,
    kept: Sequence[Kept] = (),
    more: Sequence[Added] = (),
) -> dict[str, Any]:
    """What the page shows after Find: an answer, as `shown_place` has it, and the marked object. Several answers, which
    are the places in one second picture, or the answers for several, are also in "gallery" and "places". If an input
    is missing or wrong, "text" says so.

    The inputs are as the browser sends them.
    """
    try:
        given = [(row.file, row.marks) for row in kept] + ([(query, marks)] if query or not kept else [])
        images, masks = zip(*(read_marked(file, drawn) for file, drawn in given), strict=True)
        targets = ([target] if target or not more else []) + [row.file for row in more]
        near, shown = zip(*answers_in(targets, bool(more), predictor, images, masks, SIZE_WORDS[size]), strict=True)
    except UserError as error:
        return CLEARED | {"text": str(error)}
    marked = {"marked": file_of(outline(images[-1], masks[-1], QUERY), "marked", "webp")}
    marked["marked_mask"] = file_of(masks[-1] * 255, "marked_mask")
    label = SEVERAL_PICTURES if more else SEVERAL_PLACES
    gallery = gr.update(value=list(near) if len(near) > 1 else None, label=label)
    return shown[0] | marked | {"gallery": gallery, "places": shown}


def answers_in(
    targets: Sequence[Any],
    several: bool,
    predictor: Predictor,
    images: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    size: str | None,
) -> list[tuple[tuple[str, str], dict[str, Any]]]:
    """What the gallery and the page show of each place in one second picture, likeliest first after the answer; or of
    the answers in several pictures, likeliest first.
    """
    answers = []
    for file in targets:  # one after the other, because each takes so much memory
        image, _ = read_upload(file, "second")
        name = f" in {Path(file['path']).name}" if several else ""
        for place in predictor.places(images, masks, image, 1 if several else PLACES, size=size):
            shown = close_up(image, place), shown_place(image, place, name)
            answers.append((place.rank, shown))
    if several:
        answers.sort(key=lambda answer: answer[0], reverse=True)
    return [shown for _, shown in answers]


def close_up(target: np.ndarray, place: Found) -> tuple[str, str]:
    """A place from nearby, as a file, and its existence, if it shows something: for the gallery."""
    near = around(place.mask, 3)
    image = outline(target[near], place.mask[near], PREDICTION, not place.is_sure)
    return file_of(image, "place", "webp"), place.said.rpartition("(")[2].rstrip(")")


def shown_place(target: np.ndarray, place: Found, name: str) -> dict[str, str]:
    """What is said of a place, the target with its outline, and its mask."""
    shown = file_of(outline(target, place.mask, PREDICTION, not place.is_sure), "found", "webp")
    text = place.said.capitalize() + name
    return {"text": text, "found": shown, "found_mask": file_of(place.mask * 255, "found_mask")}


def show_cut_out(query: Any, marks: list) -> dict[str, Any]:
    """The picture with the outline of what counts as marked, if a box is among the marks: nobody has painted that."""
    with contextlib.suppress(UserError):  # is said after Find
        if any(mark["tool"] == "box" for mark in marks):
            return {"marked": file_of(outline(*read_marked(query, marks), QUERY), "marked", "webp")}
    return {"marked": None}


def keep_picture(query: Any, marks: list, kept: list[Kept]) -> dict[str, Any]:
    """Keep a marked first picture, and make room for the next one; or say why it cannot be kept."""
    try:
        if len(kept) == MAX_KEPT:
            raise UserError(f"no more than {MAX_KEPT} pictures can be kept; click one to remove it")
        marked = outline(*read_marked(query, marks), QUERY)
    except UserError as error:
        return {"text": str(error)}
    kept = [*kept, Kept(query, marks, file_of(marked, "marked", "webp"))]
    return {"text": "", "query": None, "marks": [], "kept": kept, "kept_gallery": [row.shown for row in kept]}


def add_targets(files: list[dict], target: Any, more: list[Added]) -> dict[str, Any]:
    """Add second pictures, or say why they cannot be added. If none is shown yet, the first of them is."""
    first = 0 if target else 1  # of the added ones
    rows = []
    try:
        if len(more) + len(files[first:]) > MAX_MORE:
            raise UserError(f"no more than {MAX_MORE} more second pictures can be given; click one to remove it")
        for file in files:
            image, _ = read_upload(file, "second")
            blank = outline(image, np.zeros(image.shape[:2], np.uint8), QUERY)
            rows.append(Added(file, (file_of(blank, "more", "webp"), Path(file["path"]).name)))
    except UserError as error:
        return {"text": str(error)}
    more = more + rows[first:]
    shown = {} if target else {"target": files[0]["path"]}
    return {"text": "", "more": more, "more_gallery": [row.shown for row in more], **shown}


def read_upload(file: dict | None, which: str) -> tuple[np.ndarray, float]:
    """The picture of an upload, and its scale: below 1 if it had too many pixels and was reduced. Raises UserError,
    without a path of this machine, if it is missing or unfit.
    """
    if not file:
        raise UserError(f"give the {which} picture")
    try:
        image = read_picture(Path(file["path"]))
    except UserError as error:
        raise UserError(str(error).replace(file["path"], Path(file["path"]).name)) from None
    height, width = image.shape[:2]
    scale = min(1.0, math.sqrt(MAX_PIXELS / (height * width)), MAX_SIDE / max(height, width))
    size = int(width * scale), int(height * scale)
    return image if scale == 1 else cv2.resize(image, size, interpolation=cv2.INTER_AREA), scale


def read_marked(file: dict | None, marks: list) -> tuple[np.ndarray, np.ndarray]:
    """A first picture and the mask of its marks."""
    image, scale = read_upload(file, "first")
    return image, mask_of_marks(image, marks, scale)


def file_of(image: np.ndarray, name: str, form: str = "png") -> str:
    return save_pil_to_cache(Image.fromarray(image), get_upload_folder(), name, form)


def mask_of_marks(image: np.ndarray, marks: list[dict], scale: float = 1.0) -> np.ndarray:
    """The marks (see web/marking.js) on a picture (H, W, 3) uint8 RGB, whose sides are `scale` times as long as when it
    was marked -> the object's mask, (H, W) uint8 of 0 and 1. Raises UserError if nothing or too much is marked, or if a
    box is too small.
    """
    height, width = image.shape[:2]
    boxes, drawn = sum(mark["tool"] == "box" for mark in marks), sum((mark["lines"] for mark in marks), [])
    if boxes > MAX_BOXES or len(drawn) > MAX_LINES or sum(map(len, drawn)) > MAX_POINTS:
        most = f"at most {MAX_BOXES} boxes, {MAX_LINES:,} lines and {MAX_POINTS:,} points"
        raise UserError(f"{most} can be marked; press Undo or Clear")
    mask = np.zeros((height, width), np.uint8)
    for mark in marks:
        lines = [(np.array(line) + 0.5) * scale - 0.5 for line in mark["lines"]]
        if mark["tool"] == "box":
            corners = np.clip(lines[0] + 0.5, 0, (width, height))
            if np.ptp(corners, axis=0).min() < MIN_SIDE:
                raise UserError("a box is too small; press Undo, and drag from corner to corner")
            mask |= cut_out(image, (*corners.min(axis=0), *corners.max(axis=0)))
        else:
            side = max(width, height)
            lines = [line.clip(-side, 2 * side).round().astype(np.int32) for line in lines]
            pen = max(1, min(round(scale * mark["width"]), side // 4))
            cv2.polylines(mask, lines, False, int(mark["tool"] == "brush"), pen)
    if not mask.any():
        raise UserError("mark the object in the first picture: paint over it, or draw a box around it")
    return mask


def outline(image: np.ndarray, mask: np.ndarray, color: Color, dashed: bool = False) -> np.ndarray:
    """The picture with the object's outline. The outline has a dark edge, so that it is seen on any color."""
    shown = Image.fromarray(image)
    shown.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    image, mask = np.asarray(shown), fit_mask(mask, (shown.height, shown.width))
    if not dashed:
        side = 2 * max(2, round(shown.height / 240)) + 1
        image = overlay(image, cv2.dilate(mask, np.ones((side, side), np.uint8)), (0, 0, 0))
    return overlay(image, mask, color, dashed)


def load_sample(number: int) -> dict[str, Any]:
    """What the page shows for a sample: its two pictures and the marks on the first one, and no others."""
    folder = SAMPLES_DIR / list(SAMPLES)[number]
    mask = read_mask(folder / "query_mask.png").astype(np.int8)
    changes = np.diff(np.pad(mask, ((0, 0), (1, 1))))  # 1 at the start of a run of the mask's pixels, -1 after its end
    (rows, starts), (_, ends) = np.nonzero(changes == 1), np.nonzero(changes == -1)
    lines = [[[start, row], [end - 1, row]] for row, start, end in np.transpose([rows, starts, ends]).tolist()]
    marks = [{"tool": "brush", "width": 1, "lines": lines}]
    pictures = {"query": str(folder / "query.jpg"), "marks": marks, "target": str(folder / "target.jpg")}
    return {"kept": [], "kept_gallery": None, "more": [], "more_gallery": None, **pictures}


def build_page(predictor: Predictor, caution: str) -> Any:
    """The page (`gr.Blocks`), not yet served. `caution` is said at its foot: what the network cannot do."""
    with gr.Blocks(title="XSegTx", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        gr.Markdown(TO_DO)
        parts = lay_out()
        gr.Markdown(caution)
        connect(parts, predictor)
    process = page.process_api

    async def process_in_one_line(*args: Any, **options: Any) -> Any:
        try:
            return await process(*args, **options)
        except Exception as error:  # gradio would print a traceback, and send the error's text to the visitor
            say_unanswered(error)
            raise gr.Error(NO_ANSWER, print_exception=False) from None

    page.process_api = process_in_one_line
    return page.queue(max_size=30, api_open=False)


def unread_in_one_line(app: Any) -> Any:
    """Middleware of Starlette for requests that gradio cannot read; it would print a traceback."""

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        try:
            await app(scope, receive, send)
        except Exception as error:
            say_unanswered(error)
            with contextlib.suppress(Exception):  # an answer has begun
                await PlainTextResponse(NO_ANSWER, 400)(scope, receive, send)

    return answer


def say_unanswered(error: Exception) -> None:
    """Say a fault of a request, or of ours, on the console."""
    text = " ".join(str(error).split())
    print(f"a request was not answered: {type(error).__name__}: {printable(text):.200}", file=sys.stderr)


def lay_out() -> SimpleNamespace:
    """The parts of the page, by name, in the order in which a visitor needs them."""
    parts = SimpleNamespace()
    upload = {"sources": ("upload", "clipboard"), "buttons": [], "elem_classes": "picture"}
    output = {"interactive": False, "buttons": [], "elem_classes": "picture answer"}
    thumbnails = {"interactive": False, "buttons": [], "elem_classes": "thumbnails", "columns": 3}
    thumbnails |= {"allow_preview": False, "height": "auto"}
    names, unseen = [[f"{name}: {word}"] for name, word in SAMPLES.items()], [gr.Textbox(visible=False)]
    parts.samples = gr.Dataset(components=unseen, samples=names, type="index", label="Try a sample")
    with gr.Row():
        with gr.Column(scale=5, min_width=300):
            parts.query = gr.Image(label="First picture", elem_id="query", **upload)
            script, color = (WEB / "marking.js").read_text(), "rgb({}, {}, {})".format(*QUERY)
            parts.marks = gr.HTML([], elem_id="marks", html_template="", js_on_load=script, color=color)
            look = output | {"elem_classes": "picture"}
            parts.marked = gr.Image(label="What counts as marked", elem_id="marked", **look)
            parts.keep = gr.Button("Keep this, and mark it in one more picture", size="sm", elem_id="keep")
            label = "Also marked: click one to remove it"
            parts.kept_gallery, parts.kept = gr.Gallery(label=label, elem_id="kept", **thumbnails), gr.State([])
        with gr.Column(scale=4, min_width=300):
            parts.target = gr.Image(label="Second picture", elem_id="target", **upload)
            parts.add = gr.UploadButton("Search more pictures", size="sm", file_count="multiple", elem_id="add")
            label = "Also searched: click one to remove it"
            parts.more_gallery, parts.more = gr.Gallery(label=label, elem_id="more", **thumbnails), gr.State([])
            label = "Size of the object in the second picture, compared with the first"
            parts.size = gr.Radio(list(SIZE_WORDS), value=list(SIZE_WORDS)[-1], label=label, elem_id="size")
            parts.find = gr.Button("Find", variant="primary", elem_id="find")
        with gr.Column(scale=5, min_width=300):
            parts.text = gr.Textbox(label="Answer", interactive=False, elem_id="answer")
            label = "In the second picture (dashed: not surely there)"
            parts.found = gr.Image(label=label, elem_id="found", **output | {"buttons": ["download"]})
            parts.gallery = gr.Gallery(label=SEVERAL_PLACES, elem_id="places", **thumbnails)
            parts.places = gr.State()
            with gr.Row(elem_classes="answer"):
                parts.found_mask = gr.DownloadButton("Save the answer's mask", size="sm", elem_id="saved")
                parts.marked_mask = gr.DownloadButton("Save the marked mask", size="sm")
    return parts


def connect(parts: SimpleNamespace, predictor: Predictor) -> None:
    """Let the parts of the page answer a visitor."""
    query, marks, target = parts.query, parts.marks, parts.target
    # gradio refuses a path that is not the path of an upload only if the data model is FileData. With an image's own
    # data model, a request could name any file of this machine.
    query.data_model = target.data_model = FileData
    worker = ThreadPoolExecutor(1)  # what is cancelled has ended before the next answer begins

    async def answer(*inputs: Any) -> dict:
        find = functools.partial(answer_visitor, predictor)
        return updates(parts, await asyncio.get_running_loop().run_in_executor(worker, find, *inputs))

    def choose(places: list, event: gr.SelectData) -> dict:
        return updates(parts, places[event.index])

    cleared = [getattr(parts, name) for name in CLEARED]
    inputs = [query, marks, target, parts.size, parts.kept, parts.more]
    find = parts.find.click(answer, inputs, [*cleared, parts.places], show_progress_on=[parts.text, parts.found], **RAW)
    parts.gallery.select(choose, parts.places, [parts.text, parts.found, parts.found_mask], **SILENT)
    connect_several(parts)
    query.input(None, None, marks, js="() => [[]]")  # a new picture has no marks
    # The gallery of more pictures changes so late that Find can have been pressed: what changes it counts.
    changed = [query.change, marks.input, target.change, parts.size.change, parts.kept_gallery.change]
    changed += [parts.add.upload, parts.more_gallery.select]
    gr.on(changed, None, None, cleared, js=f"() => {json.dumps([*CLEARED.values()])}", cancels=find)
    connect_cut_out(query, marks, parts.marked)


def connect_several(parts: SimpleNamespace) -> None:
    """Let a visitor keep marked pictures, add second ones, remove them, and load a sample."""
    query, marks, target = parts.query, parts.marks, parts.target
    kept, more = [parts.kept, parts.kept_gallery], [parts.more, parts.more_gallery]

    def remove(rows: list, event: gr.SelectData) -> tuple:
        rows = rows[: event.index] + rows[event.index + 1 :]
        return rows, [row.shown for row in rows]

    keep = [query, marks, parts.kept], [parts.text, query, marks, *kept]
    parts.keep.click(lambda *inputs: updates(parts, keep_picture(*inputs)), *keep, **RAW, **SILENT)
    add = [parts.add, target, parts.more], [parts.text, target, *more]
    parts.add.upload(lambda *inputs: updates(parts, add_targets(*inputs)), *add, **RAW, **SILENT)
    parts.kept_gallery.select(remove, parts.kept, kept, **SILENT)
    parts.more_gallery.select(remove, parts.more, more, **SILENT)
    shown = [query, marks, target, *kept, *more]
    parts.samples.click(lambda x: updates(parts, load_sample(x)), parts.samples, shown, queue=False, **SILENT)


def connect_cut_out(query: Any, marks: Any, marked: Any) -> None:
    """Show what a box cuts out as soon as it is drawn."""
    script = "(marks, marked) => [marks.some(mark => mark.tool == 'box') ? marked : null]"  # of a former picture
    options = {"trigger_mode": "always_last", **RAW, **SILENT}
    drawn = marks.input(lambda *inputs: {marked: show_cut_out(*inputs)["marked"]}, [query, marks], marked, **options)
    drawn.then(None, [marks, marked], marked, js=script)


def updates(parts: SimpleNamespace, values: dict[str, Any]) -> dict:
    """What gradio changes: `values`, by the names of the parts."""
    return {getattr(parts, name): value for name, value in values.items()}


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if gr is None:
        raise UserError("gradio is not installed; run pip install -r requirements-demo.txt")
    try:
        socket.create_server((args.host, args.port)).close()
    except OSError as error:
        raise UserError(f"{error.strerror}; give another --port, or a --host of this machine (IPv4)") from None
    predictor = Predictor.load(args.ckpt_path, args.device, **network_options(args))
    print(predictor.recipe.description)
    folder = Path(tempfile.mkdtemp())  # for the pictures of visitors; only this user can read it
    fcntl.flock(os.open(folder, os.O_DIRECTORY), fcntl.LOCK_EX)  # until this process ends
    for left in folder.parent.glob("xsegtx-page-*"):
        with contextlib.suppress(OSError):  # another user's, or locked by a page that runs
            fcntl.flock(os.open(left, os.O_DIRECTORY), fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left)  # its page was killed
    folder = folder.rename(folder.with_name(f"xsegtx-page-{folder.name}"))
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    page = build_page(predictor, "" if args.ckpt_path or args.backbone else CAUTION)
    # Only these names are accepted: another site could let its name lead to this machine, and so use this page in the
    # browsers of its visitors.
    hosts = ["*"] if args.host == "0.0.0.0" else ["localhost", "127.0.0.1", args.host]
    middleware = [Middleware(TrustedHostMiddleware, allowed_hosts=hosts), Middleware(unread_in_one_line)]
    options = {"app_kwargs": {"middleware": middleware}}
    options |= {"max_file_size": MAX_FILE, "allowed_paths": [str(SAMPLES_DIR)], "ssr_mode": False}
    options |= {"css_paths": WEB / "page.css", "footer_links": [], "quiet": True, "prevent_thread_lock": True}
    _, address, _ = page.launch(server_name=args.host, server_port=args.port, **options)
    for number in signal.SIGINT, signal.SIGTERM:  # the page ends by becoming rm: no thread of it can write afterwards
        signal.signal(number, lambda *_: os.execlp("rm", "rm", "-rf", folder))
    print(f"Open {address} in a browser; Ctrl-C ends the page", flush=True)
    page.block_thread()


if __name__ == "__main__":
    run_script(main)
