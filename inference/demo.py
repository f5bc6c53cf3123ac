"""A page to click on: ask for an object of a processed take, or of two pictures of yours.

    python inference/demo.py
    python inference/demo.py --data_path quickstart/egoexo/processed

It needs gradio (pip install -r requirements-demo.txt), asks nothing of the network outside, and answers this machine
alone unless --host says otherwise. Ctrl-C ends it.
"""

import base64
import functools
import html
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root
if __name__ == "__main__":  # before torch is imported: waiting threads spin for a moment, then let others work
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")

from common.errors import run_script  # isort: split

import cv2
import numpy as np

try:
    import gradio as gr
except ImportError:  # the page is an extra
    gr = None

from common.arguments import Parser, add_data_path, at_least
from common.errors import UserError
from formats.processed import ProcessedTake
from inference import interactive
from inference.interactive import View, frames_of, objects_of, read_upload
from inference.pictures import as_mask
from inference.predictor import CKPT_HELP, SHIPPED, Predictor
from model.device import default_precision, resolve_device

SAMPLES = Path(__file__).resolve().parents[1] / "assets" / "samples"
NO_TAKES = """There are no processed takes in `{folder}`. These two commands make some, or give another `--data_path`:

    python synthetic/make_takes.py --outputpath {root} --num_train 0 --num_val 0 --num_test 4
    python data/process_data.py --takepath {root}/takes --outputpath {folder}
"""
NETWORK = {"concurrency_limit": 1, "concurrency_id": "network"}  # one answer at a time, first come first served
UPLOAD = {"type": "filepath", "image_mode": None, "sources": ("upload", "clipboard"), "height": 360}
LEGEND = "Yellow: the given mask. Pink: the answer. Blue, dashed: the truth. White: other objects, click on one."
CSS = """.views {display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 300px), 1fr)); gap: 12px}
.views figure {margin: 0} .views meter {width: 6em}
.views img {width: 100%; max-height: 420px; object-fit: contain; object-position: left}"""


def as_html(views: list[View]) -> str:
    """Pictures side by side, each with its title, existence and IoU."""
    figures = []
    for view in views:
        jpeg = cv2.imencode(".jpg", view.image[..., ::-1])[1].tobytes()
        text = f"<b>{html.escape(view.title)}</b>"
        if view.existence is not None:
            text += f" visible: <meter value={view.existence:.3f}></meter> {view.existence:.0%}"
        if view.iou is not None:
            text += f", IoU {view.iou:.0%}"
        source = f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
        figures.append(f'<figure><img src="{source}" alt=""><figcaption>{text}</figcaption></figure>')
    return f'<div class="views">{"".join(figures)}</div>'


def shown(function: Callable) -> Callable:
    """A UserError becomes a message on the page."""

    @functools.wraps(function)
    def wrapped(*args: Any) -> Any:
        try:
            return function(*args)
        except UserError as error:
            raise gr.Error(html.escape(str(error), quote=False), print_exception=False) from None

    return wrapped


def take_tab(page: "gr.Blocks", predictor: Predictor, data_dir: Path) -> None:
    """Take, query camera, object and frame, each chosen among what the one before has; every target camera."""
    if not (uids := interactive.take_uids(data_dir)):
        gr.Markdown(NO_TAKES.format(folder=data_dir, root=data_dir.parent), elem_id="no_takes")
        return
    with gr.Row():
        take = gr.Dropdown(uids, value=uids[0], label="take", elem_id="take")
        camera = gr.Dropdown([], label="query camera", elem_id="camera")
        name = gr.Dropdown([], label="object", elem_id="object")
    with gr.Row():
        frame = gr.Slider(0, 1, label="frame", elem_id="frame", scale=4, buttons=[])
        with gr.Column(min_width=150):
            truth = gr.Checkbox(label="truth", elem_id="truth")
            play = gr.Button("Play", elem_id="play", size="sm")
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            query = gr.Image(label="query view: click on an object", elem_id="query", interactive=False, buttons=[])
        with gr.Column(scale=3, min_width=300):
            targets = gr.HTML(elem_id="targets")
    gr.Markdown(LEGEND)
    timer, playing = gr.Timer(0.5, active=False), gr.State(False)

    def look(uid: str, camera: str, name: str, frame: float, truth: bool, ahead: bool = False) -> list:
        """What all outputs show; a choice that the take does not have becomes the first that it has."""
        taken = ProcessedTake.read(data_dir, uid)
        cameras = sorted((c for c in taken.cameras if objects_of(taken, c)), key=lambda c: (not taken.is_ego(c), c))
        if not cameras:
            raise UserError(f"take {uid} has no mask with a picture; choose another, or process it again")
        camera = camera if camera in cameras else cameras[0]
        names = objects_of(taken, camera)
        name = name if name in names else names[0]
        frames = frames_of(taken, name, camera)
        later = [f for f in frames if f > frame] if ahead else []
        at = (later or frames)[0] if ahead else min(frames, key=lambda f: abs(f - frame))
        step = int(np.gcd.reduce(np.diff(frames))) if len(frames) > 1 else 1
        slider = gr.Slider(frames[0], max(frames[-1], frames[0] + 1), at, step=step, interactive=len(frames) > 1)
        first, *others = interactive.answer_take(predictor, taken, name, camera, at, truth)
        return [
            gr.Dropdown(cameras, value=camera),
            gr.Dropdown(names, value=name),
            slider,
            first.image,
            as_html(others),
        ]

    def click(uid: str, camera: str, name: str, frame: float, truth: bool, event: "gr.SelectData") -> list:
        hit = interactive.object_at(ProcessedTake.read(data_dir, uid), camera, int(frame), tuple(event.index))
        if hit is None:
            gr.Info("No object of this take is there.")
        return look(uid, camera, hit or name, frame, truth)

    inputs, outputs = [take, camera, name, frame, truth], [camera, name, frame, query, targets]
    for event in (page.load, take.input, camera.input, name.input, frame.input, truth.input):
        event(shown(look), inputs, outputs, trigger_mode="always_last", show_progress="hidden", **NETWORK)
    query.select(shown(click), inputs, outputs, show_progress="hidden", **NETWORK)
    timer.tick(shown(functools.partial(look, ahead=True)), inputs, outputs, show_progress="hidden", **NETWORK)
    start_or_stop = lambda on: (not on, gr.Timer(active=not on), "Play" if on else "Stop")  # noqa: E731
    play.click(start_or_stop, playing, [playing, timer, play])


