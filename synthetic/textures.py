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
SHAPES = {"box": ("box", "carton", "book"), "cylinder": ("can", "jar", "drum"), "ellipsoid": ("ball", "melon", "egg")}
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
CUTS = 0.6, 0.8  # fractions of the catalogue at which the prints of val and test begin
GROUND = 512  # pixels along one side of the texture of a table top, wall or floor


@dataclass(frozen=True)
class Item:
    """An object that can be put on the table. Lengths are in units of the mean object width."""

    name: str
    parts: tuple[Solid, ...]  # around the middle of the item, which is the origin
    half_axes: np.ndarray  # (3,), half of the size of the box around the item
    like: int | None = None  # for a twin, the number of the object that it resembles
    has_real_size: bool = False  # True if the item is never scaled

    @property
    def radius(self) -> float:
        """Half of the box's longer side along x or y."""
        return self.half_axes[:2].max()

    def scaled(self, factor: float) -> "Item":
        if self.has_real_size:
            return self
        parts = tuple(replace(p, position=p.position * factor, half_axes=p.half_axes * factor) for p in self.parts)
        return replace(self, parts=parts, half_axes=self.half_axes * factor)

    def solids(self, place: np.ndarray, rotation: np.ndarray, label: int = 0) -> list[Solid]:
        """The item's solids in the world, turned by `rotation` and with their middle at `place`."""
        return [
            replace(part, position=place + rotation @ part.position, rotation=rotation @ part.rotation, label=label)
            for part in self.parts
        ]


def deal_solids(seed: int, split: str, take_index: int, count: int, others: int) -> tuple[list[Item], list[Item]]:
    """The `count` objects of the `take_index`-th take of a split, with prints from `deal_prints`, and `others` further
    things around the objects. The further things have prints of the same split that no object of the take has; every
    second further thing shares the pattern or a color with an object.
    """
    prints = deal_prints(seed, split, take_index, count)
    rng = np.random.default_rng([seed, SPLITS.index(split), take_index])
    items = [_make_item(rng, design, number) for number, design in enumerate(prints)]
    rng = np.random.default_rng([seed, SPLITS.index(split), take_index, 3])
    rest = [design for design in _prints_of(seed, split) if design not in prints]
    alike = [design for design in rest if any(design[0] == own[0] or share_color(design, own) for own in prints)]
    pools = [(rest, alike)[number % 2] for number in range(others)]
    return items, [_make_item(rng, pool[rng.integers(len(pool))], number) for number, pool in enumerate(pools)]


def deal_prints(seed: int, split: str, take_index: int, count: int) -> list[Print]:
    """Distinct prints for the objects of a take, if possible with no color twice. No print occurs in another split.

    The prints of a split are dealt out take by take; when they are used up, they are shuffled and dealt again.
    """
    catalogue = _prints_of(seed, split)
    deal = 0
    while True:
        order = np.random.default_rng([seed, SPLITS.index(split), deal]).permutation(len(catalogue))
        pool = [catalogue[i] for i in order]
        hands = _deal_hands(pool, count)
        if take_index < len(hands):
            return hands[take_index]
        take_index, deal = take_index - len(hands), deal + 1


def _deal_hands(pool: list[Print], count: int) -> list[list[Print]]:
    """Deal `pool` into hands of `count` prints: as many hands as have no color twice, but at least one hand."""
    hands = []
    while len(pool) >= count:
        hand: list[Print] = []
        for design in pool:
            if len(hand) < count and not any(share_color(design, other) for other in hand):
                hand.append(design)
        if hands and len(hand) < count:
            break
        hand += [design for design in pool if design not in hand][: count - len(hand)]  # if colors are short
        hands.append(hand)
        pool = [design for design in pool if design not in hand]
    return hands


def share_color(one: Print, other: Print) -> bool:
    return bool(set(one[1:]) & set(other[1:]))


def _prints_of(seed: int, split: str) -> list[Print]:
    """The prints of a split's objects."""
    catalogue = [(pattern, *colors) for pattern in PATTERNS for colors in itertools.combinations(COLORS, 2)]
    order = np.random.default_rng(seed).permutation(len(catalogue))
    own = np.split(order, [round(cut * len(catalogue)) for cut in CUTS])[SPLITS.index(split)]
    return [catalogue[i] for i in own]


