"""A page to click on: mark an object in one picture, and find it in another.

    python inference/demo.py

It needs gradio (pip install -r requirements-demo.txt), asks nothing of the network outside, and answers this machine
alone unless --host says otherwise. Ctrl-C ends it.
"""

import re
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from common.cpu import tune_cpu
from common.errors import run_script, say_errors

say_errors(__name__)
tune_cpu(__name__, keep_memory=False)

import cv2
import numpy as np
from PIL import Image

try:
    import gradio as gr
    from gradio.processing_utils import save_pil_to_cache
    from gradio.utils import abspath, get_upload_folder
    from starlette.datastructures import Headers
    from starlette.middleware import Middleware
    from starlette.responses import PlainTextResponse
except ImportError:  # the page is an extra
    gr = None

from common.arguments import Parser, add_backbone_weights, add_device, at_least
from common.drawing import PREDICTION, QUERY, overlay
from common.errors import UserError
from formats.geometry import Size, resize
from formats.mask_pictures import read_mask
from formats.masks import fit_mask
from formats.picture_files import open_picture, picture_errors, read_picture
from formats.results import THRESHOLD
from inference.cut_out import cut_out
from inference.predictor import CKPT_HELP, SHIPPED, Predictor

SAMPLES_DIR = Path(__file__).resolve().parents[1] / "assets" / "samples"
SAMPLES = sorted(path.parent for path in SAMPLES_DIR.glob("*/query.jpg"))  # without those of videos
SIDE, PAINT_SIDE = 1600, 800  # long sides of the pictures that the network sees, and of the one painted on, at most
MAX_FILE = 30 * 2**20  # bytes of an upload
OPACITY = 0.5  # opacity of paint
DABS = 0.15  # two dabs cover at most this share of the box between them; paint that covers more is the object
CAMERAS = {"not known": None, "the first": "ego-exo", "the other": "exo-ego"}
TO_DO = "Give two pictures. Paint over an object in the first, or dab two opposite corners of a box around it. Find."
LIMITS = """The network of this repository is small and has seen rendered pictures alone: it takes look-alikes for the
object, and its probability of objects that were not there has often been above 50 %."""
CSS = "#answer textarea {font-weight: bold}"
# The editor's own events would have all of the painting sent at each stroke, to be kept in memory.
ON_PAINTING = """() => ["pointerdown", "keydown"].forEach(kind => document.addEventListener(kind, event =>
    event.target.closest("#painting") && document.querySelector("#changed").click(), true))"""


class Reply(NamedTuple):
    """`marked`: the object in the query picture, (H, W) of 0 and 1, which `is_cut` out of a box or painted. `picture`:
    the target, RGB, with what was found in it. `mask` of that, (H, W) of 0 and 1, as large as the target's file.
    """

    text: str = ""
    marked: np.ndarray | None = None
    is_cut: bool = False
    picture: np.ndarray | None = None
    mask: np.ndarray | None = None


def find(predictor: Predictor, query: dict | None, target: dict | None, painting: dict | None, camera: str) -> Reply:
    """What is found, in files as the page sends them; or a text that says what is missing or wrong."""
    marked, box = None, None
    try:
        query = reduced(read_upload(query, "first picture"))
        paint = paint_mask(painting, query.shape[:2])
        box = dab_box(paint)
        marked = cut_out(query, box) if box else paint
        target = read_upload(target, "other picture")
        size, target = target.shape[:2], reduced(target)
        mask, existence = predictor.segment(query, marked, target, setting=CAMERAS[camera])
    except UserError as error:
        return Reply(str(error), marked, box is not None)
    visible, percent = existence > THRESHOLD, f"{100 * existence:.0f} %"
    text = f"found ({percent})" if visible else f"not visible ({percent} that it is)"
    picture = overlay(target, mask, PREDICTION, dashed=not visible)
    return Reply(text, marked, box is not None, picture, fit_mask(mask, size))


def paint_mask(painting: dict | None, size: Size) -> np.ndarray:
    """The paint over a picture of `size` -> (H, W) uint8 of 0 and 1. Raises UserError if there is none."""
    mask = np.zeros(size, np.uint8)
    for layer in painting["layers"] if painting else ():
        mask |= fit_mask(read_upload(layer, "painting", read_paint), size)
    if not mask.any():
        raise UserError("mark the object in the first picture: paint over it, or dab two corners of a box around it")
    return mask


