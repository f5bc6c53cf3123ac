"""Run a predictor over processed takes."""

import contextlib
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from formats.errors import UserError
from formats.geometry import EVAL_SIDE, eval_size, unletterbox
from formats.masks import encode_mask
from formats.processed import ProcessedTake
from formats.results import camera_pair_key
from inference.chunks import Chunk, UnreadableChunk
from inference.predictor import Predictor, resize_prob


def predict_takes(
    predictor: Predictor,
    chunks: Iterable[Chunk | UnreadableChunk],
    data_dir: Path,
    setting: str,
    write: Callable[[str, dict], None],
    progress: Callable[[int], None] = lambda pairs: None,
    strict: bool = False,
) -> tuple[dict[str, str], dict[str, float]]:
    """Predict every chunk; hand each finished take to `write(take_uid, result)`, as the results file has it.

    The chunks of a take must follow each other. `progress` is told the number of pairs done. Returns the reason for
    each take that could not be read, and seconds by stage; with `strict` the first reason is raised as a UserError.
    """
    failed: dict[str, str] = {}
    seconds = Counter(read=0.0, network=0.0, encode=0.0)
    begin = time.perf_counter()
    predictions = predict_chunks(predictor, chunks, seconds)
    for uid, of_take in itertools.groupby(predictions, key=lambda item: item[0].plan.take_uid):
        result = empty_result(ProcessedTake.read(data_dir, uid), setting)
        for chunk, masks, existence in of_take:
            if isinstance(chunk, Chunk):
                with stage(seconds, "encode"):
                    fill(result, chunk, masks, existence)
            elif strict:
                raise UserError(f"take {uid}: {chunk.reason}")
            else:
                failed.setdefault(uid, chunk.reason)
            progress(chunk.plan.pair_count)
        if uid not in failed:
            with stage(seconds, "encode"):
                write(uid, result)
    seconds["read"] = time.perf_counter() - begin - seconds["network"] - seconds["encode"]  # the rest
    return failed, dict(seconds)


def predict_chunks(
    predictor: Predictor, chunks: Iterable[Chunk | UnreadableChunk], seconds: Counter[str]
) -> Iterator[tuple[Chunk | UnreadableChunk, Tensor | None, Tensor | None]]:
    """(chunk, masks (P, 480, 480) bool, existence (P,)), on the CPU; both None for a chunk that could not be read.

    One chunk behind: a GPU already works on the next one while the caller encodes this one.
    """
    waiting = None
    for chunk in itertools.chain(chunks, [None]):
        with stage(seconds, "network"):
            started = start_prediction(predictor, chunk) if isinstance(chunk, Chunk) else (None, None, None)
            if waiting and (done := waiting[-1]):
                done.synchronize()
        if waiting:
            yield waiting[:-1]
        waiting = chunk, *started


def start_prediction(predictor: Predictor, chunk: Chunk) -> tuple[Tensor, Tensor, torch.cuda.Event | None]:
    """Masks (P, 480, 480) bool and existence (P,), to be read once the event has happened (None: at once)."""
    prob, existence = predictor.predict(chunk.images, chunk.masks, chunk.mask_image, chunk.pair_mask, chunk.pair_target)
    masks = resize_prob(prob, EVAL_SIDE) > 0.5
    if predictor.device.type != "cuda":
        return masks.cpu(), existence.cpu(), None
    masks, existence = (tensor.to("cpu", non_blocking=True) for tensor in (masks, existence))
    done = torch.cuda.Event()
    done.record()
    return masks, existence, done


def empty_result(take: ProcessedTake, setting: str) -> dict:
    """The results of a take before any is known: every object, camera pair and query frame has its key."""
    masks: dict = {object_name: {} for object_name in take.masks}
    for pair in take.camera_pairs(setting):
        key = camera_pair_key(pair.query_camera, pair.target_camera)
        frames = take.masks[pair.object_name][pair.query_camera]
        masks[pair.object_name][key] = dict.fromkeys(frames)
    return {"masks": masks, "subsample_idx": take.subsample_idx}


def fill(result: dict, chunk: Chunk, masks: Tensor, existence: Tensor) -> None:
    for (pair, frame, size), mask, confidence in zip(chunk.pairs, masks.numpy(), existence.tolist(), strict=True):
        key = camera_pair_key(pair.query_camera, pair.target_camera)
        result["masks"][pair.object_name][key][frame] = {
            "pred_mask": encode_mask(unletterbox(mask, eval_size(size))),
            "confidence": confidence,
        }


@contextlib.contextmanager
def stage(seconds: Counter[str], name: str) -> Iterator[None]:
    begin = time.perf_counter()
    yield
    seconds[name] += time.perf_counter() - begin
