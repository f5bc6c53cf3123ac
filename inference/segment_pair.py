"""Find one object of a picture in another: two images and a mask file -> a mask and an overlay picture.

    python inference/segment_pair.py --query_image a.jpg --query_mask a.png --target_image b.jpg
    python inference/segment_pair.py --query_image a.jpg --query_mask a.png --target_image b.jpg --ckpt_path net.pth

Writes <out>_mask.png (0 and 255, the size of the target image) and <out>_overlay.jpg, and prints which network it used
and the probability that the object is visible in the target image. assets/samples/ has pictures to try.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from common.errors import run_script, say_errors

say_errors(__name__)

import cv2
import numpy as np

from common.arguments import SETTINGS, Parser
from common.drawing import PREDICTION, QUERY, overlay, write_picture
from formats.mask_pictures import read_mask
from formats.picture_files import read_picture
from inference.pictures import as_mask
from inference.predictor import CKPT_HELP, SHIPPED, Predictor
from model.device import PRECISION_HELP, PRECISIONS, default_precision, resolve_device


def main(argv: list[str] | None = None) -> None:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--query_image", type=Path, required=True, help="picture in which the object is known")
    add(
        "--query_mask",
        type=Path,
        required=True,
        help="its mask, non-zero where the object is; any size of the same shape",
    )
    add("--target_image", type=Path, required=True, help="picture in which to find it")
    text = "which picture is of a head-worn camera, whose things look larger (default: neither)"
    add("--setting", choices=SETTINGS, help=text)
    add("--ckpt_path", type=Path, default=SHIPPED, help=CKPT_HELP)
    add("--backbone_weights", type=Path, help="file of a backbone that the checkpoint names (default: as in training)")
    add("--out", type=Path, default=Path("pair"), help="beginning of the two output files' names")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    add("--precision", choices=PRECISIONS, help=PRECISION_HELP)
    args = parser.parse_args(argv)

    query, target = (read_picture(path) for path in (args.query_image, args.target_image))
    query_mask = as_mask(read_mask(args.query_mask), str(args.query_mask), query.shape[:2])
    device = resolve_device(args.device)
    precision = args.precision or default_precision(device)
    predictor = Predictor.load(args.ckpt_path, device, precision, backbone_weights=args.backbone_weights)
    mask, existence = predictor.segment(query, query_mask, target, setting=args.setting)

    mask_path, overlay_path = (args.out.with_name(args.out.name + end) for end in ("_mask.png", "_overlay.jpg"))
    write_picture(mask_path, mask * 255)
    drawn_mask = cv2.resize(query_mask, query.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    shown = [overlay(query, drawn_mask, QUERY), overlay(target, mask, PREDICTION)]
    height = max(image.shape[0] for image in shown)
    shown = [cv2.resize(image, (round(image.shape[1] * height / image.shape[0]), height)) for image in shown]
    write_picture(overlay_path, np.hstack(shown))
    print(f"{args.ckpt_path}: {predictor.description}")
    print(f"visible with probability {existence:.3f}, {mask.mean():.2%} of the target image")
    print(f"{mask_path}\n{overlay_path}")


if __name__ == "__main__":
    run_script(main)
