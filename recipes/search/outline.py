"""The last step of a search: what draws the outlines of its answers (`--outline`).

none                           the mask that the search found
grabcut                        GrabCut decides by the picture's colors what the mask leaves open
facebook/sam2.1-hiera-large    SAM 2, by its name or its folder: loaded by transformers, prompted with the mask
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from common.constants import OUTLINES, THRESHOLD
from common.errors import UserError, counted
from common.parallel import in_threads
from formats.crop import Crop, cut, put_back
from formats.geometry import resize
from formats.masks import grab_cut, iou
from model.backbone import digest_of
from model.backbones import hub_fault
from model.device import autocast, memory_errors
from model.weights import check_weights, one_line
from recipes.base import MEMORY_REMEDY, Answer
from recipes.search.crops import CONTEXT, connected_parts, spot_of

NONE, GRAB_CUT = OUTLINES
SHARPEN_SIDE = 192  # the crop in which GrabCut draws, in pixels
SURE = 0.95  # above it, or below 1 - SURE, GrabCut may not change a pixel

LEAST_OVERLAP = 0.5  # a segmenter's mask with a lower IoU with the answer is of something else: the answer stays
MARGIN = 0.1  # the box that a segmenter gets is so much longer than the answer, in both directions
LARGEST_LOGIT = 10.0  # of a mask as a prompt
CROPS_AT_ONCE = 8  # that a segmenter computes: they have 1024 pixels, and need more memory than the search

Outline = Callable[[list[Answer], Sequence[np.ndarray]], list[Answer]]  # answers, each in an image (H, W, 3) uint8 RGB


def outline_of(name: str, device: torch.device, precision: str, tally: Counter[str]) -> tuple[Outline, dict[str, str]]:
    """What draws, and the entries of a run's record that say what this is. A segmenter counts its masks in `tally`, see
    `tally_line`. Raises UserError if it cannot be loaded.
    """
    if name == NONE:
        return lambda answers, images: answers, {"outline": name}
    if name == GRAB_CUT:
        return lambda answers, images: in_threads(sharpened, answers, images), {"outline": name}
    segmenter = Sam2(name, device, precision)
    drawn_by = {"outline": Path(name).name if Path(name).is_dir() else name, "outline_sha256": segmenter.digest}

    def draw(answers: list[Answer], images: Sequence[np.ndarray]) -> list[Answer]:
        drawn = segmented(segmenter, answers, images)
        tally["asked"] += sum(bool((answer.prob > THRESHOLD).any()) for answer in answers)
        tally["drawn"] += sum(new is not old for new, old in zip(drawn, answers, strict=True))
        return drawn

    return draw, drawn_by


def tally_line(tally: Mapping[str, int]) -> str:
    """What a person is told of a segmenter's masks; nothing if it was never asked."""
    if not (asked := tally.get("asked", 0)):
        return ""
    others = f"; the other answers overlap its masks by less than {LEAST_OVERLAP:.0%}, and stay as they were"
    drawn = tally.get("drawn", 0)
    return f"SAM 2 drew {drawn:,} of {counted(asked, 'mask')}{others if drawn < asked else ''}\n"


