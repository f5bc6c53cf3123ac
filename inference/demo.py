"""A page to click on: ask for an object of a processed take, or of two pictures of yours.

    python inference/demo.py
    python inference/demo.py --data_path quickstart/egoexo/processed

It needs gradio (pip install -r requirements-demo.txt), asks nothing of the network outside, and answers this machine
alone unless --host says otherwise. Ctrl-C ends it.
"""

import base64
import functools
import html
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from common.cpu import tune_cpu
from common.errors import run_script, say_errors

say_errors(__name__)
tune_cpu(__name__)

import cv2
import numpy as np

try:
    import gradio as gr
except ImportError:  # the page is an extra
    gr = None

from common.arguments import Parser, add_backbone_weights, add_data_path, add_device, at_least
from common.drawing import QUERY
from common.errors import UserError
from formats.mask_pictures import read_mask
from formats.processed import ProcessedTake
from inference import interactive
from inference.cut_out import cut_out
from inference.interactive import Panel, frames_of, objects_of
from inference.pictures import as_mask
from inference.predictor import CKPT_HELP, SHIPPED, Predictor
from model.device import default_precision, resolve_device

SAMPLES = Path(__file__).resolve().parents[1] / "assets" / "samples"
NO_TAKES = """There are no processed takes in `{folder}`. These two commands make some, or give another `--data_path`:

    python synthetic/make_takes.py --outputpath {root} --num_train 0 --num_val 0 --num_test 4
    python data/process_data.py --takepath {root}/takes --outputpath {folder}
"""
NETWORK = {"concurrency_limit": 1, "concurrency_id": "network"}  # one answer at a time, first come first served
CLICKED = {"interactive": False, "buttons": [], "show_label": False}  # nothing lies over the picture
HIDDEN = {"show_progress": "hidden"}  # what shows progress cannot be clicked on
LEGEND = "Yellow: the given object. Pink: where it was found."
TAKE_LEGEND = f"{LEGEND} Blue, dashed: the truth. White, dashed: other objects, click on one."
LIMITS = """The network of this repository is small and has seen rendered pictures alone: it takes look-alikes for the
object, and its probability of objects that were not there has been as high as 70 %."""
CSS = """.views {display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 300px), 1fr)); gap: 12px}
.views figure {margin: 0} .views meter {width: 6em}
.views img {width: 100%; max-height: 420px; object-fit: contain; object-position: left}
a[download] {display: inline-block; margin: 4px; padding: 2px 12px; border: 1px solid; border-radius: 6px}
.problem {color: #c02020; font-weight: bold}"""


def as_html(panels: list[Panel]) -> str:
    """Pictures side by side, each with its title, existence, IoU, and a button that saves its mask."""
    figures = []
    for panel in panels:
        text = f"<b>{html.escape(panel.title)}</b>"
        if panel.existence is not None:
            text += f" visible: <meter value={panel.existence:.3f}></meter> {panel.existence:.0%}"
        if panel.iou is not None:
            text += f", IoU {panel.iou:.0%}"
        if panel.mask is not None:
            text += f' <a download="mask.png" href="{data_url("png", panel.mask * 255)}">Save the mask</a>'
        source, alternative = data_url("jpeg", panel.image[..., ::-1]), html.escape(f"{panel.title}, outlined")
        figures.append(f'<figure><img src="{source}" alt="{alternative}"><figcaption>{text}</figcaption></figure>')
    return f'<div class="views">{"".join(figures)}</div>'


def data_url(kind: str, image: np.ndarray) -> str:
    """A (H, W, 3) BGR or (H, W) uint8 picture as an address."""
    return f"data:image/{kind};base64,{base64.b64encode(cv2.imencode(f'.{kind}', image)[1]).decode()}"


def errors_shown(function: Callable) -> Callable:
    """A function of a take's uid, whose UserError, or ValueError of a malformed mask, becomes a message on the page."""

    @functools.wraps(function)
    def wrapped(uid: str, *args: Any) -> Any:
        try:
            return function(uid, *args)
        except (UserError, ValueError) as error:
            text = str(error) if isinstance(error, UserError) else f"take {uid}: {error}; process it again"
            raise gr.Error(html.escape(text, quote=False), print_exception=False) from None

    return wrapped


