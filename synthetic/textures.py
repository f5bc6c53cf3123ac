"""Procedural textures, and the catalogue of objects that have them.

Objects differ in what is printed on them: a pattern in two colors. Each combination of pattern and colors belongs to
one split only, so no object of the validation or test takes occurs in training.
"""

import itertools
from dataclasses import dataclass, replace

import cv2
import numpy as np

from formats.takes import SPLITS
from synthetic.render import Solid

TILE = 256  # pixels along one side of a texture tile
NOUNS = {"box": ("box", "carton", "book"), "cylinder": ("can", "jar", "drum"), "ellipsoid": ("ball", "melon", "egg")}
TILES = {"box": 6, "cylinder": 4, "ellipsoid": 3}  # tiles side by side in a texture: 6 faces; 3 around, 1 lid; 3 around
COLORS = {  # RGB
    "red": (205, 35, 40),
    "orange": (240, 135, 25),
    "yellow": (240, 215, 50),
    "green": (60, 150, 60),
    "turquoise": (60, 190, 185),
    "blue": (40, 80, 200),
    "purple": (125, 55, 165),
    "pink": (240, 130, 180),
    "white": (240, 240, 235),
    "black": (38, 38, 44),
}
PATTERNS = ("checked", "striped", "ringed", "diagonal", "dotted", "zigzag", "faded", "plaid", "lettered")
Print = tuple[str, str, str]  # a pattern and two colors
SPLIT_BEGINS = 0.6, 0.8  # shares of the catalogue at which the prints of val and test begin
SURFACE = 512  # pixels along one side of the texture of a table top, wall or floor


@dataclass(frozen=True)
class Item:
    """A thing that can be put on the table. Lengths are in units of the mean object width."""

    name: str
    solid: Solid  # around the origin
    half_axes: np.ndarray  # (3,), half of the size of the box around the solid
    has_real_size: bool = False  # True if the thing is never scaled

    @property
    def radius(self) -> float:
        """Half of the box's longer side along x or y."""
        return self.half_axes[:2].max()

    def scaled(self, factor: float) -> "Item":
        if self.has_real_size:
            return self
        solid = replace(self.solid, half_axes=self.solid.half_axes * factor)
        return replace(self, solid=solid, half_axes=self.half_axes * factor)

    def placed(self, place: np.ndarray, rotation: np.ndarray, label: int = 0) -> Solid:
        """The solid in the world, turned by `rotation` and with its middle at `place`."""
        return replace(self.solid, position=place, rotation=rotation, label=label)


def patterned_things(
    seed: int, split: str, take_index: int, count: int, others: int, twins: bool = False
) -> tuple[list[Item], list[Item]]:
    """The `count` objects of the `take_index`-th take of a split, with prints from `twin_prints` if they are `twins`,
    else from `prints_of_take`, and `others` further things around them. These have prints of the same split that no
    object of the take has; every second one shares the pattern or a color with an object.
    """
    prints = (twin_prints if twins else prints_of_take)(seed, split, take_index, count)
    rng = np.random.default_rng([seed, SPLITS.index(split), take_index])
    items = [_make_item(rng, design, number) for number, design in enumerate(prints)]
    rng = np.random.default_rng([seed, SPLITS.index(split), take_index, 3])
    rest = [design for design in _prints_of_split(seed, split) if design not in prints]
    alike = [design for design in rest if any(design[0] == own[0] or share_color(design, own) for own in prints)]
    pools = [(rest, alike)[number % 2] for number in range(others)]
    return items, [_make_item(rng, pool[rng.integers(len(pool))], number) for number, pool in enumerate(pools)]


