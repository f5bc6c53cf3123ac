"""Draw the network for the README, with a rendered pair of views:

python docs/draw_network.py          # writes assets/network.png
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # repository root
from formats.arguments import Parser
from formats.errors import run_script
from formats.geometry import letterbox
from synthetic.tabletop import EGO
from synthetic.take import TakeId, TakeOptions, build_tabletop

QUERY, TARGET, MASK, HEAD, PLAIN = "#d7e8f7", "#dcefd9", "#fbe3d0", "#eadff2", "#eeeeee"
TAKE, LABEL = TakeId("test", 2), 1  # an object that both views show well
OPTIONS = TakeOptions(seed=0, size="small", num_frames=1, num_exo=2, num_objects=4, object_size=0.1, hold=30)
ROWS = {"query": 4.6, "mask": 2.9, "target": 1.2}  # heights of the three lines


def views() -> tuple[np.ndarray, ...]:
    """Query image and mask, target image and mask, letterboxed to squares."""
    pictures = build_tabletop(TAKE, OPTIONS).pictures(0.0)
    query, target = pictures[EGO], pictures["cam01"]
    squares = [letterbox(array, 480) for p in (query, target) for array in (p.image[..., ::-1], p.labels == LABEL)]
    return tuple(squares)


def box(axes: Axes, left: float, middle: float, width: float, height: float, text: str, color: str) -> None:
    corner = (left, middle - height / 2)
    style = "round,pad=0,rounding_size=0.08"
    axes.add_patch(FancyBboxPatch(corner, width, height, boxstyle=style, fc=color, ec="#555555", lw=1))
    axes.text(left + width / 2, middle, text, ha="center", va="center", fontsize=7.8)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.annotate(
        "", end, start, arrowprops={"arrowstyle": "-|>", "color": "#444444", "lw": 1.1, "shrinkA": 0, "shrinkB": 0}
    )


def picture(axes: Axes, left: float, middle: float, image: np.ndarray, text: str, side: float = 1.3) -> None:
    axes.imshow(image, extent=(left, left + side, middle - side / 2, middle + side / 2), zorder=3, cmap="gray")
    axes.text(left + side / 2, middle - side / 2 - 0.06, text, ha="center", va="top", fontsize=8.5)


def draw(path: Path) -> None:
    query_image, query_mask, target_image, target_mask = views()
    figure, axes = plt.subplots(figsize=(12.6, 5.2))
    for name, image in (("query", query_image), ("mask", query_mask), ("target", target_image)):
        text = {"query": "query image", "mask": "query mask", "target": "target image"}[name]
        picture(axes, 0.1, ROWS[name], image, text)
        arrow(axes, (1.4, ROWS[name]), (1.75, ROWS[name]))
        arrow(axes, (2.85, ROWS[name]), (3.15, ROWS[name]))
    box(axes, 1.75, ROWS["mask"], 1.1, 4.9, "frozen\nbackbone\n\nResNet-50\nto stride 16\n\n480x480\n-> 30x30", PLAIN)
    box(axes, 3.15, ROWS["mask"], 0.95, 4.9, "1x1\nprojection\n\n1024\n-> 256", PLAIN)

    # Three times an inner layer and, but for the last, a cross layer.
    left = 4.45
    for number in range(3):
        for name in ("query", "target"):
            arrow(axes, (left - 0.35, ROWS[name]), (left, ROWS[name]))
        last = number == 2
        box(axes, left, ROWS["query"], 1.25, 1.5, "read the mask\n+ position\nself-attention", QUERY)
        box(axes, left, ROWS["target"], 1.25, 1.5, "+ position\nself-attention", TARGET)
        arrow(axes, (left + 0.6, ROWS["mask"] + 0.02), (left + 0.6, ROWS["query"] - 0.75))
        axes.text(left + 0.62, 0.2, f"I{number + 1}", ha="center", va="center", fontsize=9, color="#666666")
        left += 1.25
        if last:
            break
        for name, color in (("query", QUERY), ("target", TARGET)):
            arrow(axes, (left, ROWS[name]), (left + 0.3, ROWS[name]))
            box(axes, left + 0.3, ROWS[name], 0.85, 1.5, "cross-\nattention", color)
        arrow(axes, (left + 0.65, ROWS["target"] + 0.75), (left + 0.65, ROWS["query"] - 0.75))
        arrow(axes, (left + 0.8, ROWS["query"] - 0.75), (left + 0.8, ROWS["target"] + 0.75))
        axes.text(left + 0.73, 0.2, f"C{number + 1}", ha="center", va="center", fontsize=9, color="#666666")
        left += 1.15 + 0.35
    axes.plot((4.1, left - 0.65), (ROWS["mask"] + 0.02,) * 2, color="#444444", lw=1.1)
    axes.text(4.2, ROWS["mask"] + 0.12, "mask tokens", fontsize=7.8, color="#444444")

    arrow(axes, (left, ROWS["target"]), (left + 0.4, ROWS["target"]))
    arrow(axes, (left, ROWS["target"] + 0.3), (left + 0.4, ROWS["mask"] - 0.2))
    box(axes, left + 0.4, ROWS["mask"], 1.1, 1.1, "existence\nhead", HEAD)
    box(axes, left + 0.4, ROWS["target"], 1.1, 1.5, "mask\ndecoder\n30x30\n-> 480x480", MASK)
    arrow(axes, (left + 1.5, ROWS["mask"]), (left + 1.85, ROWS["mask"]))
    arrow(axes, (left + 1.5, ROWS["target"]), (left + 1.85, ROWS["target"]))
    axes.text(left + 1.9, ROWS["mask"], "probability that the\nobject is visible", fontsize=8.5, va="center")
    shown = np.where(target_mask[..., None] > 0, target_image, target_image // 4 + 20)
    picture(axes, left + 1.9, ROWS["target"], shown, "target mask")

    axes.set(xlim=(0, left + 3.4), ylim=(0, 5.5), aspect="equal")
    axes.axis("off")
    figure.savefig(path, dpi=150, bbox_inches="tight", pad_inches=0.05, metadata={"Software": None})
    print(path)


def main() -> None:
    Parser(__doc__).parse_args()
    draw(ROOT / "assets" / "network.png")


if __name__ == "__main__":
    run_script(main)
