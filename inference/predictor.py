"""A trained model that finds one object at a time, in pictures of any size.

predictor = Predictor.load()  # the network of this repository, or a checkpoint of yours: Predictor.load("netBest.pth")
mask, existence = predictor.segment(query_image, query_mask, target_image)
mask, existence = predictor.segment(query_image, target_image=target_image, query_box=(left, top, right, bottom))
mask, existence = predictor.segment([query_image, other_image], [query_mask, other_mask], target_image)
for mask, existence in predictor.segment(query_image, query_mask, target_image, places=3): ...
"""

from collections.abc import Sequence
from numbers import Integral
from pathlib import Path

from common.cpu import tune_cpu

tune_cpu(__name__)  # changes the environment, which has an effect only before torch is imported

import numpy as np
import torch
from PIL.Image import Image

from common.arguments import SETTINGS, SHIPPED
from common.errors import UserError, counted
from formats.masks import encode_mask
from formats.processed import Correspondence
from formats.results import THRESHOLD
from inference.cut_out import cut_out
from inference.frame import Frame
from inference.matcher import Matcher, PaperMatcher
from inference.pictures import as_image, as_mask
from inference.search import StrongMatcher
from model.checkpoint import load_checkpoint
from model.device import PRECISIONS, resolve_device, resolve_precision
from model.features import Encoder
from model.strong import StrongXSegTx

ImageLike = np.ndarray | Image | Path | str  # an image or a mask
Found = tuple[np.ndarray, float]  # a mask in the target image, and the probability that the object is visible


