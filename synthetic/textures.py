"""Procedural textures and the catalogue of objects that wear them.

An object is told apart by what is printed on it: a pattern in two colors. The catalogue deals out each combination
to one split only, so that no object of the validation or test takes is ever seen in training.
"""

import itertools
from dataclasses import dataclass, replace

import cv2
import numpy as np

from formats.takes import SPLITS
from synthetic.render import Solid

TILE = 256  # pixels along one side of a texture tile
SHAPES = {"box": ("box", "carton", "book"), "cylinder": ("can", "jar", "drum"), "ellipsoid": ("ball", "melon", "egg")}
TILES = {"box": 6, "cylinder": 4, "ellipsoid": 3}  # tiles side by side in the texture: faces; side and lid; the globe
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
Look = tuple[str, str, str]  # pattern and two colors
SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}  # of the catalogue


@dataclass(frozen=True)
class Item:
    """An object that can be put on the table. Lengths are in units of the mean object width."""

    name: str
    parts: tuple[Solid, ...]  # about the middle of the item
    half_axes: np.ndarray  # (3,) of the box around it
    like: int | None = None  # the object that it is a twin of

    def scaled(self, factor: float) -> "Item":
        parts = [replace(p, position=p.position * factor, half_axes=p.half_axes * factor) for p in self.parts]
        return replace(self, parts=tuple(parts), half_axes=self.half_axes * factor)

    def solids(self, place: np.ndarray, rotation: np.ndarray, label: int = 0) -> list[Solid]:
        """The item in the world, with its middle at `place`."""
        turned = [replace(p, position=rotation @ p.position, rotation=rotation @ p.rotation) for p in self.parts]
        return [replace(p, position=place + p.position, label=label) for p in turned]


def deal_items(seed: int, split: str, take_index: int, count: int) -> list[Item]:
    """The objects of the `take_index`-th take of a split, with the looks of `deal_looks`."""
    rng = np.random.default_rng([seed, SPLITS.index(split), take_index])
    return [_make_item(rng, look, number) for number, look in enumerate(deal_looks(seed, split, take_index, count))]


def deal_looks(seed: int, split: str, take_index: int, count: int) -> list[Look]:
    """Distinct looks for the objects of a take, none of them in another split, and no color twice if possible.

    A split's part of the catalogue is dealt out take by take; when it is used up, it is shuffled and dealt again.
    """
    looks = _looks_of(seed, split)
    for deal in itertools.count():
        order = np.random.default_rng([seed, SPLITS.index(split), deal]).permutation(len(looks))
        pool = [looks[i] for i in order]
        hands = _deal(pool, count)
        if take_index < len(hands):
            return hands[take_index]
        take_index -= len(hands)


def _deal(pool: list[Look], count: int) -> list[list[Look]]:
    """Hands of `count` looks, as many as can be made without a color twice in a hand, but one at least."""
    hands = []
    while len(pool) >= count:
        hand: list[Look] = []
        for look in pool:
            if len(hand) < count and not any(set(look[1:]) & set(other[1:]) for other in hand):
                hand.append(look)
        if len(hand) < count:
            if hands:
                break
            hand += [look for look in pool if look not in hand][: count - len(hand)]  # more objects than colors allow
        hands.append(hand)
        pool = [look for look in pool if look not in hand]
    return hands


def deal_clutter(seed: int, split: str, take_index: int, looks: list[Look], count: int) -> list[Item]:
    """Things that stand around and are never annotated, with looks of the same split that no object of the take has
    (`looks`). Every second one is a look-alike: it shares the pattern or a color with one of the objects.
    """
    rng = np.random.default_rng([seed, SPLITS.index(split), take_index, 3])
    others = [look for look in _looks_of(seed, split) if look not in looks]
    alike = [look for look in others if any(look[0] == own[0] or set(look[1:]) & set(own[1:]) for own in looks)]
    pools = (others, alike)
    return [_make_item(rng, pools[k % 2][rng.integers(len(pools[k % 2]))], k) for k in range(count)]


def _looks_of(seed: int, split: str) -> list[Look]:
    """The part of the catalogue that a split's objects wear."""
    looks = [(pattern, *colors) for pattern in PATTERNS for colors in itertools.combinations(COLORS, 2)]
    order = np.random.default_rng(seed).permutation(len(looks))
    bounds = np.round(np.cumsum([0.0] + [SHARES[name] for name in SPLITS]) * len(looks)).astype(int)
    index = SPLITS.index(split)
    return [looks[i] for i in order[bounds[index] : bounds[index + 1]]]


