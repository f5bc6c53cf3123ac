"""Inference against the published implementation's way, on the same frames of the same take, in turn.

    python benchmarks/inference.py                            # a CPU, or the GPU if there is one
    python benchmarks/inference.py --precision bf16
    python benchmarks/inference.py --exos_per_object 3 --setting ego-exo

A round is one frame the plain way, pair after pair, and a batch of frames our way, from files to encoded masks. Prints
the ratio of the times per pair, how much the predictions differ, and the operations. The weights are random: the time
does not depend on them.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import mean

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import print_times, timed
from benchmarks.stand_in import make_pool, make_take, write_with_pictures
from common.arguments import Parser, add_setting, at_least
from common.errors import run_script
from formats.geometry import EVAL_SIDE, eval_size, letterbox, unletterbox
from formats.masks import decode_mask, encode_mask
from formats.processed import CameraPair, ProcessedTake, read_frame
from formats.results import THRESHOLD, camera_pair_key
from inference.matcher import Matcher
from inference.predict_takes import ChunkDataset, TakePlan, plan_take, predict_takes
from model.backbone import Backbone, calibrate_batch_norm, mask_to_image, normalize_image, random_backbone
from model.device import PRECISIONS, resolve_device
from model.features import View
from model.xsegtx import XSegTx, XSegTxConfig
from tests.joined_attention import joined_forward


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add_setting(parser, required=False)
    parser.set_defaults(setting="ego-exo")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    add("--precision", choices=list(PRECISIONS), default="fp32", help="of our way; the plain one is fp32")
    add("--batch_size", type=at_least(1), help="pairs that the network takes at once (default: by the device's memory)")
    add("--compile", action="store_true", help="torch.compile our way")
    add("--input_size", type=at_least(48), default=480, help="pixels per side")
    add("--objects", type=at_least(1), default=5, help="in the take")
    add("--exos_per_object", type=at_least(1), default=1, help="exo cameras of each object; 2 or more exist")
    add("--rounds", type=at_least(1), default=5, help="measurements of each way, after one to warm up")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    device = resolve_device(args.device)
    backbone, model = random_backbone(0), XSegTx(XSegTxConfig(input_size=args.input_size)).eval()
    noise = torch.randint(0, 256, (2, 480, 480, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    calibrate_batch_norm(backbone, [normalize_image(noise)])
    matcher = Matcher(backbone, model, device, args.precision, args.batch_size, args.compile)
    backbone.to(device)
    times: dict[str, list[float]] = {"the published way": [], "this project": []}
    ious, existence = [], []
    with tempfile.TemporaryDirectory() as folder:
        frames = (args.rounds + 1) * 8
        take = make_take(Path(folder), "take", make_pool(40), args.objects, frames, args.exos_per_object)
        write_with_pictures(take)
        plan = plan_take(ProcessedTake.read(Path(folder), "take"), args.setting, matcher.batch_size)
        pairs = list(take.camera_pairs(args.setting))  # of every frame: each object is visible in all of them
        for number in range(args.rounds + 1):
            chunk = plan.chunks[number % len(plan.chunks)]
            plain = backbone, model, device, take, pairs, chunk.frames[0]
            ours = matcher, args.setting, take, replace(plan, chunks=[chunk])
            plain_seconds, entries = timed(predict_plainly, *plain)
            our_seconds, results = timed(predict_our_way, *ours)
            if number > 0:
                times["the published way"].append(plain_seconds / len(pairs))
                times["this project"].append(our_seconds / chunk.pair_count)
            for (name, *cameras), entry in zip(pairs, entries, strict=True):
                other = results[name][camera_pair_key(*cameras)][chunk.frames[0]]
                ious.append(iou(decode_mask(entry["pred_mask"]), decode_mask(other["pred_mask"])))
                existence.append(abs(entry["confidence"] - other["confidence"]))
        plain_work = operations(predict_plainly, *plain) / len(pairs)
        our_work = operations(predict_our_way, *ours) / chunk.pair_count
    print_times(f"{args.setting}, {device}, {args.precision}, batches of {matcher.batch_size}", times, "pair")
    print(f"masks of the two ways: mean IoU {mean(ious):.5f}, least {min(ious):.5f}")
    print(f"existence differs by at most {max(existence):.1e}")
    print(f"GFLOP per pair: the published way {plain_work / 1e9:.1f}, this project {our_work / 1e9:.1f}")


@torch.inference_mode()
def predict_plainly(
    backbone: Backbone, model: XSegTx, device: torch.device, take: ProcessedTake, pairs: list[CameraPair], frame: int
) -> list[dict]:
    """Entries of the results file the published way: pictures read for each pair again, masks decoded in full, batch
    norms not folded, joined attention.
    """
    entries, side = [], model.config.input_size
    for name, query_camera, target_camera in pairs:
        query, target = (
            torch.from_numpy(letterbox(read_frame(take.frame_path(camera, frame)), side))
            for camera in (query_camera, target_camera)
        )
        mask = torch.from_numpy(letterbox(decode_mask(take.masks[name][query_camera][frame]), side))
        images = normalize_image(query), normalize_image(target), mask_to_image(mask)
        query_feat, target_feat, mask_feat = (backbone(image[None].to(device)) for image in images)
        prediction = joined_forward(model, View(query_feat), View(target_feat), mask_feat)
        prob = prediction.target_mask_prob[:, None]  # (1, H, W) -> (1, 1, H, W)
        found = F.interpolate(prob, (EVAL_SIDE, EVAL_SIDE), mode="bilinear")[0, 0].cpu().numpy() > THRESHOLD
        found = unletterbox(found, eval_size(take.video_size(target_camera)))
        entries.append({"pred_mask": encode_mask(found), "confidence": float(prediction.existence[0])})
    return entries


def predict_our_way(matcher: Matcher, setting: str, take: ProcessedTake, plan: TakePlan) -> dict:
    """Masks and existence of the pairs of a plan with one chunk, as the results file has them."""
    chunks, written = ChunkDataset(take.folder.parent, setting, matcher.side, plan.chunks), {}
    # A generator, so that the reading belongs to the time.
    predict_takes(matcher, (chunks[i] for i in range(1)), {take.uid: plan}, written.__setitem__, strict=True)
    return written[take.uid]["masks"]


def operations(work: Callable[..., object], *arguments: object) -> int:
    """Floating-point operations of `work(*arguments)`."""
    with FlopCounterMode(display=False) as counter:
        work(*arguments)
    return counter.get_total_flops()


def iou(a: np.ndarray, b: np.ndarray) -> float:
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 1.0


if __name__ == "__main__":
    run_script(main)