def prints_of_take(seed: int, split: str, take_index: int, count: int) -> list[Print]:
    """Distinct prints for the objects of a take, if possible with no color twice. No print occurs in another split.

    The prints of a split go to take after take; when they are used up, they are shuffled and given out again.
    """
    catalogue, round_number = _prints_of_split(seed, split), 0
    while True:
        order = np.random.default_rng([seed, SPLITS.index(split), round_number]).permutation(len(catalogue))
        groups = _groups_of_prints([catalogue[i] for i in order], count)
        if take_index < len(groups):
            return groups[take_index]
        take_index, round_number = take_index - len(groups), round_number + 1


def twin_prints(seed: int, split: str, take_index: int, count: int) -> list[Print]:
    """Distinct prints for the objects of a take. Each four are two patterns in two pairs of colors, so that neither
    colors nor patterns alone tell them apart; the first two share their colors, as do the last two, since these stand
    side by side. No print occurs in another split.
    """
    rng, own = np.random.default_rng([seed, SPLITS.index(split), take_index, 4]), _prints_of_split(seed, split)
    prints: list[Print] = []
    for one, other in rng.permutation(list(itertools.combinations(PATTERNS, 2))).tolist():
        colors = [colors for pattern, *colors in own if pattern == one and (other, *colors) in own]
        free = [pair for pair in colors if not {(one, *pair), (other, *pair)} & {*prints}]
        if len(free) > 1:
            prints += [(pattern, *pair) for pair in rng.permutation(free)[:2].tolist() for pattern in (one, other)]
    return [*prints, *(design for design in own if design not in prints)][:count]


def _groups_of_prints(pool: list[Print], count: int) -> list[list[Print]]:
    """Groups of `count` prints of `pool`: as many as have no color twice, but at least one group."""
    groups = []
    while len(pool) >= count:
        group: list[Print] = []
        for design in pool:
            if len(group) < count and not any(share_color(design, other) for other in group):
                group.append(design)
        if groups and len(group) < count:
            break
        group += [design for design in pool if design not in group][: count - len(group)]  # if colors are short
        groups.append(group)
        pool = [design for design in pool if design not in group]
    return groups


def share_color(one: Print, other: Print) -> bool:
    return bool(set(one[1:]) & set(other[1:]))


def _prints_of_split(seed: int, split: str) -> list[Print]:
    catalogue = [(pattern, *colors) for pattern in PATTERNS for colors in itertools.combinations(COLORS, 2)]
    order = np.random.default_rng(seed).permutation(len(catalogue))
    own = np.split(order, [round(share * len(catalogue)) for share in SPLIT_BEGINS])[SPLITS.index(split)]
    return [catalogue[i] for i in own]


def _make_item(rng: np.random.Generator, design: Print, number: int) -> Item:
    """An object whose name says its print; some names are irregular, as in the data set."""
    pattern, *colors = design
    rng.shuffle(colors)
    shape = list(NOUNS)[rng.integers(3)]
    # These widths give equal areas in the picture, since an egg fills less of its bounding box than a carton.
    width = {"box": 0.42, "cylinder": 0.47, "ellipsoid": 0.58}[shape]
    stretch = rng.uniform(0.85, 1.15, 3)
    if shape != "box":
        stretch[1] = stretch[0]
    texture = paint(pattern, colors, TILES[shape], letter=chr(65 + rng.integers(26)), count=int(rng.integers(2, 5)))
    noun = NOUNS[shape][rng.integers(3)]
    style = ("{} {} {}_0", "{} {} {}_0", "{} {} {}", "{} {} {} _0", "{} {} {}_0 ")[rng.integers(5)]
    name = style.format("-".join(colors), pattern, noun)  # unique: no other object of the take has this print
    solid = Solid(shape, np.zeros(3), width * stretch, texture)
    return Item(name.title() if number % 3 == 2 else name, solid, solid.half_axes)


