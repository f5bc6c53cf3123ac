"""Predict with a user's method in place of the network: eval_segswap.py --predictor my_method.py:Method

The class needs only a method `predict`, which gets a `TakeFrame`, and returns a pair (mask, existence) for each of
`frame.pairs`, in their order:

- The mask has the size of the target's image and holds booleans or probabilities, best the part of each pixel that the
  object covers. The mask is interpolated at the pixels that the benchmark compares; values above 0.5 are the object.
- The existence is the probability that the object is visible in the target.

With an attribute `letterbox_side`, images and masks are letterboxed to squares of this side in pixels. Each process
makes one object of the class, with the keyword arguments of `--predictor my_method.py:Method key=value ...`. Each
value is passed as text, even a number.

A process predicts one take after the other, and the frames of a take in ascending order. Processes share the takes, and
a stopped run begins a take anew. An answer may therefore depend on earlier frames of the same take, but not on other
takes: forget what you have stored when `take_uid` changes. Under torchrun, "cuda" is the GPU of the process.
docs/extending.md has examples.
"""

import inspect
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.errors import UserError
from common.files import file_digest
from common.own_code import load_class, own_errors
from formats.geometry import Size, unletterbox
from formats.pairs import Pairs
from formats.processed import Correspondence
from model.device import tensor_to_array
from recipes.base import Answer, Recipe
from recipes.scene import Scene


@dataclass
class TakeFrame:
    """A frame of a processed take, as a method gets it. Masks are (H, W) uint8 of 0 and 1, as large as their images."""

    take_uid: str
    number: int  # 0-based position in the 30 fps video
    folder: Path  # of the take; formats.processed.read_frame(folder / camera / "<number>.jpg") reads its other frames
    pairs: list[Correspondence]  # (object_name, query_camera, target_camera)
    images: dict[str, np.ndarray]  # by camera: (H, W, 3) uint8 RGB
    masks: dict[tuple[str, str], np.ndarray]  # by pair[:2]
    kinds: dict[str, str | None]  # by camera: ego or exo
    sizes: dict[str, Size]  # by camera: (H, W) of the frame, before it was letterboxed
    video_sizes: dict[str, Size]  # by camera: (H, W) of the video, often larger

    @classmethod
    def of(cls, scene: Scene, pairs: Pairs) -> "TakeFrame":
        """The frame of a scene, with the names that its rows have in the table of pairs."""
        named, take = [pairs.named(row) for row in scene.row], int(pairs.take[scene.row[0]])
        camera, masks = {}, {}  # by the number of the picture; by pair[:2]
        for pair, number, target in zip(named, scene.object, scene.target, strict=True):
            camera |= {scene.view[number]: pair.query_camera, target: pair.target_camera}
            masks[pair[1:3]] = scene.masks[number]
        of_pairs = [Correspondence(*pair[1:4]) for pair in named]
        columns = scene.pictures, scene.kinds, scene.sizes, scene.videos
        images, kinds, sizes, videos = ({camera[n]: column[n] for n in sorted(camera)} for column in columns)
        take_uid, number, folder = named[0].take_uid, named[0].frame, pairs.store.folders[take]
        return cls(take_uid, number, folder, of_pairs, images, masks, kinds, sizes, videos)


