"""A page to click on: mark an object in one picture, and find it in another.

    python inference/demo.py

It needs gradio (pip install -r requirements-demo.txt), asks nothing of the network outside, and answers this machine
alone unless --host says otherwise. Ctrl-C ends it.
"""

import contextlib
import functools
import re
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from common.cpu import tune_cpu
from common.errors import run_script, say_errors

say_errors(__name__)
tune_cpu(__name__, keep_memory=False)

import cv2
import numpy as np

try:
    import gradio as gr
    from starlette.datastructures import Headers
    from starlette.middleware import Middleware
    from starlette.requests import ClientDisconnect
    from starlette.responses import PlainTextResponse
except ImportError:  # the page is an extra
    gr = None

from common.arguments import Parser, add_backbone_weights, add_device, at_least
from common.drawing import PREDICTION, QUERY, overlay
from common.errors import UserError
from formats.geometry import Size
from formats.mask_pictures import read_mask
from formats.picture_files import open_picture, picture_errors, read_picture
from formats.results import THRESHOLD
from inference.cut_out import cut_out
from inference.pictures import as_mask
from inference.predictor import CKPT_HELP, SHIPPED, Predictor

SAMPLES = Path(__file__).resolve().parents[1] / "assets" / "samples"
SIDE = 1600  # long side of the pictures that the network and the visitor see, pixels, at most
MAX_FILE = 30 * 2**20  # bytes of an upload
MAX_REQUEST = 2**16  # bytes of any other request: they are kept in memory
MAX_WAITING, MAX_VISITORS = 20, 1000  # questions, and visitors whose last question is kept
PAINTED = ("the object", "around it: a ring, or two opposite corners")
CAMERAS = {"not known": None, "the query": "ego-exo", "the target": "exo-ego"}
LIMITS = """The network of this repository is small and has seen rendered pictures alone: it takes look-alikes for the
object, and its probability of objects that were not there has been as high as 70 %."""
CSS = "#answer textarea {font-weight: bold}"
# The editor's own events would have all of the painting sent at each stroke, to be kept in memory.
ON_PAINTING = """() => ["pointerdown", "keydown"].forEach(kind => document.addEventListener(kind, event =>
    event.target.closest("#painting") && document.querySelector("#changed").click(), true))"""


class Given(NamedTuple):
    """What a visitor has given, as the page sends it: of files {"path", ...}."""

    query: dict | None
    target: dict | None
    mask: dict | None
    painting: dict | None
    painted: str
    box: str
    camera: str


class Answer(NamedTuple):
    """What the page shows: two (H, W, 3) RGB pictures, and the (H, W) mask of 0 and 255, as large as the target."""

    text: str = ""
    query: np.ndarray | None = None
    target: np.ndarray | None = None
    mask: np.ndarray | None = None


def find(predictor: Predictor, given: Given) -> Answer:
    """The target picture with what was found in it; or the text says what is missing or wrong."""
    try:
        query = read_upload(given.query, "query picture")
        mask = object_mask(query, given)
        query, mask = reduced(query), reduced(mask)  # large ones are let go before the next one is read
        shown = overlay(query, mask, QUERY)
        if not given.target:
            return Answer("this is the object that you gave; now give the target picture", shown)
        target = read_upload(given.target, "target picture")
        size, target = target.shape[1::-1], reduced(target)
        found, existence = predictor.segment(query, mask, target, setting=CAMERAS[given.camera])
    except UserError as error:
        return Answer(str(error))
    visible = existence > THRESHOLD
    text = f"{'found' if visible else 'not visible'} ({existence:.0%})"
    drawn = overlay(target, found, PREDICTION, dashed=not visible)
    return Answer(text, shown, drawn, cv2.resize(found * 255, size, interpolation=cv2.INTER_NEAREST))