def take_tab(tab: "gr.Tab", predictor: Predictor, data_dir: Path) -> None:
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
            gr.Markdown("Query view: click on an object.")
            query = gr.Image(elem_id="query", **CLICKED)
        with gr.Column(scale=3, min_width=300):
            targets = gr.HTML(elem_id="targets")
    gr.Markdown(TAKE_LEGEND)
    timer, playing = gr.Timer(0.5, active=False), gr.State(False)

    def look(uid: str, camera: str, name: str, frame: float, truth: bool, ahead: bool = False) -> list:
        """What all outputs show; a choice that the take does not have becomes the first that it has."""
        taken = ProcessedTake.read(data_dir, uid)
        cameras = sorted((c for c in taken.cameras if objects_of(taken, c)), key=lambda c: (taken.kind_of(c), c))
        if not cameras:
            raise UserError(f"take {uid} has no mask with a picture; choose another, or process it again")
        camera = camera if camera in cameras else cameras[0]
        names = objects_of(taken, camera)
        name = name if name in names else names[0]
        frames = frames_of(taken, name, camera)
        later = [f for f in frames if f > frame] if ahead else []
        at = (later or frames)[0] if ahead else min(frames, key=lambda f: abs(f - frame))
        step = int(np.gcd.reduce(np.diff(frames))) if len(frames) > 1 else 1
        several = len(frames) > 1
        slider = gr.Slider(frames[0], max(frames[-1], frames[0] + 1), at, step=step, visible=several)
        first, *others = interactive.answer_take(predictor, taken, name, camera, at, truth)
        return [
            gr.Dropdown(cameras, value=camera),
            gr.Dropdown(names, value=name),
            slider,
            gr.Button(visible=several),
            first.image,
            as_html(others),
        ]

    def click(uid: str, camera: str, name: str, frame: float, truth: bool, event: "gr.SelectData") -> list:
        hit = interactive.object_at(ProcessedTake.read(data_dir, uid), camera, int(frame), tuple(event.index))
        if hit is None:
            gr.Info("No object of this take is there.")
        return look(uid, camera, hit or name, frame, truth)

    inputs, outputs = [take, camera, name, frame, truth], [camera, name, frame, play, query, targets]
    for event in (tab.select, take.input, camera.input, name.input, frame.input, truth.input):
        event(errors_shown(look), inputs, outputs, trigger_mode="always_last", **HIDDEN, **NETWORK)
    query.select(errors_shown(click), inputs, outputs, **HIDDEN, **NETWORK)
    timer.tick(errors_shown(functools.partial(look, ahead=True)), inputs, outputs, **HIDDEN, **NETWORK)
    start_or_stop = lambda on: (not on, gr.Timer(active=not on), "Play" if on else "Stop")  # noqa: E731
    play.click(start_or_stop, playing, [playing, timer, play])


class Asked(NamedTuple):
    """The object that a visitor gave, or what was wrong with it; in the picture `query`, which may be gone by now."""

    query: str | None = None  # path
    mask: np.ndarray | None = None
    problem: str = ""


class Answer(NamedTuple):
    """What the page shows while these two pictures are on it."""

    query: str | None = None  # paths
    target: str | None = None
    content: str = ""


def told(function: Callable, *otherwise: Any) -> Callable:
    """A function whose last output is an Asked: after a UserError its outputs are `otherwise` and the problem."""

    @functools.wraps(function)
    def wrapped(query: str | None, *args: Any) -> Any:
        try:
            return function(query, *args)
        except UserError as error:
            problem = Asked(query, None, str(error))
            return (*otherwise, problem) if otherwise else problem

    return wrapped


def upload(label: str, elem_id: str) -> "gr.Image":
    """A place for a picture file, which our reader reads: gradio's own ends in a traceback if it is none."""
    image = gr.Image(label=label, elem_id=elem_id, type="filepath", sources=("upload", "clipboard"), height=360)
    image.preprocess = lambda file: file and file.path
    return image


def read_image(path: str, what: str) -> np.ndarray:
    return interactive.read_upload(path, what)


