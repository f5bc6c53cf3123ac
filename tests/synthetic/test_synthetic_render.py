"""The ray caster: perspective, occlusion and shadows agree with plain geometry."""

import numpy as np
import pytest

from synthetic.render import SUN, Camera, Solid, cast_shadows, render
from synthetic.textures import TILES

CAMERA = Camera.look_at(np.array([1.0, -6.0, 3.0]), np.array([0.0, 0.0, 0.5]), 260.0, (220, 300), roll=0.2)


def make_solid(shape, position=(0, 0, 0), half_axes=(0.9, 0.6, 1.1), label=1, seed=0, color=(200, 200, 200)):
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    rotation *= np.sign(np.linalg.det(rotation))
    texture = np.full((8, 8 * TILES[shape], 3), color, np.uint8)
    return Solid(shape, np.array(position, float), np.array(half_axes), texture, label, rotation)


SIZES = {  # how large a unit solid has to be to reach the points (..., 3)
    "box": lambda points: np.abs(points).max(-1),
    "cylinder": lambda points: np.maximum(np.hypot(points[..., 0], points[..., 1]), np.abs(points[..., 2])),
    "ellipsoid": lambda points: np.linalg.norm(points, axis=-1),
}


@pytest.mark.parametrize("shape", SIZES)
def test_each_pixel_shows_the_solid_where_its_ray_first_meets_it_and_nothing_elsewhere(shape):
    solid = make_solid(shape, (0.2, 0.1, 0.4), seed=len(shape))
    picture = render(CAMERA, [solid])
    rows, cols = np.mgrid[0:220:5, 0:300:5].reshape(2, -1)
    rays = np.stack([(cols - 149.5) / 260, (rows - 109.5) / 260, np.ones(len(rows))], 1) @ CAMERA.rotation
    depths = np.arange(4, 9, 0.02)[:, None]
    places = CAMERA.position + depths[..., None] * rays  # (D, N, 3)
    is_inside = SIZES[shape]((places - solid.position) @ solid.rotation / solid.half_axes) < 1
    expected, depth = depths[is_inside.argmax(0), 0], picture.depth[rows, cols]
    is_drawn = picture.labels[rows, cols] == 1
    assert (is_drawn == is_inside.any(0)).mean() > 0.998 and is_drawn.sum() > 120  # a few rays only graze it
    np.testing.assert_array_equal(is_drawn, np.isfinite(depth))
    error = (expected - depth)[is_drawn & is_inside.any(0)]
    assert error.min() > -0.001 and np.quantile(error, 0.99) < 0.021
    np.testing.assert_allclose(CAMERA.project(places[100])[0], np.stack([cols, rows], 1), atol=1e-6)


def test_the_nearer_solid_hides_the_farther_one_in_any_order_of_drawing():
    towards = (CAMERA.position - (0, 0, 0.5)) / np.linalg.norm(CAMERA.position)
    solids = [
        make_solid(shape, (0, 0, 0.5) + k * towards, (0.5, 0.5, 0.5), k + 1, color=(50, 60, 70 + 50 * k))
        for k, shape in enumerate(SIZES)
    ]
    first, second = render(CAMERA, solids), render(CAMERA, solids[::-1])
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.labels, second.labels)
    assert first.labels[110, 150] == 3
    alone = [render(CAMERA, [solid]) for solid in solids]
    depths = np.stack([picture.depth for picture in alone])
    expected = np.where(np.isfinite(depths).any(0), depths.argmin(0) + 1, 0)
    np.testing.assert_array_equal(first.labels, expected)


def test_a_shadow_falls_on_the_side_away_from_the_sun_and_moves_off_with_height():
    table = Solid("box", np.array([0, 0, -1.0]), np.array([8.0, 8.0, 1.0]), np.full((128, 768, 3), 200, np.uint8))

    def darkest(height):
        ball = make_solid("ellipsoid", (0, 0, height), (0.7, 0.7, 0.7))
        top = cast_shadows(table, [ball]).texture[:, 640:, 0].astype(float)
        assert top.min() < 120 and np.percentile(top, 80) == 200
        row, col = (np.argwhere(top < 150).mean(0) + 0.5) / 128
        return np.array([2 * col - 1, 1 - 2 * row]) * 8

    for height in (1.0, 3.0):
        np.testing.assert_allclose(darkest(height), -SUN[:2] / SUN[2] * height, atol=0.1)
    below = make_solid("ellipsoid", (0, 0, -4.0), (0.7, 0.7, 0.7))
    np.testing.assert_array_equal(cast_shadows(table, [below]).texture, table.texture)
