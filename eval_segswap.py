"""Predict the object masks of a split: checkpoint + processed takes -> {setting}_{split}_results.json.

    python eval_segswap.py --setting ego-exo
    python eval_segswap.py --setting exo-ego --split test --ckpt_path exoego.pth --out_path results
    torchrun --nproc_per_node 8 eval_segswap.py --setting ego-exo        # eight GPUs, the same file

A run that is stopped continues where it was when the same command is given again.
"""

import argparse
import os
import sys
import time
from datetime import timedelta
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: threads that spin while they wait slow all others

import cv2
import torch.distributed as dist
from torch.utils.data import DataLoader
from tqdm import tqdm

from formats.errors import UserError, run_script
from formats.files import read_json, write_json
from formats.parallel import split_by_work, start_loader_worker
from formats.processed import ANNOTATION, DEFAULT_DATA_DIR, ProcessedTake
from formats.results import results_path, write_results
from formats.takes import SETTINGS, find_split_path, read_split
from inference.chunks import ChunkDataset, ChunkPlan, plan_chunks
from inference.parts import Parts, file_digest
from inference.predict_takes import empty_result, predict_takes
from inference.predictor import Predictor
from inference.work import PRECISIONS, default_precision, default_workers
from model.device import resolve_device

ROOT = Path(__file__).resolve().parent
CHECKPOINT_DIRS = {"ego-exo": "egoexo_v2_480x480", "exo-ego": "egoexo_v2_480x480_reverse"}
SKIPPED_STATUS = 3  # the results file is there, but takes are missing from it


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--setting", choices=SETTINGS, required=True, help="query view - target view")
    add("--ckpt_path", type=Path, help="checkpoint; default: the best one that train/run_ego.sh (run_exo.sh) left")
    add(
        "--data_path",
        type=Path,
        default=DEFAULT_DATA_DIR,
        help=f"processed takes (default: {_short(DEFAULT_DATA_DIR)})",
    )
    add("--splits_path", type=Path, help="split.json (default: data/split.json, else the one in the data set)")
    add("--split", default="val", help="which split of it: train, val, test (default: val)")
    add("--out_path", type=Path, default=ROOT / "results", help="folder for the results file (default: results)")
    add("--save_inter", action="store_true", help="keep the per-take files when the results file is complete")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    add("--precision", choices=list(PRECISIONS), help="default: fp32 on a CPU, bf16 on CUDA")
    add("--batch_size", type=int, help="pairs that the network takes at once (default: by the device's memory)")
    add("--num_workers", type=int, help="processes that read and letterbox (default: by CPU count; 0: none)")
    add("--compile", action="store_true", help="torch.compile: minutes at the start, faster after")
    add("--strict", action="store_true", help="stop at the first take that cannot be read")
    add("--overwrite", action="store_true", help="replace a results file of another checkpoint or of unknown origin")
    args = parser.parse_args(argv)
    for name in ("batch_size", "num_workers"):
        value, least = getattr(args, name), int(name == "batch_size")
        if value is not None and value < least:
            parser.error(f"--{name} {value} must be at least {least}")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    rank, world = join_ranks()
    predictor, run = load_predictor(args)
    parts = Parts(args.out_path, args.setting, args.split, args.data_path, run)
    uids = read_split(args.splits_path or find_split_path(args.data_path), args.split)
    if already_complete(args, parts, uids):
        return 0

    plans, failed = plan_takes(uids, args, predictor.batch_size)
    mine = split_by_work({uid: sum(plan.pair_count for plan in plans[uid]) for uid in plans}, world)[rank]
    timer, begin = predictor.timer, time.perf_counter()
    todo = [plan for uid in mine if not parts.done(uid) for plan in plans[uid]]
    for uid in mine:
        if not plans[uid] and not parts.done(uid):  # a take without a pair still has its objects in the file
            parts.write(uid, empty_result(ProcessedTake.read(args.data_path, uid), args.setting))
    total = sum(plan.pair_count for uid in mine for plan in plans[uid])
    pairs = sum(plan.pair_count for plan in todo)
    loader = make_loader(args, predictor, todo)
    with tqdm(total=total, initial=total - pairs, unit="pair", disable=rank > 0, smoothing=0.05) as bar:
        bar.set_description(args.setting)
        unreadable = predict_takes(
            predictor, loader, args.data_path, args.setting, parts.write, timer, bar.update, args.strict
        )
    report = {"pairs": pairs, "seconds": time.perf_counter() - begin, "stages": timer.seconds(), "failed": unreadable}
    reports = gather(report, world)
    if rank == 0:
        return finish(args, parts, uids, failed, reports)
    return 0


def join_ranks() -> tuple[int, int]:
    """(rank, world size) of torchrun's environment, (0, 1) without it. Ranks exchange reports only, so gloo will do."""
    world = int(os.environ.get("WORLD_SIZE", 1))
    if world > 1:
        dist.init_process_group("gloo", timeout=timedelta(days=7))  # a rank may finish long before the others
    return int(os.environ.get("RANK", 0)), world


def gather(report: dict, world: int) -> list[dict]:
    if world == 1:
        return [report]
    reports: list = [None] * world
    dist.all_gather_object(reports, report)
    dist.destroy_process_group()
    return reports


