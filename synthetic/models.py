"""Things that somebody modelled: OBJ and GLB files, with colors and textures, as objects for the table.

Needs `trimesh`, which reads them, and `embreex`, which meets them with rays (requirements-models.txt).
"""

import csv
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np

from common.errors import UserError
from formats.takes import SPLITS
from synthetic.render import MISS, Solid, turn
from synthetic.textures import Item

CATALOGUE = "models.csv"  # beside the models, where their files do not say how large they are: file, cm
UNIT = 11.0  # centimeters to a unit of length: then pictures have areas as large as the real ones
SIZES = 1.0, 100.0  # centimeters from and to which a thing can stand on the table
TEXTURE = 512  # pixels of a texture's longer side, at most
SHARE = ("train",) * 6 + ("val", "test", "test")  # which split a ninth of the models goes to


@dataclass(frozen=True)
class Mesh:
    """Triangles about the origin, in units of length. Colors of all textures stand in one row, at three sizes."""

    scene: "EmbreeScene"  # noqa: F821
    rim: np.ndarray  # (V, 3) corners of the convex hull
    normals: np.ndarray  # (F, 3, 3) at the corners of each face
    uv: np.ndarray  # (F, 3, 2), in textures, upwards
    texels: tuple[np.ndarray, ...]  # (T, 3) uint8 BGR, whole, a quarter and a sixteenth as large
    tiles: tuple[np.ndarray, ...]  # (F, 3) first texel, height and width of each face's texture, of each of the three
    level: int = 0
    tint: tuple[float, ...] = (1.0, 1.0, 1.0)

    def reduced(self, pixels: int) -> "Mesh":
        """With textures not much finer than a picture that shows it so large."""
        return replace(self, level=sum(pixels < limit for limit in (TEXTURE // 4, TEXTURE // 16)))

    def meet(self, origin: np.ndarray, direction: list[np.ndarray]) -> tuple[np.ndarray, Callable]:
        """As `synthetic.render` meets other solids."""
        rays = np.stack(direction, -1).reshape(-1, 3).astype(np.float32)
        hit = self.scene.run(np.repeat(origin[None].astype(np.float32), len(rays), 0), rays, output=1)
        hit = {name: x.reshape(direction[0].shape) for name, x in hit.items() if name != "Ng"}

        def look(chosen: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
            face, v, w = (hit[name][chosen] for name in ("primID", "u", "v"))
            weight = np.stack((1 - v - w, v, w), 1)[..., None]
            normal = (self.normals[face] * weight).sum(1)
            away = np.stack([d[chosen] for d in direction], 1)
            normal *= np.where((normal * away).sum(1, keepdims=True) > 0, -1, 1)  # both sides of a face are outer ones
            across, up = (self.uv[face] * weight).sum(1).T
            first, height, width = self.tiles[self.level][face].T
            at = first + (np.int32((-up % 1) * height) % height) * width + np.int32((across % 1) * width) % width
            color = np.clip(self.texels[self.level][at] * np.float32(self.tint), 0, 255).astype(np.uint8)
            return color[None], normal.T

        return np.where(hit["primID"] >= 0, hit["tfar"], MISS), look


def need_trimesh() -> ModuleType:
    """The library, if it and `embreex` are there. Raises UserError."""
    try:
        import embreex  # noqa: F401
        import trimesh
    except ImportError as error:
        raise UserError(f"models need more packages ({error}): pip install -r requirements-models.txt") from None
    return trimesh


@cache
def model_files(folder: Path) -> dict[str, list[Path]]:
    """The models below a folder, by split: the name of its file puts a model into one, wherever the folder is."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".obj", ".glb"))
    found: dict[str, list[Path]] = {split: [] for split in SPLITS}
    for path in files:
        found[SHARE[zlib.crc32(path.stem.lower().encode()) % len(SHARE)]].append(path)
    if not all(found.values()):
        counts = ", ".join(f"{len(found[split])} for {split}" for split in SPLITS)
        raise UserError(f"{folder} has too few models (OBJ, GLB; by their names, {counts}); each split needs one")
    return found


@cache
def find_pictures(folder: Path) -> list[Path]:
    """Raises UserError."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not found:
        raise UserError(f"--photos {folder} has no picture (JPEG, PNG)")
    return found


def deal_models(
    folder: Path, seed: int, split: str, take_index: int, count: int, others: int
) -> tuple[list[Item], list[Item]]:
    """The `count` objects of the `take_index`-th take of a split, and `others` models of it around them: every fourth
    one is a twin of an object, or has the color of one.
    """
    rng = np.random.default_rng([seed, SPLITS.index(split), take_index, 7])
    files = model_files(folder)[split]
    order = [files[i] for i in rng.permutation(len(files))]
    chosen = [order[k % len(order)] for k in range(count)] + [order[rng.integers(len(order))] for _ in range(others)]
    twins = {count - 1: 0} if count > 1 and rng.integers(2) else {}
    twins |= {k: int(rng.integers(count)) for k in range(count + 1, count + others, 4)}
    chosen = [chosen[twins.get(k, k)] for k in range(len(chosen))]
    tints = np.exp(rng.normal(0, 0.15, (len(chosen), 3)) * [[1 + 2 * (k in twins)] for k in range(len(chosen))])
    for k in range(count + 3, count + others, 4):
        tints[k] = _color(chosen[rng.integers(count)]) / np.maximum(_color(chosen[k]), 10)
    things = [make_item(path, k, tints[k], twins.get(k)) for k, path in enumerate(chosen)]
    return things[:count], things[count:]


def make_item(path: Path, number: int, tint: np.ndarray, like: int | None = None) -> Item:
    mesh, half = load_mesh(path)
    mesh = replace(mesh, tint=tuple(np.clip(tint, 0.3, 3).tolist()))
    solid = Solid("mesh", np.zeros(3), np.ones(3), mesh, smooth=True)
    return Item(f"{path.stem.lower()}_{number}", (solid,), half, like=like)


def _color(path: Path) -> np.ndarray:
    return load_mesh(path)[0].texels[2].mean(0)


@cache
def load_mesh(path: Path) -> tuple[Mesh, np.ndarray]:
    """A model and half the sides of the box around it, in units of length. Raises UserError."""
    trimesh = need_trimesh()
    from embreex.mesh_construction import TriangleMesh
    from embreex.rtcore_scene import EmbreeScene

    try:
        parts = [part for part in trimesh.load_scene(path, process=False).dump() if hasattr(part, "faces")]
        corners = np.concatenate([part.vertices[part.faces] for part in parts])
        low, high = corners.min((0, 1)), corners.max((0, 1))
    except Exception as error:  # readers of foreign formats raise anything
        raise UserError(f"{path} is no model that can be read: {error}") from None
    cm = catalogue(path.parent).get(path.name, 100 * (high - low).max())  # glTF is in meters
    if not SIZES[0] <= cm <= SIZES[1]:
        text = f"{path} is {cm:.3g} cm long; models stand on a table and are from {SIZES[0]:g} to {SIZES[1]:g}"
        raise UserError(f"{text}: files are in meters, unless a {CATALOGUE} beside them has another size (file, cm)")
    scale = cm / UNIT / (high - low).max()
    upright = turn(0, np.pi / 2)  # files have y up
    place = lambda points: ((points - (low + high) / 2) * scale) @ upright.T  # noqa: E731
    normals = np.concatenate([part.vertex_normals[part.faces] for part in parts]) @ upright.T
    pictures, uv = zip(*(_picture(part) for part in parts), strict=True)
    texels, tiles = [], []
    for factor in (1, 4, 16):
        small = [_shrunk(picture, factor) for picture in pictures]
        first = np.cumsum([0, *(x.shape[0] * x.shape[1] for x in small)])
        texels.append(np.concatenate([x.reshape(-1, 3) for x in small]))
        rows = [(at, *x.shape[:2]) for at, x in zip(first, small, strict=False)]
        tiles.append(np.repeat(np.array(rows), [len(part.faces) for part in parts], 0))
    scene = EmbreeScene()
    TriangleMesh(scene, place(corners).astype(np.float32))
    rim = place(trimesh.convex.convex_hull(corners.reshape(-1, 3)).vertices)
    normals, uv = normals.astype(np.float32), np.concatenate(uv).astype(np.float32)
    return Mesh(scene, rim, normals, uv, tuple(texels), tuple(tiles)), np.abs(rim).max(0)


def _picture(part: "Trimesh") -> tuple[np.ndarray, np.ndarray]:  # noqa: F821
    """The texture of a part, or its color, (h, w, 3) uint8 BGR, and where in it the corners of its faces are."""
    material = getattr(part.visual, "material", None)
    image = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    base = getattr(material, "baseColorFactor", None)
    color = np.array(getattr(material, "main_color", (180, 180, 180)) if base is None else base)[2::-1]
    uv = getattr(part.visual, "uv", None)
    if image is None or uv is None:
        return np.full((1, 1, 3), color, np.uint8), np.zeros((len(part.faces), 3, 2))
    picture = np.ascontiguousarray(np.asarray(image.convert("RGB"))[..., ::-1])
    return _shrunk(picture, max(1, max(picture.shape) / TEXTURE)), uv[part.faces]


def _shrunk(picture: np.ndarray, factor: float) -> np.ndarray:
    size = [max(1, round(n / factor)) for n in picture.shape[1::-1]]
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


@cache
def catalogue(folder: Path) -> dict[str, float]:
    """Longest sides in cm by the names of files, where a folder says so."""
    path = folder / CATALOGUE
    if not path.exists():
        return {}
    try:
        with path.open(newline="") as file:
            return {row["file"]: float(row["cm"]) for row in csv.DictReader(file)}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is no table with the columns file and cm: {error!r}") from None
