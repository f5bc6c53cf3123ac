"""Serve a web page: mark an object in one picture, and see where it is in another.

    python inference/demo.py

It needs gradio (pip install -r requirements-demo.txt), loads nothing from other machines, and opens on this machine
only, unless --host admits others. Ctrl-C ends it, and deletes the pictures that visitors gave.
"""

import argparse
import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from common.errors import UserError, run_script, say_errors

say_errors(__name__)

import cv2
import numpy as np
from PIL import Image

from common.arguments import CKPT_HELP, Parser, add_network_options, at_least, network_options

try:
    import gradio as gr
    from gradio.data_classes import FileData
    from gradio.processing_utils import save_pil_to_cache
    from gradio.utils import get_upload_folder
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
except ImportError:  # gradio is not in requirements.txt
    gr: Any = None

from common.drawing import PREDICTION, QUERY, Color, around, overlay
from common.existence import SURELY_VISIBLE, verdict
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
MAX_PIXELS = 25_000_000  # of a picture; an answer takes 0.25 s for each million, while all other visitors wait
MAX_SIDE = 10_000  # pixels of a picture's long side; an answer can need a square of this side, 700 MB
MAX_KEPT, MAX_MORE = 3, 8  # first pictures beside the one that is marked, and second ones beside the one that is shown
MAX_BOXES, MAX_LINES, MAX_POINTS = 10, 1000, 10_000  # of the marks; a box takes about 1 s, while all others wait
SHOWN_SIDE = 1600  # pixels that the long side of a shown picture has at most
SIZE_WORDS = {"smaller": "smaller", "about as large": "same", "larger": "larger", "I don't know": None}
TO_DO = """### Find an object again in another picture
Give a first picture, and mark an object in it: paint over the object, or draw a box around it. Up to three more
pictures of the object can help. Give a second picture, or several, and press Find. Your pictures stay on the machine
that serves this page, and are deleted when it ends."""
LIMITS = """Look at each answer; it can be wrong. For 8 of 24 photographs that show only something of the same kind, the
answer was "there". More than half of the small things, such as a cup across a room, are missed."""


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
    kept: Sequence[tuple] = (),
    more: Sequence[tuple] = (),
) -> tuple:
    """What the page shows after Find: the answer as a text, the picture with the found object, its mask as a file, and
    the same two files of the marked object. Then, if there are several answers, their pictures and existences; and what
    a click on each of them shows. Several answers are the places in one second picture, or the answers for several,
    the likeliest first. If an input is missing or wrong, the text says so, and all others are None.

    The inputs are as the browser sends them; `kept` is the list of `keep_picture`, `more` of `add_targets`.
    """
    try:
        given = [row[:2] for row in kept] + ([(query, marks)] if query or not kept else [])
        images = [read_upload(file, "first") for file, _ in given]
        targets = ([target] if target or not more else []) + [file for file, _ in more]
        masks = [mask_of_marks(image, drawn) for image, (_, drawn) in zip(images, given, strict=True)]
        found = []
        for file in targets:  # one after the other, because each takes so much memory
            image, name = read_upload(file, "second"), f" in {Path(file['path']).name}" if more else ""
            places = predictor.places(images, masks, image, 1 if more else PLACES, size=SIZE_WORDS[size])
            found += [(place.existence, *shown_place(image, place, name)) for place in places]
    except UserError as error:
        return str(error), *[None] * 6
    if more:
        found.sort(key=lambda answer: -answer[0])
    gallery = [close_up for _, close_up, *_ in found] if len(found) > 1 else None
    marked = file_of(outline(images[-1], masks[-1], QUERY), "marked", "webp"), file_of(masks[-1] * 255, "marked_mask")
    shown = [answer[2:] for answer in found]
    return *shown[0], *marked, gallery, shown


def shown_place(target: np.ndarray, place: Found, name: str) -> tuple[tuple[str, str], str, str, str]:
    """For the gallery, a place from nearby and its existence; what is said of the place, the target with its outline,
    and its mask.
    """
    is_dashed, near = place.existence < SURELY_VISIBLE, around(place.mask, 3)
    close_up = file_of(outline(target[near], place.mask[near], PREDICTION, is_dashed), "place", "webp")
    shown = file_of(outline(target, place.mask, PREDICTION, is_dashed), "found", "webp")
    said = verdict(place.existence).capitalize() + name
    return (close_up, f"{int(100 * place.existence)} %"), said, shown, file_of(place.mask * 255, "found_mask")


def show_cut_out(query: Any, marks: list) -> str | None:
    """The picture with the outline of what counts as marked, if a box is among the marks: nobody has painted that."""
    try:
        if any(mark["tool"] == "box" for mark in marks):
            image = read_upload(query, "first")
            return file_of(outline(image, mask_of_marks(image, marks), QUERY), "marked", "webp")
    except UserError:
        pass  # is said after Find
    return None