class Predictor:
    """Finds objects in pictures with `segment`. `description` describes the network. `settings` are the settings for
    which the network was trained, or empty if the checkpoint does not tell the settings. `digest` is the SHA-256 of the
    checkpoint.
    """

    def __init__(self, matcher: Matcher, description: str = "", settings: Sequence[str] = (), digest: str = ""):
        self.matcher, self.description, self.settings, self.digest = matcher, description, settings, digest

    @classmethod
    def load(
        cls,
        path: Path | str | None = None,
        device: torch.device | str = "auto",
        precision: str | None = "fp32",
        backbone_weights: Path | None = None,
        batch_size: int | None = None,
        looks: int | None = None,
    ) -> "Predictor":
        """Load the network of a checkpoint file, by default SHIPPED. `backbone_weights` is explained in
        `load_checkpoint`, `batch_size` in `NetworkMatcher`, `looks` in `StrongMatcher`. precision=None picks the
        fastest precision that is safe on the device, as the scripts do. Raises UserError if an option is unfit.
        """
        if precision not in (*PRECISIONS, None):
            raise UserError(f"precision {precision!r} is unknown; choose from {', '.join(PRECISIONS)}, or None")
        device = resolve_device(str(device))
        path = Path(SHIPPED if path is None else path)
        backbone, model, arguments, digest = load_checkpoint(path, backbone_weights)
        strong = isinstance(model, StrongXSegTx)
        if looks and not strong:
            raise UserError(f"--looks is for networks of the strong recipe, and {path} is none")
        precision = resolve_precision(precision, device)
        encoder = Encoder(backbone, device, PRECISIONS[precision])
        if strong:
            matcher = StrongMatcher(encoder, model, precision, batch_size, looks)
        else:
            matcher = PaperMatcher(encoder, model, precision, batch_size)
        config = model.config
        description = f"{config.mode} network of {config.input_size} pixels on {backbone.name} features, in {precision}"
        single = "exo-ego" if arguments.get("reverse") else "ego-exo"
        settings = tuple(SETTINGS) if arguments.get("both") else (single,)
        return cls(matcher, description, settings if arguments else (), digest)

    def predict(self, frame: Frame) -> tuple[list[np.ndarray], list[float]]:
        """For all pairs of a frame, the masks' probabilities in the targets' images, (H, W) float32, and existences."""
        answers = self.matcher.predict(self.matcher.prepare(frame))
        sizes = (frame.images[pair.target_camera].shape[:2] for pair in frame.pairs)
        probs = [answer.in_image(size) for answer, size in zip(answers, sizes, strict=True)]
        return probs, [answer.existence for answer in answers]

    def segment(
        self,
        query_image: ImageLike | Sequence[ImageLike],
        query_mask: ImageLike | Sequence[ImageLike] | None = None,
        target_image: ImageLike | None = None,
        query_box: Sequence[float] | None = None,
        setting: str | None = None,
        probability: bool = False,
        places: int | None = None,
    ) -> Found | list[Found]:
        """Find an object of the query image in the target image.

        The images may have any size. An image is a path, an array (H, W, 3) uint8 RGB, or another form that
        inference/pictures.py describes. `query_mask` is the object's mask in the query image, such as (H, W) bool; it
        may be larger or smaller, but must have the image's aspect ratio. In place of the mask, `query_box` gives a box
        around the object, (left, top, right, bottom) in the image's pixels, in which `cut_out` finds the mask.
        `setting` is ego-exo if the query image is from a head-worn camera, exo-ego if the target image is. Without a
        setting, a strong network seeks the object at three sizes. Lists of query images and masks are several pictures
        of the same object; the object is sought from each, and the answer with the highest probability counts.

        Returns the object's mask in the target image, (H, W) uint8 of 0 and 1 (with `probability`, float32 from 0 to
        1), and the probability that the object is visible there. With `places`, returns a list of such answers at up to
        so many places, the likeliest first. Raises UserError if an argument does not fit.
        """
        return self.segment_all(query_image, query_mask, [target_image], query_box, setting, probability, places)[0]

    def segment_all(
        self,
        query_image: ImageLike | Sequence[ImageLike],
        query_mask: ImageLike | Sequence[ImageLike] | None = None,
        target_images: Sequence[ImageLike] | None = None,
        query_box: Sequence[float] | None = None,
        setting: str | None = None,
        probability: bool = False,
        places: int | None = None,
    ) -> list[Found] | list[list[Found]]:
        """`segment` for each image of a list or tuple of target images; the query is encoded only once."""
        if (query_mask is None) == (query_box is None):
            raise UserError("give either query_mask or query_box")
        if setting not in (None, *SETTINGS):
            raise UserError(f"setting {setting!r} is unknown; choose from {', '.join(SETTINGS)}, or None")
        if not isinstance(target_images, list | tuple):
            raise UserError(f"the target images are {type(target_images).__name__}; give a list")
        if places is not None and not (isinstance(places, Integral) and places >= 1):
            raise UserError(f"places {places!r} must be a whole number of at least 1")
        if not isinstance(query_image, list | tuple):
            query_image, query_mask = [query_image], [query_mask]
        elif query_box is not None:
            raise UserError("a query_box is for a single query image; give query masks")
        elif not isinstance(query_mask, list | tuple) or not len(query_mask) == len(query_image) > 0:
            raise UserError(f"there are {counted(len(query_image), 'query image')}; give a list of as many query masks")
        queries = [as_image(image, "query image") for image in query_image]
        targets = [as_image(image, "target image") for image in target_images]
        if query_box is None:
            pairs = zip(query_mask, queries, strict=True)
            masks = [as_mask(mask, "query mask", image.shape[:2]) for mask, image in pairs]
        else:
            masks = [cut_out(queries[0], query_box)]
        if not targets:
            return []
        found = self._places(queries, masks, targets, setting, places or 1)
        if not probability:
            found = [[((prob > THRESHOLD).astype(np.uint8), value) for prob, value in answers] for answers in found]
        return found if places else [answers[0] for answers in found]

    def _places(
        self,
        queries: Sequence[np.ndarray],
        masks: Sequence[np.ndarray],
        targets: Sequence[np.ndarray],
        setting: str | None,
        count: int,
    ) -> list[list[Found]]:
        """For each target, the answers at up to `count` places, no two of which are the same place (`is_same`)."""
        query_names = [f"query {i}" for i in range(len(queries))]
        target_names = [f"target {i}" for i in range(len(targets))]
        images = dict(zip(query_names + target_names, [*queries, *targets], strict=True))
        kinds = {name: SETTINGS[setting][name in target_names] for name in images} if setting else {}
        pairs = [Correspondence("", query, target) for target in target_names for query in query_names]
        encoded = {("", name): encode_mask(mask) for name, mask in zip(query_names, masks, strict=True)}
        frame = self.matcher.prepare(Frame(pairs, images, encoded, kinds))
        if isinstance(self.matcher, StrongMatcher):
            answers = self.matcher.places(frame, count)
        else:
            answers = [[answer] for answer in self.matcher.predict(frame)]
        found: list[list[Found]] = [[] for _ in targets]
        for number, target in enumerate(targets):
            here = sum(answers[number * len(queries) : (number + 1) * len(queries)], [])
            if len(queries) > 1:
                here.sort(key=lambda answer: -answer.existence)
            for answer in here:
                prob = answer.in_image(target.shape[:2])
                if len(found[number]) < count and not any(is_same(prob, other) for other, _ in found[number]):
                    found[number].append((prob, answer.existence))
        return found


def is_same(prob: np.ndarray, other: np.ndarray) -> bool:
    """True if two masks show the same place: the intersection of the masks is at least half of their union."""
    mask, other = prob > THRESHOLD, other > THRESHOLD
    return 2 * (mask & other).sum() >= (mask | other).sum()
