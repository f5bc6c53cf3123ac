"""Find one object of a picture in another: two images and a mask file -> a mask and an overlay picture.

    python inference/segment_pair.py --query_image a.jpg --query_mask mask.png --target_image b.jpg --ckpt_path net.pth

Writes <out>_mask.png (0 and 255, the size of the target image) and <out>_overlay.jpg, and prints the probability that
the object is visible in the target image.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

import cv2
import numpy as np

from formats.errors import UserError, run_script
from formats.files import atomic_write
from inference.predictor import Predictor
from inference.work import PRECISIONS

QUERY_COLOR, TARGET_COLOR = (255, 160, 0), (60, 220, 60)  # RGB


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--query_image", type=Path, required=True, help="picture in which the object is known")
    add("--query_mask", type=Path, required=True, help="mask of the same size, non-zero where the object is")
    add("--target_image", type=Path, required=True, help="picture in which to find it")
    add("--ckpt_path", type=Path, required=True, help="checkpoint of the direction: ego-exo or exo-ego")
    add("--out", type=Path, default=Path("pair"), help="beginning of the two output files' names (default: pair)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    add("--precision", choices=list(PRECISIONS), help="default: fp32 on a CPU, bf16 on CUDA")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    query, target = read_picture(args.query_image), read_picture(args.target_image)
    query_mask = read_picture(args.query_mask).any(axis=2)
    if query_mask.shape != query.shape[:2]:
        raise UserError(
            f"{args.query_mask} is {query_mask.shape[1]}x{query_mask.shape[0]}, {args.query_image} is "
            f"{query.shape[1]}x{query.shape[0]}; the mask must have the size of its image"
        )
    if not query_mask.any():
        raise UserError(f"{args.query_mask} is empty; mark the object with non-zero pixels")
    try:
        predictor = Predictor.load(args.ckpt_path, args.device, args.precision)
    except (FileNotFoundError, ValueError) as error:
        raise UserError(f"{error}; --ckpt_path and --device choose others") from None
    mask, existence = predictor.segment(query, query_mask, target)

    mask_path, overlay_path = (args.out.with_name(args.out.name + end) for end in ("_mask.png", "_overlay.jpg"))
    write_picture(mask_path, mask * 255)
    shown = [overlay(query, query_mask, QUERY_COLOR), overlay(target, mask, TARGET_COLOR)]
    height = max(image.shape[0] for image in shown)
    shown = [cv2.resize(image, (round(image.shape[1] * height / image.shape[0]), height)) for image in shown]
    write_picture(overlay_path, cv2.cvtColor(np.hstack(shown), cv2.COLOR_RGB2BGR))
    print(f"visible with probability {existence:.3f}, {mask.mean():.2%} of the target image")
    print(f"{mask_path}\n{overlay_path}")


def read_picture(path: Path) -> np.ndarray:
    """Any picture file -> (H, W, 3) uint8 RGB."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR) if path.is_file() else None
    if image is None:
        raise UserError(f"{path} " + ("is no picture that OpenCV can read" if path.exists() else "does not exist"))
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def write_picture(path: Path, image: np.ndarray) -> None:
    with atomic_write(path, "wb") as file:
        file.write(cv2.imencode(path.suffix, image)[1].tobytes())


def overlay(image: np.ndarray, mask: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    """The image with the object tinted and outlined."""
    mask = np.ascontiguousarray(mask, dtype=np.uint8)
    out = image.copy()
    out[mask != 0] = (0.55 * image[mask != 0] + 0.45 * np.array(color)).astype(np.uint8)
    contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(out, contours, -1, color, max(1, image.shape[0] // 300))


if __name__ == "__main__":
    run_script(main)