def keep_picture(query: Any, marks: list, kept: list[tuple]) -> tuple:
    """Keep a marked first picture, and make room for the next one. Returns a text, which says why if it cannot be kept;
    the list of kept pictures, each as (file, marks, file of the picture with the object's outline); these outlined
    pictures, for the gallery; and no picture with no marks.
    """
    try:
        if len(kept) == MAX_KEPT:
            raise UserError(f"no more than {MAX_KEPT} pictures can be kept; click one to remove it")
        image = read_upload(query, "first")
        mask = mask_of_marks(image, marks)
    except UserError as error:
        return str(error), *[gr.skip()] * 4
    kept = [*kept, (query, marks, file_of(outline(image, mask, QUERY), "marked", "webp"))]
    return "", kept, [shown for *_, shown in kept], None, []


def add_targets(files: list[dict], target: Any, more: list[tuple]) -> tuple:
    """Add second pictures. If none is shown yet, the first of them is `target`. Returns a text, which says why if they
    cannot be added; the path of the shown picture; the list of added pictures, each as (file, (file of a smaller
    picture, name)); and these smaller pictures with their names, for the gallery.
    """
    first = 0 if target else 1  # of the added ones
    rows = []
    try:
        if len(more) + len(files[first:]) > MAX_MORE:
            raise UserError(f"no more than {MAX_MORE} more second pictures can be given; click one to remove it")
        for file in files:
            image = read_upload(file, "second")
            blank = outline(image, np.zeros(image.shape[:2], np.uint8), QUERY)
            rows.append((file, (file_of(blank, "more", "webp"), Path(file["path"]).name)))
    except UserError as error:
        return str(error), *[gr.skip()] * 3
    more = more + rows[first:]
    return "", gr.skip() if target else files[0]["path"], more, [shown for _, shown in more]


def read_upload(file: dict | None, which: str) -> np.ndarray:
    """The picture of an upload. Raises UserError, without a path of this machine, if it is missing or unfit."""
    if not file:
        raise UserError(f"give the {which} picture")
    try:
        image = read_picture(Path(file["path"]))
    except UserError as error:
        raise UserError(str(error).replace(file["path"], Path(file["path"]).name)) from None
    if max(image.shape) > MAX_SIDE:
        raise UserError(f"a picture is more than {MAX_SIDE} pixels long; reduce it")
    return image


def file_of(image: np.ndarray, name: str, form: str = "png") -> str:
    return save_pil_to_cache(Image.fromarray(image), get_upload_folder(), name, form)