def object_mask(image: np.ndarray, given: Given) -> np.ndarray:
    """The object in the query picture, (H, W) uint8 of 0 and 1, by the one way in which it is given."""
    layers = given.painting["layers"] if given.painting else []
    read = functools.partial(read_painting, size=reduced_size(image.shape[:2]))
    painting = read_upload(layers[0], "painting", read) if layers else np.zeros((1, 1), np.uint8)
    ways = {"painted": painting.any(), "given by a box": given.box.strip(), "given by a mask": given.mask}
    used = [way for way, value in ways.items() if value]
    if len(used) != 1:
        raise UserError(f"the object is {' and '.join(used) or 'missing'}; paint it, or give a box, or give a mask")
    if given.box.strip():
        return cut_out(image, given.box)
    if given.mask:
        painting = as_mask(read_upload(given.mask, "mask", read_mask), "the mask", image.shape[:2])
    mask = cv2.resize(painting, image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    if given.mask or given.painted == PAINTED[0]:
        return mask
    left, top, width, height = cv2.boundingRect(mask)
    return cut_out(image, (left, top, left + width, top + height))


def read_painting(path: Path, size: Size) -> np.ndarray:
    """What was painted over a picture of `size` -> (H, W) uint8 of 0 and 1."""
    image = open_picture(path)
    if image.size[::-1] != size:
        raise UserError(f"{path} is of another query picture; paint again")
    with picture_errors(str(path)):
        return (np.asarray(image.convert("RGBA"))[..., 3] >= 128).astype(np.uint8)


def read_upload(file: dict | None, what: str, read: Callable[[Path], np.ndarray] = read_picture) -> np.ndarray:
    """What a file that a visitor gave holds. Raises UserError, which names `what` it is, and no path."""
    if not file:
        raise UserError(f"the {what} is missing; give it first")
    path = Path(file["path"])
    try:
        return read(path)
    except UserError as error:
        raise UserError(str(error).replace(str(path), f"the {what} {path.name}")) from None


def reduced_size(size: Size) -> Size:
    scale = min(1, SIDE / max(size))
    return tuple(max(1, round(length * scale)) for length in size)


def reduced(image: np.ndarray) -> np.ndarray:
    """A copy, with a long side of SIDE at most."""
    return cv2.resize(np.ascontiguousarray(image), reduced_size(image.shape[:2])[::-1], interpolation=cv2.INTER_AREA)


def to_paint_on(query: dict | None) -> tuple[np.ndarray | None, str]:
    """The query picture, or what is wrong with it."""
    try:
        return reduced(read_upload(query, "query picture")) if query else None, ""
    except UserError as error:
        return None, str(error)


def build_page(predictor: Predictor, limits: str) -> "gr.Blocks":
    """Functions get what the page sends as it is (preprocess=False), since gradio's own reader knows no limits; that a
    path is one of an upload is checked nevertheless.
    """
    upload = {"sources": ("upload", "clipboard"), "height": 220, "min_width": 200}
    shown = {"interactive": False, "buttons": ["fullscreen", "download"], "min_width": 300, "height": 320}
    brush = gr.Brush(colors=["#{:02x}{:02x}{:02x}".format(*QUERY)], color_mode="fixed")
    asking = {"preprocess": False, "concurrency_id": "network", "concurrency_limit": 1}  # one at a time, in order
    with gr.Blocks(title="XSegTx", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        gr.Markdown(f"# The same object, seen by another camera\n{predictor.description}. {limits}")
        with gr.Row():
            query = gr.Image(label="Query picture", elem_id="query", **upload)
            target = gr.Image(label="Target picture", elem_id="target", **upload)
            mask = gr.Image(label="Mask, if you have one", elem_id="mask", **upload)
        files = ("query.jpg", "target.jpg", "query_mask.png")
        pairs = sorted(path.parent for path in SAMPLES.glob("*/query.jpg"))  # the others are videos
        samples = [[str(folder / file) for file in files] for folder in pairs]
        gr.Examples(samples, [query, target, mask], label="Samples")
        tools = {"sources": (), "transforms": (), "layers": False, "brush": brush}
        painting = gr.ImageEditor(label="The object", elem_id="painting", height="min(90vh, 90vw)", **tools)
        painting.accept_blobs = None  # keeps whatever it is sent in memory
        with gr.Row():
            painted = gr.Radio(PAINTED, value=PAINTED[0], label="Paint", elem_id="painted", min_width=300)
            box = gr.Textbox(label="Or a box: left, top, right, bottom in pixels", elem_id="box", min_width=300)
            label = "Of a head-worn camera"
            camera = gr.Radio(list(CAMERAS), value="not known", label=label, elem_id="camera", min_width=300)
        button = gr.Button("Find it", variant="primary", elem_id="find")
        text = gr.Textbox(label="Answer", interactive=False, elem_id="answer")
        with gr.Row():
            given = gr.Image(label="Yellow: the given object", format="jpeg", elem_id="given", **shown)
            found = gr.Image(label="Pink: found; dashed: not visible", format="jpeg", elem_id="found", **shown)
            saved = gr.Image(label="Its mask, to save", format="png", elem_id="saved", **shown)
        changed = gr.Button(visible="hidden", elem_id="changed")

        inputs, outputs = [query, target, mask, painting, painted, box, camera], [text, given, found, saved]
        asked = button.click(lambda *values: find(predictor, Given(*values)), inputs, outputs, **asking)
        forget = {"fn": Answer, "outputs": outputs, "queue": False, "cancels": asked, "show_progress": "hidden"}
        gr.on([changed.click, *(one.change for one in (target, mask, painted, box, camera))], **forget)
        query.change(**forget).then(to_paint_on, query, [painting, text], **asking)
        page.load(js=ON_PAINTING)
    return page.queue(max_size=MAX_WAITING, api_open=False)


def door(app: Callable, host: str) -> Callable:
    """The ASGI app, for requests that name this machine or `host` as theirs, and are not too large.

    A page elsewhere can have its own name lead here, and would be obeyed; a bare address can not. So if `host` stands
    for all addresses of this machine, any address is taken, and this machine's name.
    """
    names = {"localhost", "127.0.0.1", "::1", host.strip("[]").lower()}
    all_addresses = not names.isdisjoint({"0.0.0.0", "::"})
    if all_addresses:
        names |= {socket.gethostname().lower(), socket.getfqdn().lower()}

    async def guarded(scope: dict, receive: Callable, send: Callable) -> None:
        answer = app
        if scope["type"] != "lifespan":
            headers = Headers(scope=scope)
            name = re.sub(r":\d*$", "", headers.get("host", "")).strip("[]").lower()
            limit = MAX_REQUEST + (MAX_FILE if scope["path"].endswith("/upload") else 0)
            if name not in names and not (all_addresses and re.fullmatch(r"[\d.]+|.*:.*", name)):
                answer = PlainTextResponse("This page is not at this host; start it with --host\n", 400)
            elif scope.get("method") == "POST" and int(headers.get("content-length", limit + 1)) > limit:
                answer = PlainTextResponse("Too large\n", 413)
        with contextlib.suppress(ClientDisconnect):  # a visitor who leaves during an upload is no fault
            await answer(scope, receive, send)

    return guarded


def main(argv: list[str] | None = None) -> None:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--ckpt_path", type=Path, default=SHIPPED, help=CKPT_HELP)
    add_backbone_weights(parser)
    add_device(parser)
    everybody = "0.0.0.0: everybody who can reach this machine, by any of its addresses or by its name"
    add("--host", default="127.0.0.1", help=f"name or address to be reached by, besides localhost; {everybody}")
    add("--port", type=at_least(1), default=7860, help="of the page")
    args = parser.parse_args(argv)
    if gr is None:
        raise UserError("gradio is not installed; run pip install -r requirements-demo.txt")
    predictor = Predictor.load(args.ckpt_path, args.device, None, backbone_weights=args.backbone_weights)
    print(f"{args.ckpt_path}: {predictor.description}")
    page = build_page(predictor, LIMITS if args.ckpt_path == SHIPPED else "")
    options = {"css": CSS, "ssr_mode": False, "footer_links": [], "show_error": True, "max_file_size": MAX_FILE}
    options |= {"state_session_capacity": MAX_VISITORS, "app_kwargs": {"middleware": [Middleware(door, args.host)]}}
    name = f"[{args.host.strip('[]')}]" if ":" in args.host else args.host  # IPv6
    try:
        page.launch(server_name=name, server_port=args.port, **options)
    except OSError:
        where = f", or {args.host} is no address of this machine: --host" if args.host != "127.0.0.1" else ""
        raise UserError(f"port {args.port} is taken; give --port{where}") from None


if __name__ == "__main__":
    run_script(main)
