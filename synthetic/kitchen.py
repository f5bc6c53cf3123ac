"""Kitchen things of unlike parts: tins, bottles and cartons with printed labels and caps, mugs, bowls, books.

A thing's design is its kind and three numbers, which choose its form and main color, what is printed on it, and its lid
(or cap, handle, inside, back). The remainder of these numbers by 3 is the split's number, and the words of each split
begin with letters of their own: no thing, label, lid or word of one split occurs in another.
"""

import colorsys
from dataclasses import replace

import cv2
import numpy as np

from formats.takes import SPLITS
from synthetic.render import CORNERS, Solid, rotation_about
from synthetic.textures import Item

FIRST_LETTERS = ("BDFKLMNPRS", "CGTV", "HJWZ")  # of the words of train, val and test
SIDE = 128  # pixels along one side of a texture tile
# Hue, saturation and value, from and to: vivid or muted, white or black, of metal or brown.
TONES = [((0.0, 0.65, 0.45), (1.0, 1.0, 0.95))] * 3 + [((0.0, 0.2, 0.35), (1.0, 0.55, 0.9))] * 2
TONES += [((0.0, 0.0, 0.85), (1.0, 0.1, 1.0)), ((0.0, 0.0, 0.07), (1.0, 0.3, 0.2))]
TONES += [((0.55, 0.0, 0.45), (0.65, 0.1, 0.75)), ((0.05, 0.4, 0.25), (0.1, 0.7, 0.6))]
PARTS = (  # kind, shape, what it wears, x and z of its middle, half axes, degrees about y
    ("tin", "cylinder", "metal", 0, 1.3, 1, 1, 1.3, 0),
    ("tin", "cylinder", "sleeve", 0, 1.3, 1.02, 1.02, 1.15, 0),
    ("tin", "cylinder", "lid", 0, 2.6, 0.9, 0.9, 0.04, 0),
    ("jar", "cylinder", "tone", 0, 1, 1, 1, 1, 0),
    ("jar", "cylinder", "sleeve", 0, 0.95, 1.02, 1.02, 0.6, 0),
    ("jar", "cylinder", "lid", 0, 2.2, 0.94, 0.94, 0.25, 0),
    ("bottle", "cylinder", "tone", 0, 1.5, 0.8, 0.8, 1.5, 0),
    ("bottle", "cylinder", "sleeve", 0, 1.5, 0.82, 0.82, 0.9, 0),
    ("bottle", "ellipsoid", "tone", 0, 3, 0.8, 0.8, 0.9, 0),
    ("bottle", "cylinder", "tone", 0, 4, 0.3, 0.3, 0.5, 0),
    ("bottle", "cylinder", "lid", 0, 4.6, 0.36, 0.36, 0.3, 0),
    ("box", "box", "faces", 0, 1.3, 1, 0.4, 1.3, 0),
    ("carton", "box", "faces", 0, 1.4, 0.9, 0.9, 1.4, 0),
    ("carton", "box", "tone", 0, 2.8, 0.636, 0.9, 0.636, 45),
    ("carton", "box", "lid", 0, 3.8, 0.06, 0.9, 0.25, 0),
    ("carton", "cylinder", "lid", 0.5, 3.3, 0.32, 0.32, 0.25, 45),
    ("mug", "tube", "sleeve", 0, 1, 1, 1, 1, 0),
    ("mug", "inner tube", "lid", 0, 1, 1, 1, 1, 0),
    ("mug", "cylinder", "lid", 0, 0.08, 0.98, 0.98, 0.07, 0),
    ("mug", "ellipsoid", "lid", 1.25, 1.5, 0.14, 0.16, 0.4, 110),
    ("mug", "ellipsoid", "lid", 1.55, 1, 0.14, 0.16, 0.55, 0),
    ("mug", "ellipsoid", "lid", 1.25, 0.5, 0.14, 0.16, 0.4, 70),
    ("bowl", "bowl", "pattern", 0, 1, 1.2, 1.2, 1, 0),
    ("bowl", "inner bowl", "lid", 0, 1, 1.2, 1.2, 1, 0),
    ("bowl", "cylinder", "tone", 0, -0.04, 0.5, 0.5, 0.05, 0),
    ("book", "box", "cover", 0, 1.3, 1, 0.2, 1.3, 0),
)
FILL = 1.35  # root of a thing's area, as OBJECT_AREA says
KINDS = list(dict.fromkeys(kind for kind, *_ in PARTS))
Design = tuple[str, int, int, int]  # kind, and numbers for form, label and lid


def deal_things(seed: int, split: str, take_index: int, count: int, others: int) -> tuple[list[Item], list[Item]]:
    """The `count` objects of the `take_index`-th take of a split, and `others` things around them.

    Every second one of the others resembles an object: it is its twin, but for the label or the lid, or a thing of
    another kind in its color. In every second take the last object is a twin of the first.
    """
    rng = np.random.default_rng([seed, SPLITS.index(split), take_index, 6])

    def draw_number() -> int:
        return int(rng.integers(1 << 40)) * len(SPLITS) + SPLITS.index(split)

    designs: list[Design] = [
        (str(rng.choice(KINDS)), *(draw_number() for _ in range(3))) for _ in range(count + others)
    ]
    twins = {count - 1: 0} if count > 1 and rng.integers(2) else {}
    for k in range(count, count + others):
        like = int(rng.integers(count))
        if k % 4 == 1:
            twins[k] = like
        elif k % 4 == 3:
            designs[k] = (designs[k][0], designs[like][1], *designs[k][2:])
    for k, like in twins.items():
        part = rng.integers(2, 4)
        designs[k] = (*designs[like][:part], draw_number(), *designs[like][part + 1 :])
    things = [make_thing(design, k, twins.get(k)) for k, design in enumerate(designs)]
    return things[:count], things[count:]


