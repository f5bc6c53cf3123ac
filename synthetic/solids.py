"""Textured solids of unit size: where a ray meets them and what they look like there.

Each solid is the image of a unit solid under `world = rotation @ (half_axes * unit) + position`. A ray keeps its
parameter under that map, so every intersection is worked out on the unit solid.
"""

from dataclasses import dataclass, field

import cv2
import numpy as np

SUN = np.array([-0.35, -0.45, 0.82]) / np.linalg.norm([-0.35, -0.45, 0.82])  # unit vector towards it; z is up
MISS = np.float32(np.inf)
TINY = np.float32(1e-20)  # keeps rays parallel to a face or an axis from giving 0 / 0; lost in any other number
CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)


@dataclass(frozen=True)
class Solid:
    """A convex solid. `shape` is "box", "cylinder" (axis z), "ellipsoid" or "room": a box seen from inside."""

    shape: str
    position: np.ndarray  # (3,)
    half_axes: np.ndarray  # (3,)
    texture: np.ndarray  # (h, w, 3) uint8 BGR, laid out as `synthetic.textures.TILES` says
    label: int = 0  # written into the label picture; 0 is everything that is no object
    rotation: np.ndarray = field(default_factory=lambda: np.eye(3))  # columns: the solid's axes in the world

    def points(self, unit: np.ndarray) -> np.ndarray:
        """Points (N, 3) of the unit solid -> the world."""
        return (unit * self.half_axes) @ self.rotation.T + self.position


# Where a ray meets a unit solid: origin (3,) and directions 3 x (h, w) in, parameter (h, w) out, NaN or infinite for
# a miss.


def _meet_box(origin: np.ndarray, direction: list[np.ndarray]) -> np.ndarray:
    slabs = [_slab(o, d) for o, d in zip(origin, direction, strict=True)]
    enter = np.maximum(np.maximum(slabs[0][0], slabs[1][0]), slabs[2][0])
    leave = np.minimum(np.minimum(slabs[0][1], slabs[1][1]), slabs[2][1])
    return np.where(enter < leave, enter, MISS)


def _meet_room(origin: np.ndarray, direction: list[np.ndarray]) -> np.ndarray:
    slabs = [_slab(o, d)[1] for o, d in zip(origin, direction, strict=True)]
    return np.minimum(np.minimum(slabs[0], slabs[1]), slabs[2])


def _meet_cylinder(origin: np.ndarray, direction: list[np.ndarray]) -> np.ndarray:
    (ox, oy, oz), (dx, dy, dz) = origin, direction
    side_in, side_out = _quadric(dx * dx + dy * dy, ox * dx + oy * dy, ox * ox + oy * oy - 1)
    lid_in, lid_out = _slab(oz, dz)
    enter = np.maximum(side_in, lid_in)
    return np.where(enter < np.minimum(side_out, lid_out), enter, MISS)


def _meet_ellipsoid(origin: np.ndarray, direction: list[np.ndarray]) -> np.ndarray:
    (ox, oy, oz), (dx, dy, dz) = origin, direction
    return _quadric(dx * dx + dy * dy + dz * dz, ox * dx + oy * dy + oz * dz, origin @ origin - 1)[0]


def _slab(origin: float, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the ray enters and leaves the space between -1 and 1."""
    inverse = 1 / (direction + TINY)
    middle, half = -origin * inverse, np.abs(inverse)
    return middle - half, middle + half


def _quadric(a: np.ndarray, b: np.ndarray, c: float) -> tuple[np.ndarray, np.ndarray]:
    """Both solutions of a t^2 + 2 b t + c = 0 in order, NaN where there is none."""
    a = a + TINY
    root = np.sqrt(b * b - a * c)
    return (-b - root) / a, (-b + root) / a


# What a unit solid looks like at its surface points x, y, z (N,): texture coordinates u, v in tiles, and the cosine of
# the angle between sun and normal.


def _box_surface(x: np.ndarray, y: np.ndarray, z: np.ndarray, solid: Solid) -> tuple[np.ndarray, ...]:
    ax, ay, az = np.abs(x), np.abs(y), np.abs(z)
    on_x, on_z = (ax >= ay) & (ax >= az), (az > ax) & (az > ay)
    across = np.where(on_x, x, np.where(on_z, z, y)) > 0  # on the face of the positive side of its axis?
    face = np.where(on_x, 0, np.where(on_z, 4, 2)) + across
    # Seen from outside with z up, y runs to the right on the face +x and x to the left on +y: letters read well.
    right = np.where(on_x, y, np.where(on_z, x, -x))
    right = np.where(across | on_z, right, -right)
    half = np.float32(0.5 - 0.5 / solid.texture.shape[0])  # stay half a texel off the tile's border: faces do not bleed
    towards_sun = solid.rotation.T @ SUN * (-1 if solid.shape == "room" else 1)
    sunlight = np.stack([-towards_sun, towards_sun], 1).astype(np.float32).ravel()[face]
    return face.astype(np.float32) + (np.float32(0.5) + half * right), 0.5 - half * np.where(on_z, y, z), sunlight


def _cylinder_surface(x: np.ndarray, y: np.ndarray, z: np.ndarray, solid: Solid) -> tuple[np.ndarray, ...]:
    on_lid = z * z > x * x + y * y
    sides = solid.texture.shape[1] // solid.texture.shape[0] - 1  # the last tile is the lid
    u = np.where(on_lid, np.float32(sides + 0.5) + 0.5 * x, _turns(x, y) * sides)
    v = 0.5 - 0.5 * np.where(on_lid, y, z)
    return u, v, _cosine(solid, np.where(on_lid, 0, x), np.where(on_lid, 0, y), np.where(on_lid, z, 0))


def _ellipsoid_surface(x: np.ndarray, y: np.ndarray, z: np.ndarray, solid: Solid) -> tuple[np.ndarray, ...]:
    tiles = solid.texture.shape[1] // solid.texture.shape[0]
    return _turns(x, y) * tiles, 0.5 - 0.5 * z, _cosine(solid, x, y, z)


def _turns(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The angle of (x, y) in turns, 0 to 1."""
    return cv2.phase(x[None], y[None])[0] * np.float32(0.5 / np.pi)


def _cosine(solid: Solid, *normal: np.ndarray) -> np.ndarray:
    """Cosine of the angle between the sun and a normal given in the unit solid's space (any length)."""
    x, y, z = (n / np.float32(axis) for n, axis in zip(normal, solid.half_axes, strict=True))
    sun = (solid.rotation.T @ SUN).astype(np.float32)
    return (x * sun[0] + y * sun[1] + z * sun[2]) / np.sqrt(x * x + y * y + z * z)


# How to draw each shape: (where a ray meets it, what it looks like there).
SHADERS = {
    "box": (_meet_box, _box_surface),
    "room": (_meet_room, _box_surface),
    "cylinder": (_meet_cylinder, _cylinder_surface),
    "ellipsoid": (_meet_ellipsoid, _ellipsoid_surface),
}


def _rim(shape: str) -> np.ndarray:
    """Points of a unit solid whose convex hull is the solid, or nearly."""
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], 1)
    if shape == "cylinder":
        return np.concatenate([np.insert(circle, 2, z, axis=1) for z in (-1, 1)])
    heights = np.sin(np.linspace(-1.4, 1.4, 9))
    return np.concatenate([np.insert(circle * np.sqrt(1 - z * z), 2, z, axis=1) for z in heights])


RIMS = {"box": CORNERS, "cylinder": _rim("cylinder"), "ellipsoid": _rim("ellipsoid")}