class OwnMethod(Recipe):
    """A recipe that predicts with a user's class, whose answers it checks. `pairs`: the table of the scenes' rows."""

    pairs: Pairs
    stays = ("method", "pairs")

    def __init__(self, name: str, *arguments: str, device: torch.device):
        """name: `my_method.py:Method`; arguments: `key=value`. In `self.options`, a value that names a file, such as
        weights, is replaced by the file's SHA-256. `self.digest` is the code's. Raises UserError if there is no class.
        """
        self.name, self.device, flag = name, device, f"--predictor {name}"
        if odd := [text for text in arguments if "=" not in text]:
            raise UserError(f"{flag} {odd[0]}: not of the form key=value")
        texts = dict(text.split("=", 1) for text in arguments)
        is_file = os.path.isfile  # False for a text that is too long for a name
        digests = {key: file_digest(Path(text)) if is_file(text) else text for key, text in texts.items()}
        own = load_class("--predictor", name, predicts, "a method predict(frame)")
        self.files = [own.path, *(Path(text) for text in texts.values() if is_file(text))]
        self.digest, method_class = own.digest, own.kind
        self.options = {"predictor": own.name, "predictor_sha256": own.digest, "predictor_args": digests}
        try:
            inspect.signature(method_class).bind(**texts)
        except TypeError as error:
            raise UserError(f"{flag}: {error}; it takes {inspect.signature(method_class)}") from None
        with own_errors(flag):
            self.method = method_class(**texts)
        self.side = getattr(self.method, "letterbox_side", None)
        letterboxed = f", in pictures letterboxed to {self.side} pixels" if self.side else ""
        self.description = f"{' '.join((name, *arguments))}{letterboxed}"

    def prepare(self, scene: Scene) -> Scene:
        return scene.prepared(self.side)

    def predict(self, scene: Scene) -> list[Answer]:
        """The method's answers. Raises UserError, naming take and frame, if one has not the form that is asked for."""
        named = TakeFrame.of(scene, self.pairs)
        where = f"{self.name}, take {named.take_uid}, frame {named.number}"
        with own_errors(where):
            answers = self.method.predict(named)
        if not isinstance(answers, list | tuple) or len(answers) != len(named.pairs):
            what = f"{len(answers)} answers" if isinstance(answers, list | tuple) else type(answers).__name__
            raise UserError(f"{where}: predict returned {what}, not a list of {len(named.pairs)}")
        sizes = [scene.pictures[number].shape[:2] for number in scene.target]
        places = [f"{where}, {' '.join(pair)}" for pair in named.pairs]
        checked = [checked_answer(*row) for row in zip(answers, sizes, places, strict=True)]
        if self.side is None:
            return checked
        shown = [unletterbox(x.prob, scene.sizes[number]) for x, number in zip(checked, scene.target, strict=True)]
        return [answer._replace(prob=prob) for answer, prob in zip(checked, shown, strict=True)]


def predicts(value: Any) -> bool:
    return callable(getattr(value, "predict", None))


def checked_answer(answer: Any, size: Size, where: str) -> Answer:
    """Raises UserError unless a method's answer is a mask of `size` (H, W) and an existence, both from 0 to 1."""
    if not isinstance(answer, tuple | list) or len(answer) < 2:
        raise UserError(f"{where}: the answer is {type(answer).__name__}; give a pair (mask, existence)")
    mask, existence = map(as_numbers, answer[:2])  # of an `Answer`, as of a pair
    if mask is None or mask.shape != size or not ((mask >= 0) & (mask <= 1)).all():  # NaN fails, too
        found = "no array of numbers" if mask is None else f"{mask.dtype} of shape {mask.shape}"
        if mask is not None and mask.size:
            found += f", from {mask.min()} to {mask.max()}"
        raise UserError(f"{where}: the mask is {found}; give numbers from 0 to 1 of shape {size}")
    if existence is None or existence.size != 1 or not 0 <= existence.item() <= 1:
        found = str(answer[1] if existence is None else existence.squeeze().tolist())
        raise UserError(f"{where}: the existence is {found:.60}; give a number from 0 to 1")
    return Answer(mask.astype(np.float32), float(existence.item()))


def as_numbers(value: Any) -> np.ndarray | None:
    """An array or a tensor of any device and type, or lists, as an array; None if it holds no numbers."""
    try:
        array = np.asarray(tensor_to_array(value))
    except (ValueError, TypeError, NotImplementedError):  # lists of unequal length; a tensor without values
        return None
    return array if array.dtype.kind in "biuf" else None
