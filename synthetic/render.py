"""A small ray caster with a depth buffer, in numpy and OpenCV.

A solid is a unit solid, mapped into the world by `world = rotation @ (half_axes * unit) + position`. The map does not
change a ray's parameter, so every intersection is computed on the unit solid. SHAPES says how each shape is drawn.
"""

from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any, NamedTuple

import cv2
import numpy as np

from formats.geometry import Size

SUN = np.array([-0.35, -0.45, 0.82]) / np.linalg.norm([-0.35, -0.45, 0.82])  # unit vector to the sun; z is up
LIGHTS = SUN[None]  # (L, 3) vectors to the lights; their length is the strength; the first light casts shadows
AMBIENT = 0.5  # light that reaches a surface which is turned away from all lights
SHADOW_BLUR, SHADOW_DARKNESS = 0.012, 0.55  # fractions of the table's width, and of the light on the table
NEAREST_DEPTH = 1e-2  # nothing nearer than this is drawn
STRIP_PIXELS = 1 << 14  # pixels drawn at a time; cv2.remap takes at most 32767
MISS = np.float32(np.inf)  # the parameter of a ray that hits nothing
TINY_DIVISOR = np.float32(1e-20)  # added to a divisor that may be 0, so that parallel rays do not give 0 / 0
FACE_NORMALS = np.concatenate([[-axis, axis] for axis in np.eye(3, dtype=np.float32)])  # -x, +x, -y, +y, -z, +z
CUBE_CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)


@dataclass(frozen=True)
class Solid:
    """A solid. `shape` is "box", "cylinder" (axis z), "ellipsoid", "room" (a box seen from inside) or "mesh"."""

    shape: str
    position: np.ndarray  # (3,)
    half_axes: np.ndarray  # (3,)
    texture: Any  # (h, w, 3) uint8 BGR in tiles (`synthetic.textures.TILES`); if `shape` is "mesh", the Mesh
    label: int = 0  # written into the label picture; 0 for everything that is not an object
    rotation: np.ndarray = field(default_factory=lambda: np.eye(3))  # columns: the solid's axes in the world

    def to_world(self, unit: np.ndarray) -> np.ndarray:
        """Map points (N, 3) of the unit solid into the world."""
        return (unit * self.half_axes) @ self.rotation.T + self.position


@dataclass(frozen=True)
class Camera:
    """A pinhole camera. Pixel (column, row) = (0, 0) is the center of the top left pixel."""

    rotation: np.ndarray  # (3, 3) world to camera; rows: right, down, forward
    position: np.ndarray  # (3,)
    focal: float  # pixels
    size: Size

    @classmethod
    def look_at(cls, position: np.ndarray, target: np.ndarray, focal: float, size: Size, roll: float = 0) -> "Camera":
        """A camera with `target` in the middle of its picture, turned about its axis by `roll` radians."""
        forward = (target - position) / np.linalg.norm(target - position)
        right = np.cross(forward, [0, 0, 1])
        right /= np.linalg.norm(right)
        down = np.cross(forward, right)
        turned = np.cos(roll) * right + np.sin(roll) * down
        return cls(np.stack([turned, np.cross(forward, turned), forward]), position, focal, size)

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """World points (N, 3) -> pixels (N, 2) as (column, row), and depths (N,), negative behind the camera."""
        x, y, depth = ((points - self.position) @ self.rotation.T).T
        height, width = self.size
        with np.errstate(divide="ignore", invalid="ignore"):
            columns, rows = self.focal * x / depth + (width - 1) / 2, self.focal * y / depth + (height - 1) / 2
        return np.stack([columns, rows], 1), depth


@dataclass
class Picture:
    """A camera's picture: `colors` (H, W) uint32, `depth` (H, W) float32, `labels` (H, W) uint8.

    A pixel's blue, green and red are packed in one number: numpy writes it through a mask 30 times faster than three.
    """

    colors: np.ndarray
    depth: np.ndarray
    labels: np.ndarray

    @property
    def channels(self) -> np.ndarray:
        """A view of `colors` as (H, W, 4) uint8: blue, green, red and an unused channel."""
        return self.colors.view(np.uint8).reshape(*self.colors.shape, 4)

    @property
    def image(self) -> np.ndarray:
        """(H, W, 3) uint8 BGR."""
        return cv2.cvtColor(self.channels, cv2.COLOR_BGRA2BGR)