def mask_of_marks(image: np.ndarray, marks: list[dict]) -> np.ndarray:
    """The marks (see web/marking.js) on a picture (H, W, 3) uint8 RGB -> the object's mask, (H, W) uint8 of 0 and 1.
    Raises UserError if nothing or too much is marked, or if a box is too small.
    """
    height, width = image.shape[:2]
    boxes, drawn = sum(mark["tool"] == "box" for mark in marks), sum((mark["lines"] for mark in marks), [])
    if boxes > MAX_BOXES or len(drawn) > MAX_LINES or sum(map(len, drawn)) > MAX_POINTS:
        most = f"at most {MAX_BOXES} boxes, {MAX_LINES:,} lines and {MAX_POINTS:,} points"
        raise UserError(f"{most} can be marked; press Undo or Clear")
    mask = np.zeros((height, width), np.uint8)
    for mark in marks:
        lines = [np.array(line) for line in mark["lines"]]
        if mark["tool"] == "box":
            corners = np.clip(lines[0] + 0.5, 0, (width, height))
            if np.ptp(corners, axis=0).min() < MIN_SIDE:
                raise UserError("a box is too small; press Undo, and drag from corner to corner")
            mask |= cut_out(image, (*corners.min(axis=0), *corners.max(axis=0)))
        else:
            lines = [line.round().astype(np.int32) for line in lines]
            pen = max(1, min(round(mark["width"]), max(width, height) // 4))
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


def load_sample(number: int) -> tuple:
    """What the page shows for a sample: no added and no kept pictures with empty galleries of them, the first picture,
    the marks on it, and the second picture.
    """
    folder = SAMPLES_DIR / list(SAMPLES)[number]
    mask = read_mask(folder / "query_mask.png").astype(np.int8)
    changes = np.diff(np.pad(mask, ((0, 0), (1, 1))))  # 1 at the start of a run of the mask's pixels, -1 after its end
    (rows, starts), (_, ends) = np.nonzero(changes == 1), np.nonzero(changes == -1)
    lines = [[[start, row], [end - 1, row]] for row, start, end in np.transpose([rows, starts, ends]).tolist()]
    marks = [{"tool": "brush", "width": 1, "lines": lines}]
    return [], None, [], None, str(folder / "query.jpg"), marks, str(folder / "target.jpg")


def build_page(predictor: Predictor, limits: str) -> Any:
    """The page (`gr.Blocks`), not yet served. `limits` is said at its foot: what the network cannot do."""
    with gr.Blocks(title="XSegTx", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        gr.Markdown(TO_DO)
        parts = lay_out()
        gr.Markdown(f"{limits}\n\n({predictor.recipe.description})")
        connect(parts, predictor)
    return page.queue(max_size=30, api_open=False)


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
            label = "Likeliest first: click one to see it"
            parts.gallery, parts.places = gr.Gallery(label=label, elem_id="places", **thumbnails), gr.State()
            with gr.Row(elem_classes="answer"):
                parts.found_mask = gr.DownloadButton("Save the answer's mask", size="sm", elem_id="saved")
                parts.marked_mask = gr.DownloadButton("Save the marked mask", size="sm")
    return parts


def connect(parts: SimpleNamespace, predictor: Predictor) -> None:
    """Let the parts of the page answer a visitor."""
    query, marks, target, marked = parts.query, parts.marks, parts.target, parts.marked
    # gradio refuses a path that is not the path of an upload only if the data model is FileData. With an image's own
    # data model, a request could name any file of this machine.
    query.data_model = target.data_model = FileData
    outputs = [parts.text, parts.found, parts.found_mask, marked, parts.marked_mask, parts.gallery]
    first, others = [parts.kept, parts.kept_gallery, query, marks], [parts.more, parts.more_gallery]
    worker = ThreadPoolExecutor(1)  # what is cancelled has ended before the next answer begins

    async def answer(*values: Any) -> tuple:
        return await asyncio.get_running_loop().run_in_executor(worker, answer_visitor, predictor, *values)

    def choose(places: list, event: gr.SelectData) -> tuple:
        return places[event.index]

    def remove(kept: list, event: gr.SelectData) -> tuple:
        kept = kept[: event.index] + kept[event.index + 1 :]
        return kept, [shown for *_, shown in kept]

    # Without preprocess, our own reader reads the pictures: its errors name the file and the reason.
    raw, silent = {"preprocess": False}, {"show_progress": "hidden"}
    inputs = [query, marks, target, parts.size, parts.kept, parts.more]
    find = parts.find.click(answer, inputs, [*outputs, parts.places], show_progress_on=outputs[:2], **raw)
    parts.keep.click(keep_picture, [query, marks, parts.kept], [parts.text, *first], **raw, **silent)
    added = [parts.add, target, parts.more]
    parts.add.upload(add_targets, added, [parts.text, target, *others], **raw, **silent)
    parts.gallery.select(choose, parts.places, outputs[:3], **silent)
    parts.kept_gallery.select(remove, parts.kept, first[:2], **silent)
    parts.more_gallery.select(remove, parts.more, others, **silent)
    parts.samples.click(load_sample, parts.samples, [*others, *first, target], queue=False, **silent)
    query.input(None, None, marks, js="() => [[]]")  # a new picture has no marks
    # The gallery of more pictures changes so late that Find can have been pressed: what changes it counts.
    changed = [query.change, marks.input, target.change, parts.size.change, parts.kept_gallery.change]
    changed += [parts.add.upload, parts.more_gallery.select]
    script = "marks => ['', null, null, null, null, null]"
    gr.on(changed, None, marks, outputs, js=script, cancels=find)
    script = "(marks, marked) => [marks.some(mark => mark.tool == 'box') ? marked : null]"  # of a former picture
    shown = marks.input(show_cut_out, [query, marks], marked, trigger_mode="always_last", **raw, **silent)
    shown.then(None, [marks, marked], marked, js=script)


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
    page = build_page(predictor, "" if args.ckpt_path or args.backbone else LIMITS)
    # Only these names are accepted: another site could let its name lead to this machine, and so use this page in the
    # browsers of its visitors.
    hosts = ["*"] if args.host == "0.0.0.0" else ["localhost", "127.0.0.1", args.host]
    options = {"app_kwargs": {"middleware": [Middleware(TrustedHostMiddleware, allowed_hosts=hosts)]}}
    options |= {"max_file_size": MAX_FILE, "allowed_paths": [str(SAMPLES_DIR)], "show_error": True, "ssr_mode": False}
    options |= {"css_paths": WEB / "page.css", "footer_links": [], "quiet": True, "prevent_thread_lock": True}
    _, address, _ = page.launch(server_name=args.host, server_port=args.port, **options)
    for number in signal.SIGINT, signal.SIGTERM:  # the page ends by becoming rm: no thread of it can write afterwards
        signal.signal(number, lambda *_: os.execlp("rm", "rm", "-rf", folder))
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    print(f"Open {address} in a browser; Ctrl-C ends the page", flush=True)
    page.block_thread()


if __name__ == "__main__":
    run_script(main)
