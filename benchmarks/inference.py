"""Compare this project's inference with the published implementation's, on the same frames of a rendered take, in turn.

    python benchmarks/inference.py                            # a CPU, or the GPU if there is one
    python benchmarks/inference.py --precision bf16
    python benchmarks/inference.py --setting exo-ego --objects 14    # 14 pairs for four images

In each round, both implementations predict two frames, from files to encoded masks: the published way pair by pair,
this project frame by frame. Both compute attention as this project does. The script prints the ratio of the times for a
pair, and how much the predictions differ.

This project gains from pairs that share an image. By default the take is like real takes: it has four objects, each in
one of three exo cameras. On a CPU, the times are CPU seconds of all threads; other jobs change them least with
OMP_NUM_THREADS=1, when no thread waits for another. The weights are random, since the time does not depend on them.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from common.start import start

start(__name__)

import argparse
import tempfile
import time
from dataclasses import replace
from functools import partial
from statistics import mean

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.measure import make_takes, print_times, process_takes, time_in_turn
from common.arguments import Parser, add_device, add_setting, at_least
from common.constants import THRESHOLD
from common.errors import counted, run_script
from formats.crop import Crop, put_back
from formats.frame_files import frame_path
from formats.geometry import EVAL_SIDE, eval_size, letterbox
from formats.masks import decode_mask, encode_mask, iou
from formats.pairs import Pairs, open_pairs
from formats.processed import ProcessedTake, read_frame
from formats.takes import read_split
from inference.resumable_run import entries_of
from model.backbone import Backbone, mask_to_image, normalize_image
from model.backbones import resnet50_backbone
from model.device import PRECISIONS, resolve_device
from model.xsegtx import XSegTx, XSegTxConfig
from recipes.paper import Paper
from recipes.scene import Scenes, answered

SIZE = "medium"  # size of the rendered videos
EXOS = 3  # exo cameras in the take


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add_setting(parser, required=False)
    parser.set_defaults(setting="ego-exo")
    add_device(parser)
    add("--precision", choices=list(PRECISIONS), default="fp32", help="of this project; the published way is fp32")
    add("--input_size", type=at_least(48), default=480, help="pixels per side")
    add("--objects", type=at_least(1), default=4, help="objects in the take, each in one exo camera")
    add("--frames", type=at_least(1), default=9, help="annotated frames of the take")
    add("--rounds", type=at_least(1), default=5, help="measurements of each way, after one to warm up")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    torch.manual_seed(0)
    device = resolve_device(args.device)
    backbone, model = resnet50_backbone(), XSegTx(XSegTxConfig(input_size=args.input_size)).eval()
    recipe = Paper(model, backbone, device, args.precision)
    backbone.to(device)
    with tempfile.TemporaryDirectory() as folder:
        options = ("--size", SIZE, "--num_frames", 30 * (args.frames - 1) + 1, "--num_exo", EXOS)
        make_takes(Path(folder), "test", 1, *options)
        processed = process_takes(Path(folder))
        (uid,) = read_split(Path(folder) / "split.json", "test")
        populate(ProcessedTake.read(processed, uid), args.objects)
        take = ProcessedTake.read(processed, uid)
        pairs = open_pairs([processed], "test", args.setting)
        pairs = pairs[np.isin(pairs.frame, np.unique(pairs.frame)[:2])]
        scenes = Scenes(pairs, pairs.groups("frame"), recipe.prepare)
        ways = {
            "the published way": partial(predict_plainly, backbone, model, device, take, pairs),
            "this project": partial(predict_our_way, recipe, scenes),
        }
        time_in_turn(ways, 1)  # to warm up
        times, found = time_in_turn(ways, args.rounds, time.process_time if device.type == "cpu" else time.perf_counter)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else counted(torch.get_num_threads(), "thread")
    shared = f"{args.objects} pairs for {1 + min(args.objects, EXOS)} images a frame"
    title = f"{args.setting}, {shared}, {device} ({name}), {args.precision}"
    print_times(title, times, "pair", len(pairs))
    plain, ours = (of_rounds[0] for of_rounds in found.values())
    entries = [(entry, ours[row]) for row, entry in plain.items()]
    ious = [iou(*(decode_mask(entry["pred_mask"]) for entry in both)) for both in entries]
    print(f"masks of the two ways: mean IoU {mean(ious):.5f}, least {min(ious):.5f}")
    print(f"existence differs by at most {max(abs(a['confidence'] - b['confidence']) for a, b in entries):.1e}")


def populate(take: ProcessedTake, count: int) -> None:
    """Replace the take's annotation: `count` objects, which are in all frames of the ego camera and of one exo camera,
    the exo cameras in turn. Their masks are the take's masks, in turn.
    """
    known = {
        camera: [rle for of in take.masks.values() for rle in of.get(camera, {}).values()] for camera in take.cameras
    }
    ego, *exos = sorted(known)
    masks = {
        f"object {n}": {
            camera: {frame: known[camera][(n + i) % len(known[camera])] for i, frame in enumerate(take.subsample_idx)}
            for camera in (ego, exos[n % len(exos)])
        }
        for n in range(count)
    }
    replace(take, masks=masks).write_annotation()


@torch.inference_mode()
def predict_plainly(
    backbone: Backbone, model: XSegTx, device: torch.device, take: ProcessedTake, pairs: Pairs
) -> dict[int, dict]:
    """Entries of the results file by row, computed in the published way: pictures are read again for each pair, masks
    are decoded in full, batch norms are not folded.
    """
    entries, side = {}, model.config.input_size
    for row in range(len(pairs)):
        _, name, query_camera, target_camera, frame = pairs.named(row)
        query, target = (
            torch.from_numpy(letterbox(read_frame(frame_path(take.folder / camera, frame)), side))
            for camera in (query_camera, target_camera)
        )
        mask = torch.from_numpy(letterbox(decode_mask(take.masks[name][query_camera][frame]), side))
        images = normalize_image(query), normalize_image(target), mask_to_image(mask)
        look = model(*(backbone(image[None].to(device)) for image in images))
        prob = look.target_mask_prob[:, None]  # (1, H, W) -> (1, 1, H, W)
        found = F.interpolate(prob, (EVAL_SIDE, EVAL_SIDE), mode="bilinear")[0, 0].cpu().numpy()
        video = take.video_size(target_camera)
        assert video is not None  # all cameras of rendered takes have masks
        size = eval_size(video)
        found = put_back(found, Crop.whole(size), size) > THRESHOLD
        entries[row] = {"pred_mask": encode_mask(found), "confidence": float(look.logit[0].sigmoid())}
    return entries


def predict_our_way(recipe: Paper, scenes: Scenes) -> dict[int, dict]:
    """The entries that `predict_plainly` returns, computed in the way of eval_segswap.py."""
    entries = {}
    for scene, answers in answered(recipe, (scenes[number] for number in range(len(scenes)))):
        entries |= entries_of(scene, answers)
    return entries


if __name__ == "__main__":
    run_script(main)
