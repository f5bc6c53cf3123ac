"""A small ray caster under one sun, with a depth buffer, in numpy and OpenCV."""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from formats.geometry import Size
from synthetic.solids import CORNERS, MISS, RIMS, SHADERS, SUN, Solid

AMBIENT = 0.5  # light that reaches a surface turned away from the sun
SHADOW_BLUR, SHADOW_DARKNESS = 0.012, 0.55  # as fractions of the table's width and of its light
NEAR = 1e-2  # nothing nearer than this is drawn
STRIP = 1 << 14  # pixels drawn at a time; remap takes at most 32767


@dataclass(frozen=True)
class Camera:
    """A pinhole camera. Pixel (column, row) = (0, 0) is the center of the top left pixel."""

    rotation: np.ndarray  # (3, 3) world to camera; rows: right, down, forward
    position: np.ndarray  # (3,)
    focal: float  # pixels
    size: Size

    @classmethod
    def look_at(cls, position: np.ndarray, target: np.ndarray, focal: float, size: Size, roll: float = 0) -> "Camera":
        """A camera that has `target` in the middle of its picture; `roll` turns it about its axis, in radians."""
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
    """What a camera sees: `colors` (H, W) uint32, `depth` (H, W) float32, `labels` (H, W) uint8.

    A pixel's blue, green and red are packed in one number, which numpy's masks write 30 times faster than three bytes.
    """

    colors: np.ndarray
    depth: np.ndarray
    labels: np.ndarray

    @classmethod
    def empty(cls, size: Size) -> "Picture":
        return cls(np.zeros(size, np.uint32), np.full(size, MISS), np.zeros(size, np.uint8))

    @property
    def image(self) -> np.ndarray:
        """(H, W, 3) uint8 BGR."""
        return cv2.cvtColor(self.colors.view(np.uint8).reshape(*self.colors.shape, 4), cv2.COLOR_BGRA2BGR)

    def copy(self) -> "Picture":
        return Picture(self.colors.copy(), self.depth.copy(), self.labels.copy())


def render(camera: Camera, solids: list[Solid], behind: Picture | None = None) -> Picture:
    """Draw `solids`, in any order, over the picture `behind` (which is left as it is)."""
    picture = behind.copy() if behind else Picture.empty(camera.size)
    with np.errstate(divide="ignore", invalid="ignore"):  # rays that miss give infinities and NaNs: never "nearer"
        for solid in solids:
            window = _window(camera, solid)
            if window is not None:
                _draw(camera, solid, picture, *window)
    return picture


def _window(camera: Camera, solid: Solid) -> tuple[slice, slice] | None:
    """Rows and columns of the picture that the solid can touch, None if there are none."""
    height, width = camera.size
    pixels, depth = camera.project(solid.points(CORNERS))
    if depth.max() < NEAR:
        return None
    if depth.min() < NEAR:  # it reaches behind the camera: its corners do not bound it in the picture
        return slice(0, height), slice(0, width)
    left, top = np.clip(np.floor(pixels.min(0)), 0, (width, height)).astype(int)
    right, bottom = np.clip(np.ceil(pixels.max(0)) + 1, 0, (width, height)).astype(int)
    return (slice(top, bottom), slice(left, right)) if left < right and top < bottom else None


def _draw(camera: Camera, solid: Solid, picture: Picture, rows: slice, cols: slice) -> None:
    """Draw one solid into a window, a few rows at a time: arrays that fit the cache make this twice as fast."""
    to_unit = solid.rotation.T / solid.half_axes[:, None]
    origin = (to_unit @ (camera.position - solid.position)).astype(np.float32)
    # A pixel's ray is position + depth * direction, and direction is linear in row and column.
    per_camera_axis = (to_unit @ camera.rotation.T).astype(np.float32)
    height, width = camera.size
    x = ((np.arange(cols.start, cols.stop) - (width - 1) / 2) / camera.focal).astype(np.float32)
    y = ((np.arange(rows.start, rows.stop) - (height - 1) / 2) / camera.focal).astype(np.float32)
    depth_of, surface_of = SHADERS[solid.shape]
    step = max(1, STRIP // len(x))
    for top in range(0, len(y), step):
        direction = [axis[0] * x + (axis[1] * y[top : top + step] + axis[2])[:, None] for axis in per_camera_axis]
        depth = depth_of(origin, direction)
        strip = slice(rows.start + top, rows.start + top + len(depth)), cols
        nearer = (depth > NEAR) & (depth < picture.depth[strip])
        if not nearer.any():
            continue
        depth = depth[nearer]
        u, v, sunlight = surface_of(*(o + depth * d[nearer] for o, d in zip(origin, direction, strict=True)), solid)
        picture.colors[strip][nearer] = _color(solid.texture, u, v, sunlight)
        picture.depth[strip][nearer] = depth
        picture.labels[strip][nearer] = solid.label


def _color(texture: np.ndarray, u: np.ndarray, v: np.ndarray, sunlight: np.ndarray) -> np.ndarray:
    """The texture at (N,) coordinates in tiles, lit and packed -> (N,) uint32. N is at most STRIP."""
    tile = texture.shape[0]
    columns, rows = (u * tile - 0.5)[None], (v * tile - 0.5)[None]  # (1, N): OpenCV's versions differ on 1-D arrays
    color = cv2.remap(texture, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    shade = (AMBIENT + (1 - AMBIENT) * np.maximum(sunlight, 0))[None]
    color = cv2.multiply(color, cv2.merge([shade] * 3), dtype=cv2.CV_8U)
    return cv2.cvtColor(color, cv2.COLOR_BGR2BGRA).view(np.uint32)[0, :, 0]


def cast_shadows(table: Solid, solids: list[Solid]) -> Solid:
    """The table with the solids' shadows painted on its top."""
    tile = table.texture.shape[0]
    shadow = np.zeros((tile, tile), np.uint8)
    top = table.position[2] + table.half_axes[2]
    for solid in solids:
        points = solid.points(RIMS[solid.shape])
        if points[:, 2].max() < top:
            continue
        points = points - np.outer((points[:, 2] - top) / SUN[2], SUN)  # along the sunlight to the table's plane
        across = (points - table.position)[:, :2] / table.half_axes[:2] * (0.5, -0.5) + 0.5
        hull = cv2.convexHull((across * tile * 16).astype(np.int32))
        cv2.fillConvexPoly(shadow, hull, 255, cv2.LINE_AA, shift=4)
    shadow = cv2.GaussianBlur(shadow, (0, 0), SHADOW_BLUR * tile)
    light = 1 - SHADOW_DARKNESS / 255 * shadow.astype(np.float32)
    texture = table.texture.copy()
    texture[:, 5 * tile :] = cv2.multiply(texture[:, 5 * tile :], cv2.merge([light] * 3), dtype=cv2.CV_8U)
    return replace(table, texture=texture)