def read_paint(path: Path) -> np.ndarray:
    """A layer of the editor -> (H, W) uint8, 1 where it has paint."""
    with picture_errors(str(path)), open_picture(path) as image:
        return (np.asarray(image.convert("RGBA"))[..., 3] > 255 * OPACITY / 2).astype(np.uint8)


def dab_box(mask: np.ndarray) -> tuple[float, ...] | None:
    """The box between the middles of two dabs (left, top, right, bottom), in pixels; None if the mask shows no dabs."""
    _, _, stats, middles = cv2.connectedComponentsWithStats(mask)
    wide, high, areas = stats[1:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT, cv2.CC_STAT_AREA]].T  # without the background
    box = *middles[1:].min(axis=0), *middles[1:].max(axis=0)
    are_round = (wide <= 2 * high) & (high <= 2 * wide)
    are_dabs = len(areas) == 2 and are_round.all() and areas.sum() <= DABS * (box[2] - box[0]) * (box[3] - box[1])
    return box if are_dabs else None


def read_upload(file: dict | None, what: str, read: Callable[[Path], np.ndarray] = read_picture) -> np.ndarray:
    """The content of a visitor's file. Raises UserError, which names `what` it is, and no path; also for a file that is
    not in the page's own folder, which gradio does not check of pictures.
    """
    if not file:
        raise UserError(f"give the {what}")
    path = abspath(file["path"])
    if not path.is_relative_to(abspath(get_upload_folder())):
        raise UserError(f"give the {what} by an upload")
    try:
        return read(path)
    except UserError as error:
        raise UserError(str(error).replace(str(path), f"the {what} {path.name}")) from None


def reduced(image: np.ndarray, side: int = SIDE) -> np.ndarray:
    """A copy, with a long side of `side` at most."""
    scale = min(1, side / max(image.shape[:2]))
    height, width = (max(1, round(length * scale)) for length in image.shape[:2])
    return resize(np.ascontiguousarray(image), (height, width))


def to_paint_on(query: np.ndarray, mask: np.ndarray | None = None) -> dict[str, Any]:
    """The editor's content: the query picture, and the object's mask, if it is known, as paint."""
    query = reduced(query, PAINT_SIDE)
    layers = []
    if mask is not None:
        opacity = np.uint8(255 * OPACITY * fit_mask(mask, query.shape[:2]))
        layers = [np.dstack([np.full_like(query, QUERY), opacity])]
    return {"background": query, "layers": layers, "composite": None}


def start_painting(query: dict | None, mask: np.ndarray | None = None) -> tuple[dict[str, Any] | None, str]:
    """The query picture to paint on, or the answer that says what is wrong with it."""
    try:
        return to_paint_on(read_upload(query, "first picture"), mask) if query else None, gr.skip()
    except UserError as error:
        return None, str(error)


def save_download(image: np.ndarray | None, name: str) -> str | None:
    """Write a picture, or a mask with 1 as white, for the page -> its path. The browser saves it by `name`."""
    if image is None:
        return None
    image = Image.fromarray(image * 255 if image.ndim == 2 else image)
    return save_pil_to_cache(image, get_upload_folder(), *name.split("."))


def answer(predictor: Predictor, query: dict | None, *inputs: Any) -> tuple:
    """`find` for the page: text, found picture, mask files of the target and of the query, what the editor shows."""
    text, marked, is_cut, picture, mask = find(predictor, query, *inputs)
    painting = start_painting(query, marked)[0] if is_cut else gr.skip()
    images = {"found.jpeg": picture, "mask.png": mask, "query_mask.png": marked}
    return text, *(save_download(image, name) for name, image in images.items()), painting


def load_sample(number: int) -> tuple:
    """Query picture, target picture, and what the editor shows."""
    query, target, mask = (SAMPLES[number] / name for name in ("query.jpg", "target.jpg", "query_mask.png"))
    return str(query), str(target), to_paint_on(read_picture(query), read_mask(mask))


