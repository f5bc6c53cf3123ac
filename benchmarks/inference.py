"""Inference against the published implementation's way (one pair at a time, see reference_equivalent.py).

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

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root
from benchmarks.reference_equivalent import predict_pair
from benchmarks.stand_in import make_take
from formats.errors import UserError, run_script
from formats.masks import decode_mask
from formats.processed import ProcessedTake
from formats.takes import SETTINGS
from inference.chunks import ChunkDataset, plan_chunks
from inference.predict_takes import predict_takes
from inference.predictor import Predictor
from inference.timing import StageTimer
from inference.work import PRECISIONS, default_precision
from model.backbone import calibrate_batch_norm, normalize_image, random_backbone
from model.device import resolve_device
from model.xsegtx import XSegTx


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--setting", choices=SETTINGS, default="ego-exo")
    add("--device", default="auto")
    add("--precision", choices=list(PRECISIONS), help="of the fast way; the plain one is fp32 (default: the device's)")
    add("--batch_size", type=int)
    add("--compile", action="store_true")
    add("--data_path", type=Path, help="processed takes (default: takes made for the purpose)")
    add("--take", help="uid of the take in --data_path (default: the first)")
    add("--objects", type=int, default=5, help="objects of the made take")
    add("--exos_per_object", type=int, default=1, help="exo cameras of each object of the made take; 2 or more exist")
    add("--rounds", type=int, default=5)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    device = resolve_device(args.device)
    precision = args.precision or default_precision(device)
    if not torch.cuda.is_available():
        print("no CUDA device: measured on the CPU only")
    backbone, model = random_backbone(0), XSegTx().eval()
    noise = torch.randint(0, 256, (2, 480, 480, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    calibrate_batch_norm(backbone, [normalize_image(noise)])
    predictor = Predictor(backbone, model, device, precision, args.batch_size, args.compile)
    backbone.to(device)
    with tempfile.TemporaryDirectory() as folder:
        take = find_take(args, Path(folder))
        rounds = [measure(args, predictor, backbone, take, index) for index in range(args.rounds + 1)][1:]
        report(args, predictor, backbone, take, rounds)


def find_take(args: argparse.Namespace, folder: Path) -> ProcessedTake:
    if args.data_path is None:
        return make_take(folder, "take", args.objects, args.exos_per_object, frames=(args.rounds + 1) * 8)
    uids = sorted(path.parent.name for path in args.data_path.glob("*/annotation.json"))
    if not uids:
        raise UserError(f"no processed take in {args.data_path}")
    return ProcessedTake.read(args.data_path, args.take or uids[0])


def measure(args, predictor: Predictor, backbone, take: ProcessedTake, index: int) -> dict:
    """One round: (pairs/s plain, pairs/s fast) and how much the predictions agree."""
    plans = plan_chunks(take, args.setting, predictor.batch_size)
    plan = plans[index % len(plans)]
    frame = plan.frames[0]
    pairs = [p for p in take.camera_pairs(args.setting) if frame in take.masks[p.object_name][p.query_camera]]

    begin = time.perf_counter()
    plain = [predict_pair(backbone, predictor.model, take, pair, frame, predictor.device) for pair in pairs]
    plain_rate = len(pairs) / (time.perf_counter() - begin)

    written = {}
    chunks = ChunkDataset(take.folder.parent, args.setting, predictor.side, [plan])
    begin = time.perf_counter()
    failed = predict_takes(
        predictor, (chunks[i] for i in range(1)), take.folder.parent, args.setting, written.__setitem__, predictor.timer
    )
    fast_rate = plan.pair_count / (time.perf_counter() - begin)
    if failed:
        raise UserError(f"take {failed}")
    masks = written[take.uid]["masks"]
    fast = [masks[p.object_name][f"{p.query_camera}_{p.target_camera}"][str(frame)] for p in pairs]
    ious = [iou(decode_mask(a["pred_mask"]), decode_mask(b["pred_mask"])) for a, b in zip(plain, fast, strict=True)]
    confidence = max(abs(a["confidence"] - b["confidence"]) for a, b in zip(plain, fast, strict=True))
    return {"plain": plain_rate, "fast": fast_rate, "iou": ious, "confidence": confidence}


def iou(a: np.ndarray, b: np.ndarray) -> float:
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 1.0


def report(args, predictor: Predictor, backbone, take: ProcessedTake, rounds: list[dict]) -> None:
    plain, fast = (statistics.median(r[way] for r in rounds) for way in ("plain", "fast"))
    ratios = sorted(r["fast"] / r["plain"] for r in rounds)
    ious = [value for r in rounds for value in r["iou"]]
    print(f"{args.setting}, {predictor.device}, {predictor.precision}, batch {predictor.batch_size}")
    print(f"plain {plain:.3f} pairs/s, fast {fast:.3f} pairs/s")
    print(f"ratio: median {statistics.median(ratios):.2f}, from {ratios[0]:.2f} to {ratios[-1]:.2f}")
    print(f"masks of the two ways: mean IoU {statistics.mean(ious):.5f}, least {min(ious):.5f}")
    print(f"existence differs by at most {max(r['confidence'] for r in rounds):.1e}")
    plan = plan_chunks(take, args.setting, predictor.batch_size)[0]
    chunk = ChunkDataset(take.folder.parent, args.setting, predictor.side, [plan])[0]
    frame = plan.frames[0]
    pair = next(p for p in take.camera_pairs(args.setting) if frame in take.masks[p.object_name][p.query_camera])
    with FlopCounterMode(display=False) as plain_flops:
        predict_pair(backbone, predictor.model, take, pair, frame, predictor.device)
    with FlopCounterMode(display=False) as fast_flops:
        predictor.predict(*chunk[2:7])
    plain_gflop = plain_flops.get_total_flops() / 1e9
    fast_gflop = fast_flops.get_total_flops() / 1e9 / plan.pair_count
    print(f"floating-point operations a pair: plain {plain_gflop:.0f} GFLOP, fast {fast_gflop:.0f} GFLOP")
    rate = matrix_rate(predictor)
    print(f"fast: {fast * fast_gflop:.0f} GFLOP/s, {fast * fast_gflop / rate:.0%} of a large product's {rate:.0f}")


def matrix_rate(predictor: Predictor) -> float:
    """GFLOP/s of a 4096 x 4096 matrix product in the predictor's precision: the machine's practical ceiling."""
    size, dtype = 4096, PRECISIONS[predictor.precision]
    a, b = (torch.randn(size, size, device=predictor.device, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(6):
        timer = StageTimer(predictor.device)
        with timer("product"):
            a @ b
        seconds.append(timer.seconds()["product"])
    return 2 * size**3 / statistics.median(seconds[1:]) / 1e9


if __name__ == "__main__":
    run_script(main)