def make_thing(design: Design, number: int, like: int | None = None) -> Item:
    """The thing of a design. `number` makes its name unique in the take; `like` is the object that it is a twin of."""
    kind, *seeds = design
    form, ink, top = map(np.random.default_rng, seeds)
    letters = (FIRST_LETTERS[seeds[1] % len(SPLITS)], "AEIOU", "LMNRST", "AEIOU", "LMNRSTX")
    word = "".join(ink.choice([*choice]) for choice in letters[: ink.integers(3, 6)])
    tone, trim, lid = paint_color(form), paint_color(form), paint_color(top)
    pattern, front, back = paint_label(ink, trim if kind in ("jar", "bottle") else tone, word)
    side, cap, page = (np.full_like(front, color) for color in (trim, lid, (200, 225, 230)))
    side[32:96], cap[:, 44:84] = back[32:96], back[:, 44:84]
    cover = front.copy()
    cover[:, :14] = lid  # a book's back reaches round to its front
    plain = {"tone": tone, "lid": lid, "metal": (165, 170, 170)}
    wears = {name: [np.full((8, 48, 3), color, np.uint8)] for name, color in plain.items()} | {
        "sleeve": [front, front, back, cap],
        "faces": [side, side, front, front, cap, cap],
        "cover": [cap, page, cover, cap, page, page],
        "pattern": [pattern] * 3,
    }
    flat = kind in ("box", "book")
    stretch = np.array([1, form.uniform(0.6, 1.4) if flat else 1, form.uniform(0.8, 1.2)])
    lies = rotation_about(0, -np.pi / 2) if flat and form.integers(2) else np.eye(3)
    parts = []
    for of_kind, shape, worn, x, z, *axes, degrees in PARTS:
        if of_kind != kind:
            continue
        half_axes, texture = np.array(axes) * (1 if degrees else stretch), np.hstack(wears[worn])
        rotation = lies @ rotation_about(1, np.deg2rad(degrees))
        parts.append(Solid(shape, lies @ (stretch * (x, 0, z)), half_axes, texture, 0, rotation, smooth=True))
    corners = np.concatenate([part.points(np.minimum(CORNERS, (1, 1, "bowl" not in part.shape))) for part in parts])
    low, high = corners.min(0), corners.max(0)
    parts = [replace(part, position=part.position - (low + high) / 2) for part in parts]
    x, y, z = half = (high - low) / 2
    area = 2.3 * x * y + 2.1 * z * (x + y)  # of a box seen from 35 degrees above, about
    return Item(f"{kind} {word.lower()}_{number}", tuple(parts), half, like=like).scaled(FILL / area**0.5)


def paint_color(rng: np.random.Generator) -> np.ndarray:
    """A color as things in a household have it, (3,) BGR."""
    return 255 * np.array(colorsys.hsv_to_rgb(*rng.uniform(*TONES[rng.integers(len(TONES))]))[::-1])


def paint_label(rng: np.random.Generator, ground: np.ndarray, word: str) -> list[np.ndarray]:
    """Print on a ground color -> a pattern, the pattern with picture and word, and with small print.

    Each is (SIDE, SIDE, 3) uint8 BGR.
    """
    inks = [paint_color(rng).tolist() for _ in range(4)]
    pattern = np.full((SIDE, SIDE, 3), ground, np.uint8)
    step = int(rng.choice([16, 32, 64]))
    match rng.integers(4):
        case 0:
            pattern[np.arange(SIDE) % (2 * step) < step] = inks[0]
        case 1:
            pattern[:, np.arange(SIDE) % step < step // 2] = inks[0]
        case 2:
            for *center, radius in rng.integers((0, 0, 4), (SIDE, SIDE, 16), (14, 3)).tolist():
                cv2.circle(pattern, center, radius, inks[radius % 2], -1, cv2.LINE_AA)
        case 3:
            pattern[80:104] = inks[0]
    front, back = pattern.copy(), pattern.copy()
    top, middle = ((10, 90), (78, 38))[rng.integers(2)]  # of the word's bar, 40 high, and of the picture
    for k in range(rng.integers(1, 5)):
        center = rng.integers((30, middle - 10), (98, middle + 11)).tolist()
        cv2.ellipse(front, center, rng.integers(12, 28, 2).tolist(), 40 * k, 0, 360, inks[1 + k % 3], -1, cv2.LINE_AA)
    bar = front[top : top + 40]
    if rng.integers(3):
        bar[:] = inks[1]
    font, thickness = int(rng.integers(5)), int(rng.integers(3, 7))
    (width, height), _ = cv2.getTextSize(word, font, 1, thickness)
    size = min(112 / width, 30 / height)
    left, bottom = int((SIDE - size * width) / 2), int(20 + size * height / 2)
    cv2.putText(bar, word, (left, bottom), font, size, (250,) * 3 if bar.mean() < 125 else (25,) * 3, thickness, 16)
    back[12:116, 12:116] = inks[3]
    for row in range(20, 76, 8):
        back[row : row + 3, 18 : 70 + rng.integers(40)] = 30 if np.mean(inks[3]) > 110 else 220
    back[82:108, 30:98] = np.where(rng.integers(2, size=(1, 34, 1)).repeat(2, 1), 20, 245)  # bars to scan
    return [pattern, front, back]