def paint(pattern: str, colors: list[str], tiles: int, letter: str, count: int) -> np.ndarray:
    """A pattern in two colors, repeated `count` times in each tile -> (TILE, TILE * tiles, 3) uint8 BGR."""
    v, u = np.mgrid[0:TILE, 0:TILE].astype(np.float32) / TILE * count
    match pattern:  # `blend` is 0 for pixels of the first color, 1 for pixels of the second
        case "checked":
            blend = (np.floor(2 * u) + np.floor(2 * v)) % 2
        case "striped":
            blend = np.floor(2 * u) % 2
        case "ringed":
            blend = np.floor(2 * v) % 2
        case "diagonal":
            blend = np.floor(2 * (u + v)) % 2
        case "dotted":
            blend = (np.hypot(u % 1 - 0.5, v % 1 - 0.5) < 0.34).astype(np.float32)
        case "zigzag":
            blend = np.floor(2 * (v + np.abs(u % 1 - 0.5))) % 2
        case "faded":
            blend = v / count
        case "plaid":
            blend = (u % 1 < 0.5) * 0.5 + (v % 1 < 0.5) * 0.5
        case _:  # lettered
            blend = _draw_letter(letter)[np.int32(v % 1 * 64), np.int32(u % 1 * 64)]
    first, second = (np.array(COLORS[color][::-1], np.float32) for color in colors)
    return np.tile((first + blend[..., None] * (second - first)).astype(np.uint8), (1, tiles, 1))


def _draw_letter(letter: str) -> np.ndarray:
    """A capital letter as (64, 64) float32: 1 inside the letter, 0 outside."""
    image = np.zeros((64, 64), np.uint8)
    (width, height), _ = cv2.getTextSize(letter, cv2.FONT_HERSHEY_DUPLEX, 1.9, 5)
    cv2.putText(image, letter, (32 - width // 2, 32 + height // 2), cv2.FONT_HERSHEY_DUPLEX, 1.9, 255, 5, cv2.LINE_AA)
    return image.astype(np.float32) / 255


def _smooth_noise(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """(SURFACE, SURFACE) float32 of about -1 to 1, whose finest features are height x width pixels."""
    coarse = rng.uniform(-1, 1, (SURFACE // height + 1, SURFACE // width + 1)).astype(np.float32)
    return cv2.resize(coarse, (SURFACE, SURFACE), interpolation=cv2.INTER_CUBIC)


def paint_table_top(rng: np.random.Generator) -> np.ndarray:
    """Planks -> (SURFACE, SURFACE, 3) uint8 BGR, in a muted color that no object has."""
    base = np.array(((96, 128, 158), (120, 140, 150), (92, 108, 122), (150, 165, 175))[rng.integers(4)], np.float32)
    grain = _smooth_noise(rng, 3, SURFACE // 6) * 0.08 + _smooth_noise(rng, SURFACE // 8, SURFACE // 3) * 0.08
    plank = np.arange(SURFACE) * 6 // SURFACE
    tone = 1 + rng.uniform(-0.09, 0.09, 6)[plank]
    gap = np.where(np.diff(plank, prepend=0) > 0, 0.7, 1.0)
    return np.clip(base * ((1 + grain) * (tone * gap)[:, None])[..., None], 0, 255).astype(np.uint8)


def paint_wall(rng: np.random.Generator, bricks: bool) -> np.ndarray:
    """A wall of plaster or bricks, or a tiled floor -> (SURFACE, SURFACE, 3) uint8 BGR in a pale color."""
    base = rng.uniform(135, 200) + rng.uniform(-14, 14, 3)
    tone = 1 + _smooth_noise(rng, SURFACE // 4, SURFACE // 4) * 0.06 + _smooth_noise(rng, 4, 4) * 0.03
    if bricks:
        row, col = np.mgrid[0:SURFACE, 0:SURFACE] * 12 / SURFACE
        col = col / 2 + 0.5 * (np.floor(row) % 2)
        joint = (row % 1 < 0.09) | (col % 1 < 0.045)
        tone *= np.where(joint, 0.78, 1 + rng.uniform(-0.1, 0.1, (13, 14))[np.int32(row), np.int32(col)])
    return np.clip(base * tone[..., None], 0, 255).astype(np.uint8)
