"""Search a target for an object in seven steps, which docs/strong_recipe.md explains. What looks at places is a network
that has learned, or the matcher, which has learned nothing.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import repeat
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.constants import SIZE_HINTS, THRESHOLD
from common.errors import UserError
from common.parallel import in_threads
from formats.crop import Crop, cut, cut_mask
from formats.geometry import resize
from model.backbone import STRIDE, Backbone
from model.device import autocast
from model.features import coverage_of
from model.rows import cat, rows_among, rows_by_key
from recipes.base import Answer, NetworkRecipe
from recipes.scene import Scene
from recipes.search.colors import COLOR_SIDE, colors_of, reduced, same_color, same_contrast
from recipes.search.crops import (
    CLOSE,
    CONTEXT,
    LARGEST_SHARE,
    Part,
    Spot,
    connected_parts,
    expected_shares,
    object_cells,
    size_to_read,
)
from recipes.search.locator import Description, Matches, peaks
from recipes.search.outline import NONE, outline_of, tally_line
from recipes.search.places import LooksAtPlaces, Marked, Numbers, Places, Searched, Shown, highest_rows

SEARCH_VERSION = 11  # version of the prediction, stored in a run's record; raise it with each change of the answers
LOOKS = 5  # places in a target at which it looks, unless another number is given
CELL_BYTES = 2**28  # of the cells of pictures, at most, that a step compares with objects at the same time
ROUNDS = 6  # close looks at a place, at most; each crop can be 1.5 times as large as the one before


class Search(NetworkRecipe):
    """Searches places, and looks at them with a `Matcher`, or with another network that has its methods."""

    close_looks = 2  # of the places of a pair, so many are looked at closely
    usual_outline = NONE
    stays = (*NetworkRecipe.stays, "outline")

    def __init__(self, *args: Any, looks: int | None = None, outline: str | None = None, **options: Any):
        """`looks` is the number of places in a target at which it looks; `outline` is for `outline_of`."""
        super().__init__(*args, **options)
        self.looks = looks or LOOKS
        self.options |= {"looks": self.looks, "search": SEARCH_VERSION}
        self.tally = Counter()
        self.outline, drawn_by = outline_of(outline or self.usual_outline, self.device, self.precision, self.tally)
        if outline not in (None, self.usual_outline):
            self.options |= drawn_by

    def remark(self, tally: Mapping[str, int] | None = None) -> str:
        return tally_line(self.tally if tally is None else tally)

    @classmethod
    def channels_of(cls, backbone: Backbone) -> dict[str, int]:
        if not backbone.early_channels:
            raise UserError(
                f"this recipe reads an earlier layer of the backbone, and {backbone.name} has none; "
                "choose another --backbone"
            )
        return super().channels_of(backbone)

    def predict(self, scene: Scene) -> list[Answer]:
        return [answers[0] for answers in self.answers_at_places(scene, 1)]

    def answers_at_places(self, scene: Scene, count: int) -> list[list[Answer]]:
        """An object whose query mask is empty is hidden, with an empty mask."""
        found, seen = {row: [] for row in scene.row}, scene.with_objects()
        if seen.row:
            with self.computing():
                searched, answers = self.search(seen, count)
            for pair, answer in zip(searched.places.pair, answers, strict=True):
                found[seen.row[pair]].append(answer)
        empty = [Answer(np.zeros(image.shape[:2], np.float32), 0.0) for image in scene.pictures]
        return [found[row] or [empty[target]] for row, target in zip(scene.row, scene.target, strict=True)]

    def search(self, scene: Scene, count: int, close: int | None = None) -> tuple[Searched, list[Answer]]:
        """Look closely at `close` places of each pair (default: `close_looks`). Returns the `count` best ones, and what
        they answer. For more answers, more places get a close look; the first answer stays the one for `count` 1.
        """
        marked, choice, close = Marked.of(scene), self.network.choice, close or self.close_looks
        sizes = self.sizes(scene, marked)  # 1. Sizes
        places = self.locate(scene, marked, sizes, self.looks).likely(close, count)  # 2. Candidates
        query = self.encode(marked, CONTEXT)
        looks = self.look(query, places, CONTEXT)  # 3. Looks
        numbers = Numbers.of(places, looks)
        scores, shown = self.fetch(looks, choice.glance(numbers))
        best = places.highest(scores, max(close, count))
        places, looks, numbers, shown = places[best], looks[best], numbers[best], shown[best]
        places = places.further_beyond(close).at_parts(self.best_parts(shown, places.image))
        close_query = self.encode(marked, CLOSE)
        closer = self.look(close_query, places, CLOSE)  # 4. Close looks
        found = Searched(places, looks, closer, self.compare(marked, places, closer, numbers))
        scores, shown = self.fetch(closer, choice.score(found.numbers))  # 5. Choice
        best = places.highest(scores, count)
        found, shown = found[best], shown[best]
        found.numbers = self.look_back(scene, marked, query.description, found)  # 6. Look back
        existence = self.existence(scene, marked, found).sigmoid()
        return found, self.draw(close_query, found, shown, existence)  # 7. Answer

    def sizes(self, scene: Scene, marked: Marked) -> list[tuple[int, float]]:
        """1. The sizes that objects may have: the number of a pair, and the share of the target's long side."""
        sizes = []
        for pair, (row, target) in enumerate(zip(scene.object, scene.target, strict=True)):
            kinds = SIZE_HINTS[scene.hint] if scene.hint else (scene.kinds[scene.view[row]], scene.kinds[target])
            sizes += [(pair, share) for share in expected_shares(marked.spot[row], marked.mask[row].shape, *kinds)]
        return sizes

    def locate(self, scene: Scene, marked: Marked, sizes: list[tuple[int, float]], count: int) -> Places:
        """2. The `count` highest peaks of the similarity maps of each pair, for all of these sizes."""
        described = self.describe(marked, [(scene.object[pair], share) for pair, share in sizes])
        locator, spots = self.network.locator, [[] for _ in scene.row]

        def highest(rows: list[int], cells: Tensor) -> Tensor:
            return peaks(locator.heat(described[rows], cells), 2 * count, locator.apart)  # some are next to others

        pictures = [(scene.target[pair], self.config.frame_length(share)) for pair, share in sizes]
        found = self.in_pictures(scene, pictures, highest).tolist()
        for (pair, share), (target, long_side), of_size in zip(sizes, pictures, found, strict=True):
            size = scene.pictures[target].shape[:2]
            grid = [length // self.config.cell for length in size_to_read(size, long_side)]
            for value, row, col in of_size:
                if math.isfinite(value):  # a map may have fewer peaks
                    row, col = (row + 0.5) * size[0] / grid[0], (col + 0.5) * size[1] / grid[1]
                    spots[pair].append((value, Spot(row, col, share * max(size))))
        return Places.of(scene, spots, count)

    def describe(self, marked: Marked, queries: list[tuple[int, float]]) -> Description:
        """The descriptions of objects (number, share of the target's long side), as large as they may be there."""
        distinct = list(dict.fromkeys(queries))  # what several pairs ask for is described once
        crops = [self.config.wide_crop(marked.spot[row], share) for row, share in distinct]
        images, masks = self.query_crops(marked[[row for row, _ in distinct]], crops, self.config.wide_size)
        levels = self.in_batches(self.encoder.levels, images)
        return self.network.locator.object_crops(levels, masks).description[rows_among(queries, distinct)]

    def look(self, objects: Any, places: Places, context: float) -> LooksAtPlaces:
        """3. and 4. Look at the places in crops, and tell how well the matches agree with what the looks show."""
        crops, object_rows, found = places.crops(context), self.to_device(places.object), []
        for start in range(0, len(crops), self.batch_size):
            rows = slice(start, start + self.batch_size)
            query, side = objects[object_rows[rows]], self.config.input_size
            images = self.stacked(in_threads(cut, places.image[rows], crops[rows], repeat(side)))
            levels = self.encoder.levels(images)
            with autocast(self.device, self.precision):
                look, cells = self.network.look(query, levels)
            found.append((look, self.network.locator.match(query.cells, query.coverage, cells), cells))
        look, matches, cells = map(cat, zip(*found, strict=True))
        agreement, cosine = matches.agreement(look.target_mask_prob > THRESHOLD), matches.mean(matches.cosine)
        return LooksAtPlaces(crops, look.target_mask_prob, look.logit, matches, agreement, cosine, cells)

    def fetch(self, looks: LooksAtPlaces, scores: Tensor) -> tuple[list[float], Shown]:
        """Copy to the CPU what it decides with: the scores of the places, and what the looks show. The CPU waits for a
        GPU once, and masks are sent as bool.
        """
        scores, masks, *matches = self.to_host(scores, looks.prob > THRESHOLD, *looks.matches.columns())
        return scores.tolist(), Shown(looks.crop, masks.numpy(), Matches(*matches))

    def best_parts(self, shown: Shown, images: list[np.ndarray]) -> list[Part | None]:
        """The part of each look's mask that agrees best, as an answer can cover two things that look alike; None if the
        mask is empty. The looks were at these images.
        """
        parts = in_threads(connected_parts, shown.mask, shown.crop, [x.shape[:2] for x in images])
        best = [of_look[0] if of_look else None for of_look in parts]
        if several := [(row, part) for row, of_look in enumerate(parts) if len(of_look) > 1 for part in of_look]:
            rows = [row for row, _ in several]
            masks = torch.from_numpy(np.stack([part.mask for _, part in several]))
            agreement = shown.matches[rows].agreement(masks).tolist()
            for number in highest_rows(agreement, rows, 1):
                best[rows[number]] = several[number][1]
        return best

    def compare(self, marked: Marked, places: Places, closer: LooksAtPlaces, numbers: Numbers) -> Numbers:
        """4. What close looks tell, and whether what they show has the colors and the contrasts of the objects."""
        objects = colors_of(*self.query_crops(marked, marked.crops(CLOSE), COLOR_SIDE))[self.to_device(places.object)]
        images = self.stacked(in_threads(cut, places.image, closer.crop, repeat(COLOR_SIDE)))
        colors = colors_of(images, reduced(closer.prob, COLOR_SIDE) > THRESHOLD)
        return replace(
            numbers,
            close_logit=closer.logit,
            close_agreement=closer.agreement,
            close_cosine=closer.cosine,
            color=same_color(objects, colors),
            contrast=same_contrast(objects, colors),
        )

    def look_back(self, scene: Scene, marked: Marked, described: Description, found: Searched) -> Numbers:
        """6. How well what looks show leads back to their objects, in the whole pictures in which these are marked, and
        how well the objects and their look-alikes there fit the objects' descriptions.
        """
        locator, seen_in = self.network.locator, found.places.object
        objects, lengths = described[seen_in], self.lengths_to_read(marked)

        def describe(cells: Tensor, prob: Tensor) -> Description:
            return locator.describe(cells, coverage_of(prob > THRESHOLD, cells.shape[1:3]))

        shown = self.in_batches(describe, found.looks.cells, found.looks.prob)

        def numbers(rows: list[int], cells: Tensor) -> Tensor:
            masks, answers = [marked.mask[seen_in[row]] for row in rows], shown[rows]
            on_object = self.stacked(in_threads(partial(object_cells, grid=cells.shape[1:3]), masks))
            back = self.network.back(locator.heat(answers, cells), answers, on_object)
            return torch.stack((back, *locator.on_and_away(locator.heat(objects[rows], cells), on_object)), 1)

        pictures = [(scene.view[row], lengths[row]) for row in seen_in]
        back, home, elsewhere = self.in_pictures(scene, pictures, numbers).unbind(1)
        return replace(found.numbers, back=back, home=home, elsewhere=elsewhere)

    def lengths_to_read(self, marked: Marked) -> list[int]:
        """The long side at which each object's picture is read to look back."""
        lengths = []
        for spot, mask in zip(marked.spot, marked.mask, strict=True):
            share = min(spot.extent / max(mask.shape), LARGEST_SHARE)
            length = self.config.frame_length(share)
            if self.config.cell == STRIDE:  # a plain vision transformer: enlarging a picture costs much
                length = min(length, max(mask.shape))
            lengths.append(length)
        return lengths

    def existence(self, scene: Scene, marked: Marked, found: Searched) -> Tensor:
        """The logit that each place shows its object, (N,)."""
        return self.network.choice.existence(found.numbers)

    def draw(self, objects: Any, found: Searched, shown: Shown, existence: Tensor) -> list[Answer]:
        """7. The masks of the close looks; where one shows nothing, the mask of the look with context. While a mask is
        cut off by its crop, the network looks again, at the new mask. Then `outline` draws them.
        """
        places, closer = found.places, found.closer
        rows, masks = range(len(places)), list(zip(found.looks.prob, found.looks.crop, strict=True))
        for left in reversed(range(ROUNDS)):
            parts = self.best_parts(shown, places.image)
            for row, prob, crop, part in zip(rows, closer.prob, closer.crop, parts, strict=True):
                if part:
                    masks[row] = prob, crop
            cut_off = [k for k, part in enumerate(parts) if part and not part.is_uncut]
            if not (cut_off and left):
                break
            rows, places = [rows[k] for k in cut_off], places.at_parts(parts)[cut_off]
            closer = self.look(objects, places, CLOSE)
            _, shown = self.fetch(closer, closer.logit)
        probs, crops = zip(*masks, strict=True)
        prob, existence = self.to_host(torch.stack(probs), existence)
        return self.outline(list(map(Answer, prob.numpy(), existence.tolist(), crops)), found.places.image)

    # What the steps share

    def encode(self, marked: Marked, context: float) -> Any:
        """The objects, in crops around them, as the network encodes them."""

        def encoded(images: Tensor, masks: Tensor) -> Any:
            given = [self.encoder.levels(images), masks]
            if self.network.reads_masks:
                given.append(self.encoder.masks(masks))
            with autocast(self.device, self.precision):
                return self.network.encode(*given)

        return self.in_batches(encoded, *self.query_crops(marked, marked.crops(context), self.config.input_size))

    def query_crops(self, marked: Marked, crops: list[Crop], side: int) -> tuple[Tensor, Tensor]:
        """A crop of each object's picture (N, side, side, 3), and the masks in the crops (N, side, side)."""
        images = self.stacked(in_threads(cut, marked.image, crops, repeat(side)))
        masks = self.stacked(in_threads(cut_mask, marked.mask, crops, repeat(side)))
        return images, masks

    def in_pictures(
        self, scene: Scene, wanted: Sequence[tuple[int, int]], function: Callable[[list[int], Tensor], Tensor]
    ) -> Tensor:
        """Apply a function to N rows and the whole pictures that they want: (number, long side) each -> (N, ...).

        Pictures of one size are encoded together, each once. `function(rows, cells)` gets the numbers of n rows that
        want this size, and the locator's cells of the picture of each, (n, h, w, C).
        """
        sizes = [size_to_read(scene.pictures[number].shape[:2], long_side) for number, long_side in wanted]
        order, found = [], []
        for size, rows in rows_by_key(sizes).items():
            pictures = list(dict.fromkeys(wanted[row] for row in rows))
            images = self.stacked(in_threads(resize, [scene.pictures[number] for number, _ in pictures], repeat(size)))
            cells = self.in_batches(lambda x: self.network.locator.cells(self.encoder.levels(x)), images)
            of, at_once = rows_among((wanted[row] for row in rows), pictures), max(1, CELL_BYTES // cells[0].nbytes)
            for start in range(0, len(rows), at_once):
                part = slice(start, start + at_once)
                found.append(function(rows[part], cells[self.to_device(of[part])]))
            order += rows
        return torch.cat(found)[self.to_device(np.argsort(order))]