def load_predictor(args: argparse.Namespace) -> tuple[Predictor, dict[str, str]]:
    """The predictor, and what decides its numbers."""
    path = args.ckpt_path or default_checkpoint(args.setting)
    try:
        device = resolve_device(args.device)
        if device.type == "cuda" and device.index is None:  # each local rank has a GPU of its own
            device = resolve_device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}")
        precision = args.precision or default_precision(device)
        predictor = Predictor.load(path, device, precision, args.batch_size, args.compile)
    except (FileNotFoundError, ValueError) as error:
        raise UserError(f"{error}; --ckpt_path and --device choose others") from None
    run = {"checkpoint": file_digest(path), "setting": args.setting, "precision": precision}
    return predictor, run


def default_checkpoint(setting: str) -> Path:
    folder = ROOT / "train" / "checkpoints" / CHECKPOINT_DIRS[setting]
    best, last = folder / "netBest.pth", folder / "netLast.pth"
    if not best.exists() and not last.exists():
        script = "run_ego.sh" if setting == "ego-exo" else "run_exo.sh"
        raise UserError(f"no checkpoint {best}; train one with `cd train && bash {script}` or give --ckpt_path")
    return best if best.exists() else last


def plan_takes(
    uids: list[str], args: argparse.Namespace, batch_size: int
) -> tuple[dict[str, list[ChunkPlan]], dict[str, str]]:
    """Chunks by take, and the reasons of the takes that cannot be read. Raises UserError if there is nothing to do."""
    plans, failed = {}, {}
    for uid in uids:
        try:
            plans[uid] = plan_chunks(ProcessedTake.read(args.data_path, uid), args.setting, batch_size)
        except UserError as error:
            if args.strict:
                raise
            failed[uid] = str(error)
    if not plans:
        raise UserError(
            f"none of the {len(uids)} takes of split {args.split!r} can be read: {next(iter(failed.values()))}"
        )
    return plans, failed


def make_loader(args: argparse.Namespace, predictor: Predictor, plans: list[ChunkPlan]) -> DataLoader:
    dataset = ChunkDataset(args.data_path, args.setting, predictor.side, plans)
    workers = default_workers(predictor.device) if args.num_workers is None else args.num_workers
    workers = min(workers, len(plans))
    pin = predictor.device.type == "cuda"
    cv2.setNumThreads(0)  # they do not survive the fork of a worker
    return DataLoader(dataset, batch_size=None, num_workers=workers, pin_memory=pin, worker_init_fn=start_loader_worker)


def run_record_path(args: argparse.Namespace) -> Path:
    return args.out_path / f"{args.setting}_{args.split}_run.json"


def already_complete(args: argparse.Namespace, parts: Parts, uids: list[str]) -> bool:
    """Is the results file there, made by this very run? UserError if another made it and it may not be replaced."""
    path, record_path = results_path(args.out_path, args.setting, args.split), run_record_path(args)
    if args.overwrite or not path.exists():
        return False
    record = read_json(record_path, f"delete it and {path}") if record_path.exists() else {}
    if record.get("run") != parts.run:
        raise UserError(
            f"{path} was made by another checkpoint or precision; give another --out_path, or --overwrite to replace it"
        )
    present = {uid: parts.path(uid).name for uid in uids if (args.data_path / uid / ANNOTATION).is_file()}
    if record["takes"] != present or record["failed"]:
        return False
    print(f"{path} is complete already ({len(present)} takes); delete it to predict again")
    return True


def finish(args: argparse.Namespace, parts: Parts, uids: list[str], failed: dict[str, str], reports: list[dict]) -> int:
    """Join the parts into the results file, write the run's record, print the summary; returns the exit status."""
    for report in reports:
        failed |= report["failed"]
    path = results_path(args.out_path, args.setting, args.split)
    done = [uid for uid in uids if uid not in failed]
    write_results(path, args.setting, ((uid, parts.read(uid)) for uid in done))
    seconds = max(report["seconds"] for report in reports)
    pairs = sum(report["pairs"] for report in reports)
    stages = {stage: sum(r["stages"].get(stage, 0) for r in reports) for stage in reports[0]["stages"]}
    takes = {uid: parts.path(uid).name for uid in done}
    record = {"run": parts.run, "takes": takes, "failed": failed, "pairs": pairs, "seconds": seconds, "stages": stages}
    write_json(run_record_path(args), record, indent=1)
    if not args.save_inter and not failed:
        parts.remove()
    print(f"{pairs} pairs in {seconds:.1f} s, {pairs / max(seconds, 1e-9):.2f} pairs/s on {len(reports)} process(es)")
    print("time by stage: " + ", ".join(f"{stage} {value:.1f} s" for stage, value in stages.items()))
    for uid, reason in failed.items():
        print(f"skipped take {uid}: {reason}", file=sys.stderr)
    print(f"{len(done)} takes in {path}" + (f", {len(failed)} skipped" if failed else ""))
    return SKIPPED_STATUS if failed else 0


def _short(path: Path) -> Path:
    return path.relative_to(ROOT)


if __name__ == "__main__":
    run_script(main)