def _make_item(rng: np.random.Generator, design: Print, number: int) -> Item:
    """An object with the print `design`. Its name tells the print; some names are irregular, as in the data set."""
    pattern, *colors = design
    rng.shuffle(colors)
    shape = list(SHAPES)[rng.integers(3)]
    # These widths give equal areas in the picture, since an egg fills less of its bounding box than a carton.
    width = {"box": 0.42, "cylinder": 0.47, "ellipsoid": 0.58}[shape]
    stretch = rng.uniform(0.85, 1.15, 3)
    if shape != "box":
        stretch[1] = stretch[0]
    texture = paint(pattern, colors, TILES[shape], letter=chr(65 + rng.integers(26)), count=int(rng.integers(2, 5)))
    noun = SHAPES[shape][rng.integers(3)]
    style = ("{} {} {}_0", "{} {} {}_0", "{} {} {}", "{} {} {} _0", "{} {} {}_0 ")[rng.integers(5)]
    name = style.format("-".join(colors), pattern, noun)  # unique: no other object of the take has this print
    solid = Solid(shape, np.zeros(3), width * stretch, texture)
    return Item(name.title() if number % 3 == 2 else name, (solid,), solid.half_axes)


def paint(pattern: str, colors: list[str], tiles: int, letter: str, count: int) -> np.ndarray:
    """A pattern in two colors, repeated `count` times in each tile -> (TILE, TILE * tiles, 3) uint8 BGR."""
    v, u = np.mgrid[0:TILE, 0 : TILE * tiles].astype(np.float32) / TILE * count
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
            blend = _letter(letter)[np.int32(v % 1 * 64), np.int32(u % 1 * 64)]
    first, second = (np.array(COLORS[color][::-1], np.float32) for color in colors)
    return (first + blend[..., None] * (second - first)).astype(np.uint8)


def _letter(letter: str) -> np.ndarray:
    """A capital letter as (64, 64) float32: 1 inside the letter, 0 outside."""
    image = np.zeros((64, 64), np.uint8)
    (width, height), _ = cv2.getTextSize(letter, cv2.FONT_HERSHEY_DUPLEX, 1.9, 5)
    cv2.putText(image, letter, (32 - width // 2, 32 + height // 2), cv2.FONT_HERSHEY_DUPLEX, 1.9, 255, 5, cv2.LINE_AA)
    return image.astype(np.float32) / 255


def noise(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Smooth noise, (GROUND, GROUND) float32 of about -1 to 1. Its finest features are height x width pixels."""
    coarse = rng.uniform(-1, 1, (GROUND // height + 1, GROUND // width + 1)).astype(np.float32)
    return cv2.resize(coarse, (GROUND, GROUND), interpolation=cv2.INTER_CUBIC)


def paint_wood(rng: np.random.Generator) -> np.ndarray:
    """A table top of planks -> (GROUND, GROUND, 3) uint8 BGR, in a muted color that no object has."""
    base = np.array(((96, 128, 158), (120, 140, 150), (92, 108, 122), (150, 165, 175))[rng.integers(4)], np.float32)
    grain = noise(rng, 3, GROUND // 6) * 0.08 + noise(rng, GROUND // 8, GROUND // 3) * 0.08
    plank = np.arange(GROUND) * 6 // GROUND
    tone = 1 + rng.uniform(-0.09, 0.09, 6)[plank]
    gap = np.where(np.diff(plank, prepend=0) > 0, 0.7, 1.0)
    return np.clip(base * ((1 + grain) * (tone * gap)[:, None])[..., None], 0, 255).astype(np.uint8)


def paint_wall(rng: np.random.Generator, bricks: bool) -> np.ndarray:
    """A wall of plaster or bricks, or a tiled floor -> (GROUND, GROUND, 3) uint8 BGR in a pale color."""
    base = rng.uniform(135, 200) + rng.uniform(-14, 14, 3)
    tone = 1 + noise(rng, GROUND // 4, GROUND // 4) * 0.06 + noise(rng, 4, 4) * 0.03
    if bricks:
        row, col = np.mgrid[0:GROUND, 0:GROUND] * 12 / GROUND
        col = col / 2 + 0.5 * (np.floor(row) % 2)
        joint = (row % 1 < 0.09) | (col % 1 < 0.045)
        tone *= np.where(joint, 0.78, 1 + rng.uniform(-0.1, 0.1, (13, 14))[np.int32(row), np.int32(col)])
    return np.clip(base * tone[..., None], 0, 255).astype(np.uint8)