def sharpened(answer: Answer, image: np.ndarray) -> Answer:
    """The answer with an outline that follows the colors of the picture (H, W, 3) uint8 RGB: GrabCut decides what is
    not sure. Crumbs are dropped.
    """
    prob = cv2.resize(answer.prob, (SHARPEN_SIDE, SHARPEN_SIDE))
    labels = np.where(prob > THRESHOLD, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[prob > SURE], labels[prob < 1 - SURE] = cv2.GC_FGD, cv2.GC_BGD
    if {cv2.GC_FGD, cv2.GC_BGD} - {*np.unique(labels).tolist()}:  # GrabCut needs both
        return answer
    mask = grab_cut(cut(image, answer.crop, SHARPEN_SIDE), labels, rounds=1)  # pyrefly: ignore
    parts = [part.mask for part in connected_parts(mask, answer.crop, image.shape[:2])]  # pyrefly: ignore
    return answer._replace(prob=np.any([*parts, np.zeros_like(mask)], 0).astype(np.float32))


def segmented(segmenter: "Sam2", answers: list[Answer], images: Sequence[np.ndarray]) -> list[Answer]:
    """The answers with the outlines of a segmenter, each asked in a crop that is three times as large as the answer. Of
    its masks, the one that overlaps the answer most is taken; an answer that none overlaps well stays as it is.
    """
    drawn = list(answers)
    shown = [row for row, answer in enumerate(answers) if (answer.prob > THRESHOLD).any()]
    for start in range(0, len(shown), CROPS_AT_ONCE):
        rows = shown[start : start + CROPS_AT_ONCE]
        crops = [crop_around(answers[row], images[row]) for row in rows]
        pictures = in_threads(cut, [images[row] for row in rows], crops, repeat(segmenter.side))
        given = in_threads(in_crop, [answers[row] for row in rows], crops, repeat(segmenter.side // 4))
        masks = segmenter(pictures, *prompts_of(given, segmenter.side)).sigmoid().numpy()
        for row, crop, prob, found in zip(rows, crops, given, masks, strict=True):
            overlaps = [overlap(mask, prob) for mask in found]
            if max(overlaps) >= LEAST_OVERLAP:
                drawn[row] = answers[row]._replace(prob=found[np.argmax(overlaps)], crop=crop)
    return drawn


def prompts_of(given: list[np.ndarray], side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes, points and masks for a segmenter of crops of this side, from the probabilities of answers in the crops."""
    boxes, points = zip(*(box_and_point(prob > THRESHOLD) for prob in given), strict=True)
    scale, probs = side / len(given[0]), np.stack(given)
    logits = np.log(probs.clip(1e-9, 1)) - np.log((1 - probs).clip(1e-9, 1))
    return scale * np.array(boxes), scale * np.array(points), logits.clip(-LARGEST_LOGIT, LARGEST_LOGIT)


def overlap(mask: np.ndarray, answer: np.ndarray) -> float:
    """The IoU of two masks, given as probabilities in the same crop; 0 if the answer vanishes at the mask's size."""
    answered = resize(answer, mask.shape) > THRESHOLD  # pyrefly: ignore
    return iou(mask > THRESHOLD, answered) if answered.any() else 0.0


def crop_around(answer: Answer, image: np.ndarray) -> Crop:
    """The crop three times as large as what an answer shows of its object."""
    crop, pixel = answer.crop, answer.crop.side / len(answer.prob)  # pyrefly: ignore
    spot = spot_of(answer.prob > THRESHOLD)
    row, col, extent = (pixel * x for x in spot)  # pyrefly: ignore
    return type(spot)(crop.top + row, crop.left + col, extent).crop(image.shape[:2], CONTEXT)  # pyrefly: ignore


def in_crop(answer: Answer, crop: Crop, side: int) -> np.ndarray:
    """The probability of an answer's mask in another crop, (side, side) float32."""
    place: Any = answer.crop
    prob = put_back(answer.prob, Crop(place.top - crop.top, place.left - crop.left, place.side), (crop.side, crop.side))
    return resize(prob, (side, side))


def box_and_point(mask: np.ndarray) -> tuple[list[float], list[float]]:
    """A box around a mask (S, S) bool that is MARGIN longer, and the mask's deepest point, in pixels of the mask."""
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    row, col = np.unravel_index(depth.argmax(), depth.shape)
    more = MARGIN / 2 * width, MARGIN / 2 * height
    box = left - more[0], top - more[1], left + width + more[0], top + height + more[1]
    return [float(np.clip(x, 0, len(mask))) for x in box], [col + 0.5, row + 0.5]


class Sam2:
    """SAM 2 (Ravi et al. 2024), a promptable segmenter, as transformers loads it from its hub or from a folder. Raises
    UserError if there is no transformers, or if it finds no SAM 2 of this name.
    """

    side: int  # of the crops that it reads, in pixels

    def __init__(self, name: str, device: torch.device, precision: str):
        try:
            from transformers import Sam2Model, Sam2Processor, logging
        except ImportError:
            remedy = f"pip install -r {Path(__file__).parents[2] / 'requirements-sam2.txt'}"
            raise UserError(f"--outline {name} needs transformers, 4.56 or newer; {remedy}") from None
        fault = missing_files(Path(name)) if Path(name).is_dir() else hub_fault()
        logging.disable_progress_bar()
        logging.set_verbosity_error()  # it lists the weights of SAM 2 that only videos need
        try:
            self.processor: Any = Sam2Processor.from_pretrained(name)
            model, report = Sam2Model.from_pretrained(name, output_loading_info=True)
        except Exception as error:  # transformers and its client raise many kinds of errors
            what = f"--outline {name} is neither {NONE} nor {GRAB_CUT}, and transformers loads no SAM 2 from there"
            remedy = "give a folder with its files, or a name such as facebook/sam2.1-hiera-large"
            raise UserError(f"{what} ({fault or one_line(error)}); {remedy}") from None
        if report["missing_keys"]:
            raise UserError(
                f"--outline {name} lacks {len(report['missing_keys'])} weights of SAM 2; is it another model?"
            )
        check_weights(model, name)
        self.model: Any = model.to(device).eval().requires_grad_(False)
        self.digest, self.device, self.precision = digest_of(model), device, precision
        self.side = self.processor.target_size

    def __call__(self, crops: list[np.ndarray], boxes: np.ndarray, points: np.ndarray, masks: np.ndarray) -> Tensor:
        """Read N crops (S, S, 3) uint8 RGB, and for each a box (left, top, right, bottom), a point (x, y) on the object
        and its mask in low resolution, (N, S/4, S/4) logits. Returns the logits of M masks for each crop, (N, M, s, s),
        on the CPU.
        """
        prompts = {"input_boxes": boxes[:, None].tolist(), "input_points": points[:, None, None].tolist()}
        labels = [[[1]] for _ in crops]  # each point is on the object
        read = self.processor(images=crops, input_labels=labels, **prompts, return_tensors="pt")
        inputs = {key: read[key].to(self.device) for key in ("pixel_values", "input_labels", *prompts)}
        inputs["input_masks"] = torch.from_numpy(masks)[:, None].float().to(self.device)
        with memory_errors(MEMORY_REMEDY), autocast(self.device, self.precision):
            return self.model(**inputs, multimask_output=True).pred_masks[:, 0].float().cpu()


def missing_files(folder: Path) -> str:
    """A line on the files of a SAM 2 that a folder does not have; empty if it has all."""
    needed = ("config.json",), ("preprocessor_config.json", "processor_config.json"), ("model.safetensors",)
    missing = [names[0] for names in needed if not any((folder / name).exists() for name in names)]
    return f"it lacks {', '.join(missing)}" if missing else ""
