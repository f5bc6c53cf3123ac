"""Find one object of a picture in another with onnxruntime, numpy and Pillow alone; this file is all there is.

    python inference/export_onnx.py --out graphs
    python examples/onnx_pair.py --graphs graphs --query_image a.jpg --query_mask a.png --target_image b.jpg

It answers as `Predictor.segment` of inference/predictor.py, but does not look again where the object is of another size
than expected. Steps are numbered as in docs/training.md, "The strong recipe".
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

RATIOS = 1 / 3, 1.0, 3.0  # of sizes in target and query; ego-exo 1 / 3 and 0.8, exo-ego 1.25 and 3.0
LARGEST, CONTEXT, LOOKS, PEAKS, APART = 0.7, 3.0, 3, 6, 2  # model/crops.py and inference/crop_matcher.py explain them


def resize(image, size):
    """(H, W) or (H, W, C) -> float32 of `size`: means of what each pixel covers, or bilinear if it becomes larger."""
    smaller = max(size) < max(image.shape)
    for axis, (old, new) in enumerate(zip(image.shape, size, strict=False)):
        edges, pixels = np.arange(new + 1)[:, None] * old / new, np.arange(old)
        covered = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
        between = 1 - abs(((edges[1:] + edges[:-1] - 1) / 2).clip(0, old - 1) - pixels)
        shares = (covered if smaller else between).clip(0)  # (new, old)
        shares = np.float32(shares / shares.sum(1, keepdims=True))
        image = np.moveaxis(np.tensordot(shares, np.float32(image), (1, axis)), 0, axis)
    return image


def square(row, col, side):
    """Left, top, right and bottom of a crop, in whole pixels; it may reach beyond the image."""
    side = max(1, round(side))
    left, top = round(col - side / 2), round(row - side / 2)
    return left, top, left + side, top + side


def cut(image, crop, side):
    """(H, W) or (H, W, C) uint8 -> (1, side, side) or (1, side, side, C), 0 beyond the image."""
    return np.uint8(resize(np.asarray(Image.fromarray(image).crop(crop)), (side, side)) + 0.5)[None]


def cut_mask(mask, crop, side):
    """(H, W) of 0 and 1 -> (1, side, side): what is half covered, or half as covered as any of a thin object."""
    cover = resize(np.asarray(Image.fromarray(mask).crop(crop)), (side, side))
    return np.uint8((cover > 0) & (cover >= min(0.5, cover.max() / 2)))[None]


def peaks(heat):
    """The highest local maxima of (h, w): rows of heat, row, column."""
    padded, width = np.pad(heat, APART, constant_values=-np.inf), 2 * APART + 1
    cells = np.nonzero(heat == np.lib.stride_tricks.sliding_window_view(padded, (width, width)).max((2, 3)))
    return sorted(zip(heat[cells], *cells, strict=True), reverse=True, key=lambda peak: peak[0])[:PEAKS]


def segment(locate, look, query, mask, target):
    """Sessions of the two graphs; (H, W, 3) uint8 RGB, (H, W) uint8 of 0 and 1, (H, W, 3) -> the object's mask in the
    target, (H, W) bool, and the probability that it is visible.
    """
    wide_side, side = locate.get_inputs()[0].shape[1], look.get_inputs()[0].shape[1]
    (top, bottom), (left, right) = (np.flatnonzero(mask.any(axis))[[0, -1]] + (0, 1) for axis in (1, 0))
    row, col, length, size = (top + bottom) / 2, (left + right) / 2, max(bottom - top, right - left), target.shape[:2]

    shares, places = [ratio * length / max(mask.shape) for ratio in RATIOS], []  # 1. of the target's long side
    for share in (min(share, LARGEST) for share in shares if share <= max(LARGEST, min(shares))):
        frame_length = int(locate.get_modelmeta().custom_metadata_map["frame_size"])  # 2.
        while share * frame_length > wide_side / 2 and frame_length >= 4 * wide_side:
            frame_length //= 2
        frame = resize(target, [max(2, round(x * frame_length / max(size) / 16)) * 16 for x in size])
        wide = square(row, col, max(wide_side * length / (share * frame_length), 2 * length))  # 3.
        given = {"wide": cut(query, wide, wide_side), "wide_mask": cut_mask(mask, wide, wide_side)}
        (heat,) = locate.run(None, given | {"frame": np.uint8(frame + 0.5)[None]})
        cell = np.divide(size, heat.shape)
        places += [(peak[0], *np.add(peak[1:], 0.5) * cell, share * max(size)) for peak in peaks(heat)]

    chosen = []  # 4.
    for place in sorted(places, key=lambda place: -place[0]):
        near_another = any(abs(np.subtract(place, other))[1:3].max() < place[3] / 2 for other in chosen)
        if len(chosen) < LOOKS and not near_another:
            chosen.append(place)
    heats, crops = zip(*((heat, square(*at, CONTEXT * long)) for heat, *at, long in chosen), strict=True)
    crop = square(row, col, CONTEXT * length)  # 5.
    given = {"query": cut(query, crop, side), "query_mask": cut_mask(mask, crop, side), "heat": np.float32(heats)}
    given |= {"target": np.concatenate([cut(target, each, side) for each in crops]), "highest": np.float32(heats[:1])}
    probs, scores, existences = look.run(None, given)

    best = scores.argmax()  # 6.
    found, (left, top, right, _) = Image.new("1", size[::-1]), crops[best]
    found.paste(Image.fromarray(resize(probs[best], [right - left] * 2) > 0.5), (left, top))
    return np.array(found), float(existences[best])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", type=Path, default=Path("graphs"), help="folder of locate.onnx and look.onnx")
    for name in ("query_image", "query_mask", "target_image"):
        parser.add_argument(f"--{name}", required=True, type=Image.open, help="file; masks are black around the object")
    parser.add_argument("--out", default="found.png", help="file for the object's mask in the target")
    args = parser.parse_args()
    import onnxruntime

    images = (args.query_image, args.target_image)
    query, target = (np.asarray(ImageOps.exif_transpose(image).convert("RGB")) for image in images)
    mask = np.asarray(args.query_mask.convert("L").resize(query.shape[1::-1], Image.Resampling.NEAREST))
    if not mask.any():
        parser.error("the query mask is empty")
    sessions = (onnxruntime.InferenceSession(args.graphs / f"{name}.onnx") for name in ("locate", "look"))
    found, existence = segment(*sessions, query, np.uint8(mask > mask.max() / 2), target)
    Image.fromarray(found).save(args.out)
    print(f"visible with probability {existence:.3f}: {args.out}")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ImportError) as error:
        raise SystemExit(f"error: {error}") from None