def pictures_tab(predictor: Predictor) -> None:
    """Two pictures of the visitor's; the object by a click, by painting, or by a mask file."""
    mask = gr.State()  # the last one, to ask again when the target changes
    with gr.Row():
        with gr.Column(min_width=300):
            with gr.Tab("Click on the object"):
                query = gr.Image(label="query", elem_id="own_query", **UPLOAD)
            with gr.Tab("Paint it", elem_id="paint_tab") as paint:
                brush = gr.Brush(colors=["#ffbe28"], color_mode="fixed")
                editor = gr.ImageEditor(sources=(), transforms=(), layers=False, brush=brush, elem_id="editor")
                find = gr.Button("Find it", variant="primary", elem_id="find")
            with gr.Tab("Give its mask"):
                file = gr.Image(label="mask", elem_id="own_mask", **UPLOAD)
        with gr.Column(min_width=300):
            target = gr.Image(label="target", elem_id="own_target", **UPLOAD)
    views = gr.HTML(elem_id="answer")

    def ask(query: str, target: str | None, mask: np.ndarray | None) -> tuple:
        other = None if target is None else read_upload(target, "target picture")
        if mask is None:
            return None, ""
        views = interactive.answer_pictures(predictor, read_upload(query, "query picture"), mask, other)
        return mask, as_html(views)

    def click(query: str, target: str | None, event: "gr.SelectData") -> tuple:
        image = read_upload(query, "query picture")
        return ask(query, target, interactive.grow_mask(predictor.matcher.encoder, image, event.index))

    def painted(query: str, target: str | None, picture: dict) -> tuple:
        image, layers = read_upload(query, "query picture"), [layer[..., 3] > 0 for layer in picture["layers"]]
        mask = np.any(layers, axis=0) if layers else np.zeros(image.shape[:2], bool)
        return ask(query, target, as_mask(mask, "the painted mask", image.shape[:2]))

    def given(query: str, target: str | None, file: str | None) -> tuple:
        image, mask = read_upload(query, "query picture"), read_upload(file, "mask")
        return ask(query, target, as_mask(mask, "the mask", image.shape[:2]))

    query.select(shown(click), [query, target], [mask, views], **NETWORK)
    gr.on((query.upload, query.clear), lambda: (None, ""), None, [mask, views])
    target.upload(shown(ask), [query, target, mask], [mask, views], **NETWORK)
    file.upload(shown(given), [query, target, file], [mask, views], **NETWORK)
    gr.on((paint.select, query.change), shown(lambda path: path and read_upload(path, "query picture")), query, editor)
    find.click(shown(painted), [query, target, editor], [mask, views], **NETWORK)
    samples = [[str(p / n) for n in ("query.jpg", "target.jpg", "query_mask.png")] for p in sorted(SAMPLES.glob("*/"))]
    gr.Examples(samples, [query, target, file], [mask, views], shown(given), run_on_click=True, label="samples")


def main(argv: list[str] | None = None) -> None:
    parser = Parser(__doc__)
    add_data_path(parser)
    add = parser.add_argument
    add("--ckpt_path", type=Path, default=SHIPPED, help=CKPT_HELP)
    add("--backbone_weights", type=Path, help="file of a backbone that the checkpoint names (default: as in training)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    add("--host", default="127.0.0.1", help="address to answer at; 0.0.0.0: everybody who can reach this machine")
    add("--port", type=at_least(1), default=7860, help="of the page")
    args = parser.parse_args(argv)
    if gr is None:
        raise UserError("gradio is not installed; run pip install -r requirements-demo.txt")
    device = resolve_device(args.device)
    predictor = Predictor.load(
        args.ckpt_path, device, default_precision(device), backbone_weights=args.backbone_weights
    )
    print(f"{args.ckpt_path}: {predictor.description}")
    page, options = build_page(predictor, args.data_path), {"server_name": args.host, "server_port": args.port}
    page.launch(**options, css=CSS, ssr_mode=False, footer_links=[], show_error=True, max_file_size="30mb")


def build_page(predictor: Predictor, data_dir: Path) -> "gr.Blocks":
    with gr.Blocks(title="XSegTx", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        gr.Markdown(f"# The same object, seen by another camera\n{predictor.description}")
        with gr.Tab("A take", elem_id="take_tab"):
            take_tab(page, predictor, data_dir)
        with gr.Tab("Your pictures", elem_id="pictures_tab"):
            pictures_tab(predictor)
    return page


if __name__ == "__main__":
    run_script(main)