def _make_item(rng: np.random.Generator, look: Look, number: int) -> Item:
    pattern, *colors = look
    rng.shuffle(colors)
    shape = list(SHAPES)[rng.integers(3)]
    # Equal areas in the picture: an egg fills less of its bounding box than a carton does.
    width = {"box": 0.42, "cylinder": 0.47, "ellipsoid": 0.58}[shape]
    stretch = rng.uniform(0.85, 1.15, 3)
    if shape != "box":
        stretch[1] = stretch[0]
    texture = paint(pattern, colors, TILES[shape], letter=chr(65 + rng.integers(26)), count=int(rng.integers(2, 5)))
    noun = SHAPES[shape][rng.integers(3)]
    style = ("{} {} {}_0", "{} {} {}_0", "{} {} {}", "{} {} {} _0", "{} {} {}_0 ")[rng.integers(5)]
    name = style.format("-".join(colors), pattern, noun)  # no other object of the take has this look: unique
    solid = Solid(shape, np.zeros(3), width * stretch, texture)
    return Item(name.title() if number % 3 == 2 else name, (solid,), solid.half_axes)


def paint(pattern: str, colors: list[str], tiles: int, letter: str, count: int) -> np.ndarray:
    """Print a pattern in two colors -> (TILE, TILE * tiles, 3) uint8 BGR; it repeats `count` times in each tile."""
    v, u = np.mgrid[0:TILE, 0 : TILE * tiles].astype(np.float32) / TILE * count
    match pattern:  # blend: 0 where the first color is, 1 where the second
        case "checked":
            blend = (np.floor(2 * u) + np.floor(2 * v)) % 2
        case "striped":
            blend = np.floor(2 * u) % 2
        case "ringed":
            blend = np.floor(2 * v) % 2
        case "diagonal":
            blend = np.floor(2 * (u + v)) % 2
        case "dotted":
            blend = np.float32(np.hypot(u % 1 - 0.5, v % 1 - 0.5) < 0.34)
        case "zigzag":
            blend = np.floor(2 * (v + np.abs(u % 1 - 0.5))) % 2
        case "faded":
            blend = v / count
        case "plaid":
            blend = (u % 1 < 0.5) * 0.5 + (v % 1 < 0.5) * 0.5
        case "lettered":
            blend = _letter(letter)[np.int32(v % 1 * 64), np.int32(u % 1 * 64)]
    first, second = (np.array(COLORS[color][::-1], np.float32) for color in colors)
    return np.uint8(first + blend[..., None] * (second - first))


def _letter(letter: str) -> np.ndarray:
    """One capital letter, (64, 64) float32, 1 where it is printed."""
    image = np.zeros((64, 64), np.uint8)
    (width, height), _ = cv2.getTextSize(letter, cv2.FONT_HERSHEY_DUPLEX, 1.9, 5)
    cv2.putText(image, letter, (32 - width // 2, 32 + height // 2), cv2.FONT_HERSHEY_DUPLEX, 1.9, 255, 5, cv2.LINE_AA)
    return np.float32(image) / 255


def noise(rng: np.random.Generator, size: tuple[int, int], grain: tuple[int, int]) -> np.ndarray:
    """Smooth noise of about -1 to 1, (H, W) float32; `grain` is the size (H, W) of its finest features in pixels."""
    coarse = rng.uniform(-1, 1, (size[0] // grain[0] + 1, size[1] // grain[1] + 1)).astype(np.float32)
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)


def paint_wood(rng: np.random.Generator, side: int) -> np.ndarray:
    """A table top of planks -> (side, side, 3) uint8 BGR, in a muted color that no object has."""
    base = np.array(((96, 128, 158), (120, 140, 150), (92, 108, 122), (150, 165, 175))[rng.integers(4)], np.float32)
    grain = noise(rng, (side, side), (3, side // 6)) * 0.08 + noise(rng, (side, side), (side // 8, side // 3)) * 0.08
    plank = np.arange(side) * 6 // side
    tone = 1 + rng.uniform(-0.09, 0.09, 6)[plank]
    gap = np.where(np.diff(plank, prepend=0) > 0, 0.7, 1.0)
    return np.uint8(np.clip(base * ((1 + grain) * (tone * gap)[:, None])[..., None], 0, 255))


def paint_wall(rng: np.random.Generator, side: int, bricks: bool) -> np.ndarray:
    """A wall of plaster or bricks, or a tiled floor -> (side, side, 3) uint8 BGR in a pale color."""
    base = rng.uniform(135, 200) + rng.uniform(-14, 14, 3)
    tone = 1 + noise(rng, (side, side), (side // 4, side // 4)) * 0.06 + noise(rng, (side, side), (4, 4)) * 0.03
    if bricks:
        row, col = np.mgrid[0:side, 0:side] * 12 / side
        col = col / 2 + 0.5 * (np.floor(row) % 2)
        joint = (row % 1 < 0.09) | (col % 1 < 0.045)
        tone *= np.where(joint, 0.78, 1 + rng.uniform(-0.1, 0.1, (13, 14))[np.int32(row), np.int32(col)])
    return np.uint8(np.clip(base * tone[..., None], 0, 255))
