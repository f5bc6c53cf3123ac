"""3D models from OBJ and GLB files, with their colors and textures, as objects for the table.

This module needs `trimesh`, which reads the files, and `embreex`, which finds where rays hit the models
(requirements-models.txt).
"""

import zlib
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from common.errors import UserError, warn_once
from formats.geometry import resize
from formats.takes import SPLITS
from synthetic.render import MISS, Solid, rotation_about
from synthetic.textures import Item

PICTURE_SUFFIXES = ".jpg", ".jpeg", ".png"
UNIT_IN_CM = 11.0  # centimeters in a unit of length; this gives objects areas in pictures as in the real data set
LENGTHS_IN_CM = 1.0, 100.0  # the shortest and the longest thing that can stand on the table, in centimeters
LONGEST_TEXTURE = 512  # pixels that the longer side of a texture has at most
SPLIT_OF_GROUP = ("train",) * 6 + ("val", "test", "test")  # models fall into nine equal groups; the split of each group


@dataclass(frozen=True)
class Mesh:
    """Triangles around the origin, with their textures. All coordinates are from -1 to 1, in units of `reach`."""

    reach: float  # in units of `UNIT_IN_CM` centimeters: 1, or more if the mesh is longer than a cube from -1 to 1
    scene: Any  # an EmbreeScene of embreex
    rim: np.ndarray  # (V, 3) corners of the convex hull
    normals: np.ndarray  # (F, 3, 3) normals at the corners of each face
    uv: np.ndarray  # (F, 3, 2) texture coordinates of the corners, with v upwards
    textures: tuple[tuple[np.ndarray, np.ndarray], ...]  # three values of `_texels`: full, 1/4 and 1/16 size
    tint: np.ndarray = field(default_factory=lambda: np.ones(3, np.float32))

    @property
    def half_axes(self) -> np.ndarray:
        """Half of the size (3,) of a box around the mesh, whose center is the origin."""
        return self.reach * np.abs(self.rim).max(0)

    def intersect(self, origin: np.ndarray, direction: list[np.ndarray]) -> list[np.ndarray]:
        """Where rays hit the mesh: four arrays (h, w), the parameter of each ray (as in `synthetic.render`), the face
        that it hits, and the weights of the face's second and third corner at that place.
        """
        rays = np.stack(direction, -1).reshape(-1, 3)
        hit = self.scene.run(np.repeat(origin[None], len(rays), 0), rays, output=1)
        depth = np.where(hit["primID"] >= 0, hit["tfar"], MISS)
        return [x.reshape(direction[0].shape) for x in (depth, hit["primID"], hit["u"], hit["v"])]

    def surface(
        self, rays: list[np.ndarray], pixels: int, face: np.ndarray, v: np.ndarray, w: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The colors (1, N, 3) uint8 BGR and normals (3, N) at N places that `intersect` found, in directions 3 x (N,).

        The texture is not much finer than a picture in which the mesh is `pixels` wide, so that fine print turns gray.
        """
        weight = np.stack((1 - v - w, v, w), 1)[..., None]
        normal = (self.normals[face] * weight).sum(1)
        normal *= np.where((normal * np.stack(rays, 1)).sum(1, keepdims=True) > 0, -1, 1)  # towards the camera
        across, up = (self.uv[face] * weight).sum(1).T
        texels, places = self.textures[sum(pixels < limit for limit in (LONGEST_TEXTURE // 4, LONGEST_TEXTURE // 16))]
        first, height, width = places[face].T
        at = first + (np.int32((-up % 1) * height) % height) * width + np.int32((across % 1) * width) % width
        return np.clip(texels[at] * self.tint, 0, 255).astype(np.uint8)[None], normal.T


def import_trimesh() -> ModuleType:
    """The module `trimesh`. Raises UserError if `trimesh` or `embreex` is not installed."""
    try:
        import embreex  # noqa: F401
        import trimesh
    except ImportError as error:
        raise UserError(f"models need more packages ({error}): pip install -r requirements-models.txt") from None
    return trimesh


@cache
def models_by_split(folder: Path) -> dict[str, list[Path]]:
    """The files of models below a folder, by split. The split of a model depends on the name of its file alone.

    Raises UserError if a split has no model.
    """
    models: dict[str, list[Path]] = {split: [] for split in SPLITS}
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".obj", ".glb")):
        models[SPLIT_OF_GROUP[zlib.crc32(path.stem.lower().encode()) % len(SPLIT_OF_GROUP)]].append(path)
    if not all(models.values()):
        counts = ", ".join(f"{len(models[split])} for {split}" for split in SPLITS)
        raise UserError(f"{folder} has too few models (OBJ, GLB): their names give {counts}; each split needs one")
    return models


@cache
def pictures_below(folder: Path) -> list[Path]:
    """The pictures below a folder. Raises UserError if the folder has no picture."""
    if pictures := sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES):
        return pictures
    raise UserError(f"--photos {folder} has no picture (JPEG, PNG)")


def modelled_things(
    folder: Path, seed: int, split: str, take_index: int, count: int, others: int
) -> tuple[list[Item], list[Item]]:
    """The `count` objects of the `take_index`-th take of a split, and `others` further models of the split around them.

    A quarter of the others are twins of objects: the same model in other colors. Another quarter are other models in
    the mean color of an object.
    """
    rng = np.random.default_rng([seed, SPLITS.index(split), take_index, 7])
    files = models_by_split(folder)[split]
    order = rng.permutation(len(files)).tolist()
    chosen = [order[k % len(order)] for k in range(count)] + [order[rng.integers(len(order))] for _ in range(others)]
    twins = {count - 1: 0} if count > 1 and rng.integers(2) else {}
    twins |= {k: int(rng.integers(count)) for k in range(count + 1, count + others, 4)}
    paths = [files[chosen[twins.get(k, k)]] for k in range(count + others)]
    tints = np.exp(rng.normal(0, 0.15, (len(paths), 3)) * [[3 if k in twins else 1] for k in range(len(paths))])
    for k in range(count + 3, count + others, 4):
        models = (load_mesh(path) for path in (paths[k], paths[rng.integers(count)]))
        own_color, imitated_color = (mesh.textures[2][0].mean(0) for mesh in models)
        tints[k] = imitated_color / np.maximum(own_color, 10)
    things = [item_of_model(path, k, tints[k]) for k, path in enumerate(paths)]
    return things[:count], things[count:]


def item_of_model(path: Path, number: int, tint: np.ndarray) -> Item:
    """The model in file `path` as a thing, with its colors multiplied by `tint`, (3,) BGR. `number` makes the thing's
    name unique in the take.
    """
    mesh = replace(load_mesh(path), tint=np.clip(tint, 0.3, 3).astype(np.float32))
    solid = Solid("mesh", np.zeros(3), np.full(3, mesh.reach), mesh)
    return Item(f"{path.stem.lower()}_{number}", solid, mesh.half_axes, has_real_size=True)


@cache
def load_mesh(path: Path) -> Mesh:
    """Read a model. Raises UserError if its file cannot be read, or if the model is too large, too small or flat."""
    trimesh = import_trimesh()
    from embreex.mesh_construction import TriangleMesh
    from embreex.rtcore_scene import EmbreeScene

    parts, corners = _read_parts(path)
    low, high = corners.min((0, 1)), corners.max((0, 1))
    cm = 100 * (high - low).max()  # files are in meters, as the standard of glTF demands
    scale, upright = cm / UNIT_IN_CM / (high - low).max(), rotation_about(0, np.pi / 2)  # files have y up
    hull = trimesh.convex.convex_hull(corners.reshape(-1, 3)).vertices
    corners, rim = (((points - (low + high) / 2) * scale) @ upright.T for points in (corners, hull))
    reach = max(1.0, np.abs(rim).max())
    normals = (np.concatenate([part.vertex_normals[part.faces] for part in parts]) @ upright.T).astype(np.float32)
    pictures, uv = zip(*map(_texture_and_uv, parts), strict=True)
    counts = [len(part.faces) for part in parts]
    textures = [_texels([_shrink(picture, factor) for picture in pictures], counts) for factor in (1, 4, 16)]
    scene = EmbreeScene()
    TriangleMesh(scene, (corners / reach).astype(np.float32))
    return Mesh(reach, scene, rim / reach, normals, np.concatenate(uv).astype(np.float32), tuple(textures))


def _read_parts(path: Path) -> tuple[list[Any], np.ndarray]:
    """The parts of a model, each a Trimesh, and the corners of their triangles (faces, 3, 3) in meters."""
    try:
        scene = import_trimesh().load_scene(path, process=False, resolver=_files_beside(path))
        parts = [part for part in scene.dump() if hasattr(part, "faces")]
        corners = np.concatenate([part.vertices[part.faces] for part in parts])
        cm = 100 * np.ptp(corners, (0, 1)).max()
    except Exception as error:  # a damaged file can make trimesh's readers raise any exception
        raise UserError(f"{path} cannot be read as a model: {error}") from None
    if not LENGTHS_IN_CM[0] <= cm <= LENGTHS_IN_CM[1]:
        limits = f"models stand on a table and are from {LENGTHS_IN_CM[0]:g} to {LENGTHS_IN_CM[1]:g}"
        raise UserError(f"{path} is {cm:.3g} cm long; {limits}: scale the file, whose unit is the meter")
    if np.linalg.matrix_rank(corners.reshape(-1, 3) - corners[0, 0]) < 3:
        raise UserError(f"{path} is flat: all its corners lie in one plane; models are things with a volume")
    return parts, corners


def _files_beside(path: Path) -> Any:
    """A FilePathResolver of trimesh that reads files that a model names, such as textures, only from its folder, and
    warns of files that are not in it.
    """
    kind: Any = import_trimesh().resolvers.FilePathResolver

    class Files(kind):
        def get(self, name: str) -> bytes:
            try:
                return super().get(name)
            except (OSError, ValueError):
                warn_once(f"{path} is drawn without {name}, which is not in its folder")
                raise

    return Files(path)


def _texture_and_uv(part: Any) -> tuple[np.ndarray, np.ndarray]:
    """The texture of a Trimesh (or one pixel of its color), (h, w, 3) uint8 BGR, and its faces' texture coordinates."""
    material, uv = (getattr(part.visual, name, None) for name in ("material", "uv"))
    image = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    if image is None or uv is None:
        color = getattr(material, "main_color", np.full(4, 180))[2::-1]
        return np.full((1, 1, 3), color, np.uint8), np.zeros((len(part.faces), 3, 2))
    picture = np.asarray(image.convert("RGB"))[..., ::-1]
    return _shrink(picture, max(1, max(picture.shape) / LONGEST_TEXTURE)), uv[part.faces]


def _shrink(picture: np.ndarray, factor: float) -> np.ndarray:
    height, width = (max(1, round(length / factor)) for length in picture.shape[:2])
    return resize(picture, (height, width))


def _texels(pictures: list[np.ndarray], counts: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """The pixels of all pictures in one array, (T, 3), and three numbers for each face, (F, 3): the position in the
    array at which the face's picture begins, and the height and width of this picture. `counts`: the number of faces
    that each picture has.
    """
    sizes = np.array([picture.shape[:2] for picture in pictures])
    first = np.cumsum([0, *sizes.prod(1)])[:-1]
    places = np.repeat(np.column_stack([first, sizes]), counts, 0)
    return np.concatenate([picture.reshape(-1, 3) for picture in pictures]), places