def pictures_tab(predictor: Predictor) -> None:
    """Two pictures of the visitor's; the object by a box, by painting, or by a mask file."""
    asked, answer = gr.State(Asked()), gr.State(Answer())
    drawable, corner = gr.State(), gr.State()  # path of the picture to draw on, first corner of a box on it
    with gr.Row():
        with gr.Column(min_width=300):
            query = upload("1 query", "own_query")
        with gr.Column(min_width=300):
            gr.Markdown("2 its object")
            with gr.Tab("Box"):
                gr.Markdown("Click on two opposite corners of a box around it.")
                canvas = gr.Image(elem_id="canvas", format="jpeg", **CLICKED)
            with gr.Tab("Paint"):
                brush = gr.Brush(colors=["#ffbe28"], color_mode="fixed")
                editor = gr.ImageEditor(sources=(), transforms=(), layers=False, brush=brush, elem_id="editor")
                editor.preprocess = lambda drawn: drawn and next((layer.path for layer in drawn.layers), None)
                find = gr.Button("Find it", variant="primary", elem_id="find")
            with gr.Tab("Mask file"):
                file = upload("black where the object is not", "own_mask")
        with gr.Column(min_width=300):
            target = upload("3 target", "own_target")
    shown = gr.HTML(elem_id="answer")
    gr.Markdown(LEGEND)

    def load(query: str | None) -> tuple:
        image = interactive.reduced(read_image(query, "query picture")) if query else None
        return query, None, image, image, Asked()

    def click(drawable: str, corner: list[int] | None, event: "gr.SelectData") -> tuple:
        image = interactive.reduced(read_image(drawable, "query picture"))
        if corner is None:
            return event.index, cv2.drawMarker(image, event.index, QUERY, cv2.MARKER_CROSS, 40, 3), Asked()
        (left, right), (top, bottom) = (sorted(both) for both in zip(corner, event.index, strict=True))
        mask = cut_out(image, (left, top, right + 1, bottom + 1))
        return None, interactive.outlined(image, mask, QUERY), Asked(drawable, mask)

    def painted(drawable: str | None, painting: str | None) -> Asked:
        size = interactive.reduced(read_image(drawable, "query picture")).shape[:2]
        mask = interactive.read_upload(painting, "painting", interactive.read_layer)
        return Asked(drawable, as_mask(mask, "the painting", size))

    def given(query: str | None, file: str | None) -> Asked:
        size, mask = read_image(query, "query picture").shape[:2], interactive.read_upload(file, "mask", read_mask)
        return Asked(query, as_mask(mask, "the mask", size))

    def ask(query: str | None, target: str | None, asked: Asked) -> Answer:
        content = ""
        try:
            other = read_image(target, "target picture") if target else None
            if asked.query == query and asked.problem:
                raise UserError(asked.problem)
            if asked.query == query and asked.mask is not None:
                image = read_image(query, "query picture")
                content = as_html(interactive.answer_pictures(predictor, image, asked.mask, other))
        except UserError as error:
            content = f'<p class="problem">{html.escape(str(error))}</p>'
        return Answer(query, target, content)

    def show(query: str | None, target: str | None, answer: Answer) -> str:
        return answer.content if answer[:2] == (query, target) else ""

    samples = [[str(p / n) for n in ("query.jpg", "target.jpg", "query_mask.png")] for p in sorted(SAMPLES.glob("*/"))]
    sample = gr.Examples(samples, [query, target, file], label="samples").load_input_event
    gr.on((query.change, target.change), show, [query, target, answer], shown, queue=False)  # what was, goes at once
    load, loaded = told(load, None, None, None, None), [drawable, corner, canvas, editor, asked]
    objects = (
        query.upload(load, query, loaded, **HIDDEN),
        query.clear(load, query, loaded, **HIDDEN),
        sample.then(load, query, loaded, **HIDDEN).then(told(given), [query, file], asked),
        canvas.select(told(click, None, gr.skip()), [drawable, corner], [corner, canvas, asked], **HIDDEN),
        find.click(told(painted), [drawable, editor], asked),
        file.upload(told(given), [query, file], asked),
    )
    for then in (*(event.then for event in objects), target.upload, target.clear):
        then(ask, [query, target, asked], answer, **NETWORK).then(show, [query, target, answer], shown)


def main(argv: list[str] | None = None) -> None:
    parser = Parser(__doc__)
    add_data_path(parser)
    add = parser.add_argument
    add("--ckpt_path", type=Path, default=SHIPPED, help=CKPT_HELP)
    add_backbone_weights(parser)
    add_device(parser)
    text = (
        f"of the takes: {HELP}; here of {interactive.MORE_VIEWS} frames at most, without the latter ({MEMORY_DEFAULT})"
    )
    add("--memory", choices=CHOICES, help=text)
    add("--host", default="127.0.0.1", help="address to answer at; 0.0.0.0: everybody who can reach this machine")
    add("--port", type=at_least(1), default=7860, help="of the page")
    args = parser.parse_args(argv)
    if gr is None:
        raise UserError("gradio is not installed; run pip install -r requirements-demo.txt")
    device = resolve_device(args.device)
    options = {"backbone_weights": args.backbone_weights}
    predictor = Predictor.load(args.ckpt_path, device, default_precision(device), **options)
    print(f"{args.ckpt_path}: {predictor.description}")
    page = build_page(predictor, args.data_path, LIMITS if args.ckpt_path == SHIPPED else "")
    options = {"css": CSS, "ssr_mode": False, "footer_links": [], "show_error": True, "max_file_size": "30mb"}
    try:
        page.launch(server_name=args.host, server_port=args.port, **options)
    except OSError:
        where = f", or {args.host} is no address of this machine: --host" if args.host != "127.0.0.1" else ""
        raise UserError(f"port {args.port} is taken; give --port{where}") from None


def build_page(predictor: Predictor, data_dir: Path, limits: str) -> "gr.Blocks":
    with gr.Blocks(title="XSegTx", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        gr.Markdown(f"# The same object, seen by another camera\n{predictor.description}. {limits}")
        with gr.Tab("Your pictures", elem_id="pictures_tab"):
            pictures_tab(predictor)
        with gr.Tab("A take", elem_id="take_tab") as tab:
            take_tab(tab, predictor, data_dir)
    return page


if __name__ == "__main__":
    run_script(main)