def rotation_about(axis: int, angle: float) -> np.ndarray:
    """The matrix (3, 3) of a rotation by `angle` radians about axis 0, 1 or 2: x, y or z."""
    i, j = (axis + 1) % 3, (axis + 2) % 3
    rotation = np.eye(3)
    rotation[[i, j], [i, j]] = np.cos(angle)
    rotation[i, j], rotation[j, i] = -np.sin(angle), np.sin(angle)
    return rotation


def render(camera: Camera, solids: list[Solid], behind: Picture | None = None, lights: np.ndarray = LIGHTS) -> Picture:
    """Draw `solids`, in any order, into a copy of the picture `behind`, or into an empty picture."""
    size = camera.size
    if behind:
        picture = deepcopy(behind)
    else:
        picture = Picture(np.zeros(size, np.uint32), np.full(size, MISS), np.zeros(size, np.uint8))
    with np.errstate(divide="ignore", invalid="ignore"):  # rays that miss give infinity or NaN, which is never nearer
        for solid in solids:
            window = _window_of(camera, solid)
            if window:
                _draw_solid(camera, solid, picture, *window, lights)
    return picture


def _window_of(camera: Camera, solid: Solid) -> tuple[slice, slice] | None:
    """The rows and columns of the picture that the solid can cover; None if the solid is outside of the picture."""
    height, width = camera.size
    pixels, depth = camera.project(solid.to_world(CUBE_CORNERS))
    if depth.max() < NEAREST_DEPTH:
        return None
    if depth.min() < NEAREST_DEPTH:  # it reaches behind the camera, so its corners do not bound it in the picture
        return slice(0, height), slice(0, width)
    left, top = np.clip(np.floor(pixels.min(0)), 0, (width, height)).astype(int)
    right, bottom = np.clip(np.ceil(pixels.max(0)) + 1, 0, (width, height)).astype(int)
    return (slice(top, bottom), slice(left, right)) if left < right and top < bottom else None