def lay_out(footer: str) -> SimpleNamespace:
    """The parts of the page, by name."""
    upload = {"sources": ("upload", "clipboard"), "min_width": 200}
    output = {"interactive": False, "buttons": ["fullscreen", "download"], "height": 400}
    brush = gr.Brush(6, colors=[("#{:02x}{:02x}{:02x}".format(*QUERY), OPACITY)], color_mode="fixed")
    tools = {"sources": (), "transforms": (), "layers": False, "brush": brush, "format": "png", "placeholder": " "}
    parts = SimpleNamespace()
    gr.Markdown(f"### The same object, seen by another camera\n{TO_DO}")
    with gr.Row():
        with gr.Column(scale=5, min_width=300):
            parts.query = gr.Image(label="First picture", elem_id="query", height=130, **upload)
            label = "The object in it"
            # The editor draws a given layer in its place only if no larger canvas was there just before.
            parts.painting = gr.ImageEditor(label=label, elem_id="painting", height=400, canvas_size=(1, 1), **tools)
        with gr.Column(scale=3, min_width=250):
            parts.target = gr.Image(label="Other picture", elem_id="target", height=300, **upload)
            label = "Of a head-worn camera"
            parts.camera = gr.Radio(list(CAMERAS), value="not known", label=label, elem_id="camera")
            parts.button = gr.Button("Find", variant="primary", elem_id="find")
        with gr.Column(scale=5, min_width=300):
            parts.text = gr.Textbox(label="Answer", interactive=False, elem_id="answer")
            parts.picture = gr.Image(label="Pink: found; dashed: not visible", elem_id="found", **output)
            with gr.Row():
                parts.mask = gr.DownloadButton("Save its mask", elem_id="saved")
                parts.query_mask = gr.DownloadButton("Save the first one's mask")
    pictures = [[str(folder / "query.jpg")] for folder in SAMPLES]
    parts.samples = gr.Dataset(components=[gr.Image(visible=False)], samples=pictures, type="index", label="Samples")
    gr.Markdown(footer)
    parts.changed = gr.Button(visible="hidden", elem_id="changed")
    return parts


def build_page(predictor: Predictor, limits: str) -> "gr.Blocks":
    """Functions get what the page sends as it is (preprocess=False), since gradio's own reader knows no limits."""
    in_order = {"preprocess": False, "concurrency_id": "network", "concurrency_limit": 1}  # one question at a time
    quiet = {"queue": False, "show_progress": "hidden"}
    with gr.Blocks(title="XSegTx", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        parts = lay_out(f"{predictor.description}. {limits}")
        inputs = [parts.query, parts.target, parts.painting, parts.camera]
        outputs = [parts.text, parts.picture, parts.mask, parts.query_mask, parts.painting]
        in_order["show_progress_on"] = outputs[:2]
        question = parts.button.click(lambda *values: answer(predictor, *values), inputs, outputs, **in_order)
        forget = {"fn": lambda: ("", None, None, None), "outputs": outputs[:4], "cancels": question, **quiet}
        gr.on([parts.changed.click, parts.target.change, parts.camera.change], **forget)
        forgotten = parts.query.input(**forget)
        forgotten.then(start_painting, parts.query, [parts.painting, parts.text], preprocess=False, **quiet)
        cleared = parts.samples.click(**forget).then(lambda: None, None, parts.painting, **quiet)
        cleared.then(load_sample, parts.samples, [parts.query, parts.target, parts.painting], **quiet)
        page.load(js=ON_PAINTING)
    return page.queue(max_size=20, api_open=False)


def host_guard(app: Callable, host: str) -> Callable:
    """The ASGI app, for requests that name this machine or `host` as theirs.

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
            if name not in names and not (all_addresses and re.fullmatch(r"[\d.]+|.*:.*", name)):
                answer = PlainTextResponse("This page is not at this host; start it with --host\n", 400)
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
    options |= {"allowed_paths": [str(SAMPLES_DIR)], "app_kwargs": {"middleware": [Middleware(host_guard, args.host)]}}
    name = f"[{args.host.strip('[]')}]" if ":" in args.host else args.host  # IPv6
    try:
        page.launch(server_name=name, server_port=args.port, **options)
    except OSError:
        where = f", or {args.host} is no address of this machine: --host" if args.host != "127.0.0.1" else ""
        raise UserError(f"port {args.port} is taken; give --port{where}") from None


if __name__ == "__main__":
    run_script(main)
