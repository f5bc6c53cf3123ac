"""Measure how well a network finds things in photographs: a chessboard seen by the other camera of a stereo pair or at
another moment, a printed box among other things, and parts of a painted wall. The pictures are the samples of OpenCV,
from a package of Debian:

    apt-get download opencv-doc && dpkg -x opencv-doc_*.deb opencv-doc
    python benchmarks/photographs.py --samples opencv-doc/usr/share/doc/opencv-doc/examples/data

The true masks are computed from corners of the boards and from matched features of flat things. No network of this
repository was trained on these pictures.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from common.errors import run_script, say_errors

say_errors(__name__)

import cv2
import numpy as np

from common.arguments import CKPT_HELP, Parser
from formats.picture_files import read_picture
from inference.predictor import Predictor

MOMENTS = (*range(1, 10), 11, 12, 13, 14)
INNER_CORNERS = 9, 6  # inner corners of the boards
PARTS_OF_WALL = (  # the corners of three quadrilaterals, in pixels
    ((300, 150), (560, 150), (560, 400), (300, 400)),
    ((80, 330), (330, 330), (330, 560), (80, 560)),
    ((430, 60), (700, 60), (700, 330), (430, 330)),
)


class View(NamedTuple):
    image: np.ndarray  # (H, W, 3) uint8 RGB
    mask: np.ndarray  # (H, W) uint8


def find_board(image: np.ndarray) -> View | None:
    """The picture with the mask of its board; None if the corners are not found."""
    found, corners = cv2.findChessboardCorners(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), INNER_CORNERS)
    if not found:
        return None
    across, down = (n - 1 for n in INNER_CORNERS)
    corners = corners.reshape(down + 1, across + 1, 2)
    inner = np.array([[0, 0], [across, 0], [across, down], [0, down]], np.float32)
    outer = inner + np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float32)  # one more square on each side
    to_picture = cv2.getPerspectiveTransform(inner, np.array([corners[int(y), int(x)] for x, y in inner]))
    return View(image, filled_mask(cv2.perspectiveTransform(outer[None], to_picture)[0], image))


def filled_mask(outline: np.ndarray, image: np.ndarray) -> np.ndarray:
    return cv2.fillConvexPoly(np.zeros(image.shape[:2], np.uint8), np.round(outline).astype(np.int32), 1)


def views_of_plane(one: np.ndarray, other: np.ndarray, outline: Sequence) -> tuple[View, View]:
    """The masks of a flat thing in two pictures; `outline` is its outline in the first picture."""
    sift = cv2.SIFT_create()  # pyrefly: ignore[missing-attribute]
    (of_one, described), (of_other, sought) = (
        sift.detectAndCompute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), None) for image in (one, other)
    )
    matches = [
        best
        for best, second in cv2.BFMatcher().knnMatch(described, sought, k=2)
        if best.distance < 0.75 * second.distance
    ]
    ends = (
        np.array([points[getattr(match, name)].pt for match in matches], np.float32)
        for points, name in ((of_one, "queryIdx"), (of_other, "trainIdx"))
    )
    homography, _ = cv2.findHomography(*ends, method=cv2.RANSAC, ransacReprojThreshold=5)
    mask = filled_mask(np.array(outline), one)
    return View(one, mask), View(other, cv2.warpPerspective(mask, homography, other.shape[1::-1]))


def visible_pairs(samples: Path) -> Iterator[tuple[str, View, View]]:
    """Yield (group, query, target) for all pairs whose object is visible in the target."""
    read = lambda name: np.asarray(read_picture(samples / name))  # noqa: E731
    left, right = (
        {k: view for k in MOMENTS if (view := find_board(read(f"{side}{k:02d}.jpg")))} for side in ("left", "right")
    )
    moments = sorted(left.keys() & right.keys())
    for k in moments:
        yield "board, other camera", left[k], right[k]
    for k, later in zip(moments, moments[1:] + moments[:1], strict=True):
        yield "board, other moment", left[k], left[later]
    box, scene = read("box.png"), read("box_in_scene.png")
    height, width = (n - 3 for n in box.shape[:2])
    one, other = views_of_plane(box, scene, ((2, 2), (width, 2), (width, height), (2, height)))
    yield "box", one, other
    yield "box", other, one
    for outline in PARTS_OF_WALL:
        one, other = views_of_plane(read("graf1.png"), read("graf3.png"), outline)
        yield "part of a wall", one, other
        yield "part of a wall", other, one


def absent_pairs(views: dict[str, list[View]]) -> Iterator[tuple[View, np.ndarray]]:
    """Yield (query, target image) without the object: the first queries of each group, with images of other groups."""
    names = "board, other camera", "box", "part of a wall"
    for name in names:
        for other in names:
            if other != name:
                for k in (0, 1):
                    yield views[name][k], views[other][k].image


def main() -> None:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--samples", type=Path, required=True, help="folder of OpenCV's sample pictures")
    add("--ckpt_path", type=Path, help=CKPT_HELP)
    args = parser.parse_args()
    predictor = Predictor.load(args.ckpt_path)
    groups: dict[str, list[tuple[float, float]]] = {}
    views: dict[str, list[View]] = {}
    for group, query, target in visible_pairs(args.samples):
        mask, existence = predictor.segment(query.image, query.mask, target.image)
        iou = (mask & target.mask).sum() / (mask | target.mask).sum()
        groups.setdefault(group, []).append((iou, existence))
        views.setdefault(group, []).append(query)
    print("| group | pairs | IoU | above 50 | predicted visible |\n|---|---|---|---|---|")
    for group, rows in groups.items():
        iou, existence = 100 * np.array(rows).T
        print(f"| {group} | {len(rows)} | {iou.mean():.0f} | {(iou > 50).sum()} | {(existence > 50).sum()} |")
    absent = np.array([predictor.segment(*view, image)[1] for view, image in absent_pairs(views)])
    print(f"| absent | {len(absent)} | - | - | {(absent > 0.5).sum()} |")


if __name__ == "__main__":
    run_script(main)