def _draw_solid(camera: Camera, solid: Solid, picture: Picture, rows: slice, cols: slice, lights: np.ndarray) -> None:
    """Draw one solid into a window, a few rows at a time: this is twice as fast, because arrays then fit the cache."""
    to_unit = solid.rotation.T / solid.half_axes[:, None]
    origin = (to_unit @ (camera.position - solid.position)).astype(np.float32)
    # A pixel's ray is position + depth * direction, and direction is linear in row and column.
    per_camera_axis = (to_unit @ camera.rotation.T).astype(np.float32)
    height, width = camera.size
    x = ((np.arange(cols.start, cols.stop) - (width - 1) / 2) / camera.focal).astype(np.float32)
    y = ((np.arange(rows.start, rows.stop) - (height - 1) / 2) / camera.focal).astype(np.float32)
    shape, pixels, step = SHAPES[solid.shape], max(len(x), len(y)), max(1, STRIP_PIXELS // len(x))
    for top in range(0, len(y), step):
        direction = [axis[0] * x + (axis[1] * y[top : top + step] + axis[2])[:, None] for axis in per_camera_axis]
        depth, *details = shape.intersect(solid.texture, origin, direction)
        strip = slice(rows.start + top, rows.start + top + len(depth)), cols
        nearer = (depth > NEAREST_DEPTH) & (depth < picture.depth[strip])
        if not nearer.any():
            continue
        depth, ahead = depth[nearer], [d[nearer] for d in direction]
        at = [o + depth * d for o, d in zip(origin, ahead, strict=True)]
        surface = shape.surface(solid.texture, at, ahead, pixels, *(x[nearer] for x in details))
        picture.colors[strip][nearer] = _lit_colors(solid, *surface, lights)
        picture.depth[strip][nearer] = depth
        picture.labels[strip][nearer] = solid.label


def _lit_colors(solid: Solid, color: np.ndarray, normal: Sequence[np.ndarray], lights: np.ndarray) -> np.ndarray:
    """The colors of surface points under the lights, packed -> (N,) uint32. N is at most STRIP_PIXELS."""
    x, y, z = (n / np.float32(axis) for n, axis in zip(normal, solid.half_axes, strict=True))
    length = np.sqrt(x * x + y * y + z * z)
    light = np.zeros_like(x)
    for towards in (lights @ solid.rotation).astype(np.float32):
        light = light + np.maximum((x * towards[0] + y * towards[1] + z * towards[2]) / length, 0)
    color = cv2.multiply(color, cv2.merge([(AMBIENT + (1 - AMBIENT) * light)[None]] * 3), dtype=cv2.CV_8U)
    return cv2.cvtColor(color, cv2.COLOR_BGR2BGRA).view(np.uint32)[0, :, 0]


# The functions `_intersect_*` are the `intersect` of a `Shape`, without the texture.


def _intersect_box(origin: np.ndarray, direction: list[np.ndarray]) -> np.ndarray:
    enters, leaves = zip(*map(_cross_slab, origin, direction), strict=True)
    enter = reduce(np.maximum, enters)
    return np.where(enter < reduce(np.minimum, leaves), enter, MISS)


def _intersect_room(origin: np.ndarray, direction: list[np.ndarray]) -> np.ndarray:
    return reduce(np.minimum, (_cross_slab(o, d)[1] for o, d in zip(origin, direction, strict=True)))


def _intersect_cylinder(origin: np.ndarray, direction: list[np.ndarray]) -> np.ndarray:
    (ox, oy, oz), (dx, dy, dz) = origin, direction
    side_in, side_out = _solve_quadratic(dx * dx + dy * dy, ox * dx + oy * dy, ox * ox + oy * oy - 1)
    lid_in, lid_out = _cross_slab(oz, dz)
    enter = np.maximum(side_in, lid_in)
    return np.where(enter < np.minimum(side_out, lid_out), enter, MISS)


def _intersect_ellipsoid(origin: np.ndarray, direction: list[np.ndarray]) -> np.ndarray:
    (ox, oy, oz), (dx, dy, dz) = origin, direction
    return _solve_quadratic(dx * dx + dy * dy + dz * dz, ox * dx + oy * dy + oz * dz, origin @ origin - 1)[0]


def _cross_slab(origin: float, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The parameters at which the rays enter and leave the space between -1 and 1 on one axis."""
    inverse = 1 / (direction + TINY_DIVISOR)
    middle, half = -origin * inverse, np.abs(inverse)
    return middle - half, middle + half


def _solve_quadratic(a: np.ndarray, b: np.ndarray, c: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both solutions of a t^2 + 2 b t + c = 0, the smaller first; NaN if there is none."""
    a = a + TINY_DIVISOR
    root = np.sqrt(b * b - a * c)
    return (-b - root) / a, (-b + root) / a


# The functions `_*_uv_normal` take surface points of a unit solid, x, y, z (N,), and its texture -> five arrays (N,):
# the texture coordinates u and v in tiles, and x, y and z of the normal, of any length, on the side that is seen.


def _box_uv_normal(x: np.ndarray, y: np.ndarray, z: np.ndarray, texture: np.ndarray) -> tuple[np.ndarray, ...]:
    ax, ay, az = np.abs(x), np.abs(y), np.abs(z)
    on_x, on_z = (ax >= ay) & (ax >= az), (az > ax) & (az > ay)
    across = np.where(on_x, x, np.where(on_z, z, y)) > 0  # True on the face at the positive end of its axis
    face = np.where(on_x, 0, np.where(on_z, 4, 2)) + across
    # Letters are readable from outside: with z up, y runs to the right on face +x, and x runs to the left on face +y.
    right = np.where(on_x, y, np.where(on_z, x, -x))
    right = np.where(across | on_z, right, -right)
    half = np.float32(0.5 - 0.5 / texture.shape[0])  # half a texel off the border, so that tiles do not mix
    normal = FACE_NORMALS[face].T
    return face.astype(np.float32) + (np.float32(0.5) + half * right), 0.5 - half * np.where(on_z, y, z), *normal


def _room_uv_normal(*given: np.ndarray) -> tuple[np.ndarray, ...]:
    u, v, *normal = _box_uv_normal(*given)
    return u, v, *(-n for n in normal)


def _cylinder_uv_normal(x: np.ndarray, y: np.ndarray, z: np.ndarray, texture: np.ndarray) -> tuple[np.ndarray, ...]:
    on_lid = z * z > x * x + y * y
    sides = texture.shape[1] // texture.shape[0] - 1  # the last tile is the lid
    u = np.where(on_lid, np.float32(sides + 0.5) + 0.5 * x, _angle_in_turns(x, y) * sides)
    v = 0.5 - 0.5 * np.where(on_lid, y, z)
    return u, v, np.where(on_lid, 0, x), np.where(on_lid, 0, y), np.where(on_lid, z, 0)


def _ellipsoid_uv_normal(x: np.ndarray, y: np.ndarray, z: np.ndarray, texture: np.ndarray) -> tuple[np.ndarray, ...]:
    tiles = texture.shape[1] // texture.shape[0]
    return _angle_in_turns(x, y) * tiles, 0.5 - 0.5 * z, x, y, z


def _angle_in_turns(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The angle of the vector (x, y), from 0 to 1."""
    return cv2.phase(x[None], y[None])[0] * np.float32(0.5 / np.pi)


def _circle_points(heights: Iterable[float], radii: Iterable[float]) -> np.ndarray:
    """Points (N, 3) on circles about the z axis, with these heights and radii."""
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], 1)
    return np.concatenate([np.insert(circle * r, 2, z, axis=1) for z, r in zip(heights, radii, strict=True)])


class Shape(NamedTuple):
    """How solids of a shape are drawn: functions of a solid's texture and the further arguments named here."""

    # The rays' origin (3,) and directions 3 x (h, w) -> the rays' parameters (h, w), which are NaN or infinite for rays
    # that miss, and perhaps further arrays (h, w) on the places that the rays hit.
    intersect: Callable[..., Sequence[np.ndarray]]
    # For N places: points 3 x (N,) of the unit solid, the rays' directions 3 x (N,), the pixels along the longer side
    # of the solid's window, and the further arrays (N,) -> colors (1, N, 3) uint8 BGR, normals 3 x (N,) of any length.
    surface: Callable[..., tuple[np.ndarray, Sequence[np.ndarray]]]
    rim: Callable[[Any], np.ndarray]  # -> points (V, 3) of the unit solid whose convex hull is nearly the solid


def _painted_shape(intersect: Callable[..., np.ndarray], place: Callable[..., Any], rim: np.ndarray) -> Shape:
    """The shape of solids whose texture is a picture of tiles."""

    def surface(texture: np.ndarray, at: list[np.ndarray], *_: Any) -> tuple[np.ndarray, Sequence[np.ndarray]]:
        u, v, *normal = place(*at, texture)
        tile = texture.shape[0]
        columns, rows = (u * tile - 0.5)[None], (v * tile - 0.5)[None]  # (1, N), since OpenCV's versions differ on 1-D
        return cv2.remap(texture, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), normal

    return Shape(lambda _, *rays: [intersect(*rays)], surface, lambda _: rim)


HEIGHTS = np.sin(np.linspace(-1.4, 1.4, 9))
SHAPES = {
    "box": _painted_shape(_intersect_box, _box_uv_normal, CUBE_CORNERS),
    "room": _painted_shape(_intersect_room, _room_uv_normal, CUBE_CORNERS),
    "cylinder": _painted_shape(_intersect_cylinder, _cylinder_uv_normal, _circle_points((-1, 1), (1, 1))),
    "ellipsoid": _painted_shape(
        _intersect_ellipsoid, _ellipsoid_uv_normal, _circle_points(HEIGHTS, np.sqrt(1 - HEIGHTS**2))
    ),
    "mesh": Shape(
        lambda mesh, *rays: mesh.intersect(*rays), lambda mesh, _, *hits: mesh.surface(*hits), lambda mesh: mesh.rim
    ),
}


def cast_shadows(table: Solid, solids: list[Solid], towards: np.ndarray = SUN) -> Solid:
    """The table with the shadows of `solids` painted on its top. `towards` is a vector (3,) to the light."""
    tile = table.texture.shape[0]
    shadow = np.zeros((tile, tile), np.uint8)
    top = table.position[2] + table.half_axes[2]
    for solid in solids:
        points = solid.to_world(SHAPES[solid.shape].rim(solid.texture))
        if points[:, 2].max() < top:
            continue
        points = points - np.outer((points[:, 2] - top) / towards[2], towards)  # moved along the light onto the table
        across = (points - table.position)[:, :2] / table.half_axes[:2] * (0.5, -0.5) + 0.5
        hull = cv2.convexHull((across * tile * 16).astype(np.int32))
        cv2.fillConvexPoly(shadow, hull, 255, cv2.LINE_AA, shift=4)
    shadow = cv2.GaussianBlur(shadow, (0, 0), SHADOW_BLUR * tile)
    light = 1 - SHADOW_DARKNESS / 255 * shadow.astype(np.float32)
    texture = table.texture.copy()
    texture[:, 5 * tile :] = cv2.multiply(texture[:, 5 * tile :], cv2.merge([light] * 3), dtype=cv2.CV_8U)
    return replace(table, texture=texture)
