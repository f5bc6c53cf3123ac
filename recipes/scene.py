"""A `Scene`: pairs to predict together, usually of one moment of a take, with their pictures and masks. `Scenes` reads
them, and `answered` is the one loop that predicts them.

    for scene, answers in answered(recipe, DataLoader(Scenes(pairs, pairs.groups("take", "frame"), recipe.prepare))):
        for row, answer in zip(scene.row, answers): ...    # pairs.named(row) tells the names of a pair
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.data import Dataset

from common.constants import THRESHOLD
from common.errors import UserError
from common.own_code import call_own
from formats.geometry import Size, letterbox
from formats.masks import RLE, fit_mask, letterbox_mask

if TYPE_CHECKING:  # a single pair reads no data set
    from formats.pairs import Pairs

AnyMask = RLE | np.ndarray  # a mask of any size; an array is uint8 of 0 and 1


@dataclass
class Scene:
    """C pictures, O objects and P pairs: in each pair, an object that is marked in one picture is sought in another.

    A scene that is read has masks of any size; `prepared` makes them (H, W) uint8 of 0 and 1, as large as their
    pictures.
    """

    pictures: list[np.ndarray] = field(default_factory=list)  # C: (H, W, 3) uint8 RGB
    kinds: list[str | None] = field(default_factory=list)  # C: of the cameras: ego or exo; None: unknown
    sizes: list[Size] = field(default_factory=list)  # C: (H, W) of the picture before it was prepared
    videos: list[Size] = field(default_factory=list)  # C: (H, W) of the camera's video, often larger
    masks: list[Any] = field(default_factory=list)  # O
    view: list[int] = field(default_factory=list)  # O: the picture in which the object is marked
    object: list[int] = field(default_factory=list)  # P
    target: list[int] = field(default_factory=list)  # P: the picture in which the object is sought
    row: list[int] = field(default_factory=list)  # P: the row of the pair in its table
    true_masks: list[np.ndarray] = field(default_factory=list)  # P, or none: true masks, as large as their pictures
    hint: str | None = None  # a key of SIZE_HINTS: how large objects are in the targets, if somebody said it
    left_out: dict[int, str] = field(default_factory=dict)  # rows that cannot be read, with the reasons

    def add_picture(self, image: np.ndarray, kind: str | None = None, video: Size | None = None) -> int:
        """Add a picture, and return its number."""
        self.pictures.append(image)
        self.kinds.append(kind)
        self.sizes.append(image.shape[:2])
        self.videos.append(video or image.shape[:2])
        return len(self.pictures) - 1

    def add_object(self, mask: AnyMask, view: int) -> int:
        self.masks.append(mask)
        self.view.append(view)
        return len(self.masks) - 1

    def add_pair(self, object: int, target: int, row: int) -> None:
        self.object.append(object)
        self.target.append(target)
        self.row.append(row)

    def prepared(self, side: int | None = None) -> "Scene":
        """The scene with masks in the size of their pictures. With a `side`, both are letterboxed to squares of it."""
        pictures = self.pictures if side is None else [letterbox(image, side) for image in self.pictures]

        def fitted(mask: AnyMask, size: Size) -> np.ndarray:
            if side is None:
                return fit_mask(mask, size)
            return letterbox(mask, side) if isinstance(mask, np.ndarray) else letterbox_mask(mask, side)

        sizes = [pictures[number].shape[:2] for number in self.view]
        return replace(self, pictures=pictures, masks=list(map(fitted, self.masks, sizes)))

    def compared(self, pair: int, answer: Any) -> np.ndarray:
        """The mask of an `Answer` to a pair at the pixels that the benchmark compares, (h, w) bool."""
        target = self.target[pair]
        return answer.at_benchmark_pixels(self.sizes[target], self.videos[target]) > THRESHOLD

    def with_objects(self) -> "Scene":
        """Drop the pairs whose object has an empty mask in the prepared scene, where a small thing can vanish."""
        shown = [number for number, mask in enumerate(self.masks) if mask.any()]
        number_of = {number: place for place, number in enumerate(shown)}
        pairs = [pair for pair, number in enumerate(self.object) if number in number_of]
        return replace(
            self,
            masks=[self.masks[number] for number in shown],
            view=[self.view[number] for number in shown],
            object=[number_of[self.object[pair]] for pair in pairs],
            target=[self.target[pair] for pair in pairs],
            row=[self.row[pair] for pair in pairs],
            true_masks=[self.true_masks[pair] for pair in pairs if self.true_masks],
        )


def joined(scenes: Sequence[Scene]) -> Scene:
    """The pictures, objects and pairs of all scenes, which have different rows, as one scene."""
    whole = Scene()
    for scene in scenes:
        first_picture, first_object = len(whole.pictures), len(whole.masks)
        for name in ("pictures", "kinds", "sizes", "videos", "masks", "row", "true_masks"):
            getattr(whole, name).extend(getattr(scene, name))
        whole.view += [first_picture + number for number in scene.view]
        whole.object += [first_object + number for number in scene.object]
        whole.target += [first_picture + number for number in scene.target]
        whole.left_out |= scene.left_out
    return whole


class Scenes(Dataset):
    """The scenes with the pairs of each of `groups`, numbers of rows that have the same take and frame, prepared by a
    recipe's `prepare`. Rows that cannot be read are left out. With `with_true_masks`, scenes also have the true masks,
    and lack pairs whose query mask is empty.
    """

    def __init__(
        self,
        pairs: "Pairs",
        groups: Sequence[np.ndarray],
        prepare: Callable[[Scene], Scene],
        with_true_masks: bool = False,
    ):
        self.pairs, self.groups, self.prepare, self.with_true_masks = pairs, groups, prepare, with_true_masks

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, index: int) -> Scene:
        scene = call_own(self.prepare, self.read(self.groups[index]))
        if self.with_true_masks:
            scene = scene.with_objects()
            sizes = [scene.sizes[number] for number in scene.target]
            scene.true_masks = [self.true_mask(row, size) for row, size in zip(scene.row, sizes, strict=True)]
        return scene

    def read(self, rows: np.ndarray) -> Scene:
        """Read the pairs of these rows, which share a take and a frame, with each picture and object once."""
        scene, pairs = Scene(), self.pairs
        pictures: dict[int, int] = {}  # by camera
        objects: dict[tuple[int, int], int] = {}  # by object and camera
        for row in rows.tolist():
            take, query, target = int(pairs.take[row]), int(pairs.query[row]), int(pairs.target[row])
            try:
                for camera in (query, target):
                    if camera not in pictures:
                        image = pairs.store.image(take, camera, int(pairs.frame[row]))
                        video = pairs.store.pictures[take][camera].video
                        pictures[camera] = scene.add_picture(image, pairs.store.kind(camera), video)
            except UserError as error:
                scene.left_out[row] = str(error)
                continue
            marked = int(pairs.object[row]), query
            if marked not in objects:
                objects[marked] = scene.add_object(pairs.query_mask(row), pictures[query])
            scene.add_pair(objects[marked], pictures[target], row)
        return scene

    def true_mask(self, row: int, size: Size) -> np.ndarray:
        rle = self.pairs.target_mask(row)
        return fit_mask(rle, size) if rle else np.zeros(size, np.uint8)


def answered(
    recipe: Any,
    scenes: Iterable[Scene],
    ask: Callable[[Scene], list] | None = None,
    world: Any = None,
) -> Iterator[tuple[Scene, list]]:
    """Yield scenes with the answer for each of their pairs: by default `recipe.predict(scene)`, a list of `Answer`s.

    Scenes are joined until they have as many pairs as the recipe computes at once on a GPU. This ends early, after the
    scene in which a signal came to this process of the `world`.
    """
    scenes, ask = iter(scenes), ask or recipe.predict
    while group := scenes_at_once(scenes, recipe.pairs_at_once):
        scene = group[0] if len(group) == 1 else joined(group)
        yield scene, ask(scene) if scene.row else []
        if world and world.signal:
            return


def scenes_at_once(scenes: Iterator[Scene], least: int) -> list[Scene]:
    """The next scenes, until they have `least` pairs; empty if there are no more scenes."""
    group, count = [], 0
    for scene in scenes:
        group.append(scene)
        count += len(scene.row)
        if count >= least:
            break
    return group
