"""Inference against the published implementation's way, one pair at a time (`predict_pair`).

    python benchmarks/inference.py                            # a CPU, or the GPU if there is one
    python benchmarks/inference.py --precision bf16
    python benchmarks/inference.py --exos_per_object 3 --setting ego-exo

Both predict the same frames of the same take, in turn; a round is one frame the plain way and a chunk the fast way, and
the ratio of each round's pairs/s is taken before the median. Random weights: the time does not depend on them.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.stand_in import make_pool, make_take, write_with_pictures
from formats.arguments import Parser, at_least
from formats.errors import UserError, run_script
from formats.geometry import eval_size, letterbox, unletterbox
from formats.masks import decode_mask, encode_mask
from formats.processed import CameraPair, ProcessedTake, read_frame
from formats.takes import SETTINGS
from inference.chunks import ChunkDataset, plan_chunks
from inference.predict_takes import predict_takes
from inference.predictor import PRECISIONS, Predictor
from model.backbone import Backbone, calibrate_batch_norm, mask_to_image, normalize_image, random_backbone
from model.device import resolve_device
from model.xsegtx import XSegTx
from tests.joined_attention import joined_forward


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--setting", choices=SETTINGS, default="ego-exo", help="query view - target view")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    add("--precision", choices=list(PRECISIONS), default="fp32", help="of the fast way; the plain one is fp32")
    add("--batch_size", type=at_least(1), help="pairs that the network takes at once (default: by the device's memory)")
    add("--compile", action="store_true", help="torch.compile the fast way")
    add("--data_path", type=Path, help="processed takes (default: one made for the purpose)")
    add("--take", help="uid of the take in --data_path (default: the first)")
    add("--objects", type=at_least(1), default=5, help="objects of the made take")
    add("--exos_per_object", type=at_least(1), default=1, help="exo cameras of each object; 2 or more exist")
    add("--rounds", type=at_least(1), default=5, help="measurements of each way, after one to warm up")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    device = resolve_device(args.device)
    if not torch.cuda.is_available():
        print("no CUDA device: measured on the CPU only")
    backbone, model = random_backbone(0), XSegTx().eval()
    noise = torch.randint(0, 256, (2, 480, 480, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    calibrate_batch_norm(backbone, [normalize_image(noise)])
    predictor = Predictor(backbone, model, device, args.precision, args.batch_size, args.compile)
    backbone.to(device)
    with tempfile.TemporaryDirectory() as folder:
        take = find_take(args, Path(folder))
        rounds = [measure(args.setting, predictor, backbone, take, index) for index in range(args.rounds + 1)][1:]
        report(args.setting, predictor, rounds)
        report_operations(args.setting, predictor, backbone, take, statistics.median(r["fast"] for r in rounds))


def find_take(args: argparse.Namespace, folder: Path) -> ProcessedTake:
    if args.data_path is None:
        frames = (args.rounds + 1) * 8
        take = make_take(folder, "take", make_pool(40), args.objects, frames, args.exos_per_object)
        write_with_pictures(take)
        return take
    uids = sorted(path.parent.name for path in args.data_path.glob("*/annotation.json"))
    if not uids:
        raise UserError(f"no processed take in {args.data_path}")
    return ProcessedTake.read(args.data_path, args.take or uids[0])


@torch.inference_mode()
def predict_pair(
    backbone: Backbone, model: XSegTx, take: ProcessedTake, pair: CameraPair, frame: int, device: torch.device
) -> dict:
    """One entry of the results file the published way: pictures read for each pair again, masks decoded in full, batch
    norms not folded, joined attention.
    """
    side = model.config.input_size
    query, target = (
        torch.from_numpy(letterbox(read_frame(take.frame_path(camera, frame)), side))
        for camera in (pair.query_camera, pair.target_camera)
    )
    mask = torch.from_numpy(letterbox(decode_mask(take.masks[pair.object_name][pair.query_camera][frame]), side))
    images = normalize_image(query), normalize_image(target), mask_to_image(mask)
    query_feat, target_feat, mask_feat = (backbone(image[None].to(device)) for image in images)
    prediction = joined_forward(model, query_feat, target_feat, mask_feat)
    found = (prediction.target_mask_prob[0] > 0.5).cpu().numpy().astype(np.uint8)
    size = take.video_size(pair.target_camera)
    return {"pred_mask": encode_mask(unletterbox(found, eval_size(size))), "confidence": float(prediction.existence[0])}


def measure(setting: str, predictor: Predictor, backbone: Backbone, take: ProcessedTake, index: int) -> dict:
    """One round: pairs/s of both ways and how much the predictions agree."""
    plans = plan_chunks(take, setting, predictor.batch_size)
    plan = plans[index % len(plans)]
    frame = plan.frames[0]
    pairs = [p for p in take.camera_pairs(setting) if frame in take.masks[p.object_name][p.query_camera]]

    begin = time.perf_counter()
    plain = [predict_pair(backbone, predictor.model, take, pair, frame, predictor.device) for pair in pairs]
    plain_rate = len(pairs) / (time.perf_counter() - begin)

    written = {}
    chunks = ChunkDataset(take.folder.parent, setting, predictor.side, [plan])
    begin = time.perf_counter()
    failed, _ = predict_takes(
        predictor, (chunks[i] for i in range(1)), take.folder.parent, setting, written.__setitem__
    )  # a generator: reading belongs to the time
    fast_rate = plan.pair_count / (time.perf_counter() - begin)
    if failed:
        raise UserError(f"take {failed}")
    masks = written[take.uid]["masks"]
    fast = [masks[p.object_name][f"{p.query_camera}_{p.target_camera}"][frame] for p in pairs]
    ious = [iou(decode_mask(a["pred_mask"]), decode_mask(b["pred_mask"])) for a, b in zip(plain, fast, strict=True)]
    confidence = max(abs(a["confidence"] - b["confidence"]) for a, b in zip(plain, fast, strict=True))
    return {"plain": plain_rate, "fast": fast_rate, "iou": ious, "confidence": confidence}


def iou(a: np.ndarray, b: np.ndarray) -> float:
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 1.0


def report(setting: str, predictor: Predictor, rounds: list[dict]) -> None:
    plain, fast = (statistics.median(r[way] for r in rounds) for way in ("plain", "fast"))
    ratios = sorted(r["fast"] / r["plain"] for r in rounds)
    ious = [value for r in rounds for value in r["iou"]]
    print(f"{setting}, {predictor.device}, {predictor.precision}, batch {predictor.batch_size}")
    print(f"plain {plain:.3f} pairs/s, fast {fast:.3f} pairs/s")
    print(f"ratio: median {statistics.median(ratios):.2f}, from {ratios[0]:.2f} to {ratios[-1]:.2f}")
    print(f"masks of the two ways: mean IoU {statistics.mean(ious):.5f}, least {min(ious):.5f}")
    print(f"existence differs by at most {max(r['confidence'] for r in rounds):.1e}")


def report_operations(
    setting: str, predictor: Predictor, backbone: Backbone, take: ProcessedTake, fast_rate: float
) -> None:
    plan = plan_chunks(take, setting, predictor.batch_size)[0]
    chunk = ChunkDataset(take.folder.parent, setting, predictor.side, [plan])[0]
    pair, frame, _ = chunk.pairs[0]
    with FlopCounterMode(display=False) as plain_flops:
        predict_pair(backbone, predictor.model, take, pair, frame, predictor.device)
    with FlopCounterMode(display=False) as fast_flops:
        predictor.predict(chunk.images, chunk.masks, chunk.mask_image, chunk.pair_mask, chunk.pair_target)
    plain_gflop = plain_flops.get_total_flops() / 1e9
    fast_gflop = fast_flops.get_total_flops() / 1e9 / plan.pair_count
    print(f"floating-point operations per pair: plain {plain_gflop:.0f} GFLOP, fast {fast_gflop:.0f} GFLOP")
    rate, used = matrix_rate(predictor.device, PRECISIONS[predictor.precision]), fast_rate * fast_gflop
    print(f"fast: {used:.0f} GFLOP/s, {used / rate:.0%} of a large product's {rate:.0f}")


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """GFLOP/s of a 4096 x 4096 matrix product: the machine's practical ceiling."""
    size = 4096
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(6):
        begin = time.perf_counter()
        (a @ b)[0, 0].item()  # waits for the device
        seconds.append(time.perf_counter() - begin)
    return 2 * size**3 / statistics.median(seconds[1:]) / 1e9


if __name__ == "__main__":
    run_script(main)
