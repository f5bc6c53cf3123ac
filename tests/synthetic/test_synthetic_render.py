"""The ray caster: perspective, occlusion, textures and shadows agree with plain geometry."""

import numpy as np
import pytest

from synthetic.render import SUN, Camera, Solid, cast_shadows, render
from synthetic.textures import TILES

CAMERA = Camera.look_at(np.array([1.0, -6.0, 3.0]), np.array([0.0, 0.0, 0.5]), 260.0, (220, 300), roll=0.2)
SHAPES = ["box", "cylinder", "ellipsoid"]


def make_solid(shape, position=(0, 0, 0), half_axes=(0.9, 0.6, 1.1), label=1, seed=0, color=(200, 200, 200)):
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    rotation *= np.sign(np.linalg.det(rotation))
    texture = np.full((8, 8 * TILES[shape], 3), color, np.uint8)
    return Solid(shape, np.array(position, float), np.array(half_axes), texture, label, rotation)


def surface(shape, rng, count=200_000):
    """Random points of a unit solid's surface and normals there."""
    if shape == "ellipsoid":
        points = rng.normal(size=(count, 3))
        points /= np.linalg.norm(points, axis=1, keepdims=True)
        return points, points
    if shape == "box":
        points, normals = rng.uniform(-1, 1, (count, 3)), np.zeros((count, 3))
        axis, side = rng.integers(3, size=count), rng.choice([-1.0, 1.0], count)
        points[np.arange(count), axis] = normals[np.arange(count), axis] = side
        return points, normals
    angle, height = rng.uniform(0, 2 * np.pi, count), rng.uniform(-1, 1, count)
    side = np.stack([np.cos(angle), np.sin(angle), height], 1)
    lid = np.stack([np.cos(angle) * abs(height), np.sin(angle) * abs(height), np.sign(height)], 1)
    on_lid = rng.uniform(size=(count, 1)) < 0.3
    return np.where(on_lid, lid, side), np.where(on_lid, [0, 0, 1] * np.sign(lid), side * (1, 1, 0))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(3))
def test_every_point_of_a_surface_that_faces_the_camera_is_drawn_where_it_projects_and_nothing_else_is(shape, seed):
    solid = make_solid(shape, seed=seed)
    picture = render(CAMERA, [solid])
    unit, unit_normals = surface(shape, np.random.default_rng(seed))
    points, normals = solid.to_world(unit), (unit_normals / solid.half_axes) @ solid.rotation.T
    view = CAMERA.position - points
    facing = (normals * view).sum(1) / np.linalg.norm(normals, axis=1) / np.linalg.norm(view, axis=1)
    pixels, depth = CAMERA.project(points)
    cols, rows = np.rint(pixels).astype(int).T
    front = facing > 0.2
    assert front.sum() > 500
    error = np.abs(picture.depth[rows, cols] - depth)
    assert np.median(error[front]) < 0.02  # a pixel's rounding on a slanted surface
    inside = facing > 0.5  # away from the outline, where rounding may leave the solid
    assert (picture.labels[rows, cols][inside] == 1).mean() > 0.98
    back = facing < -0.5
    assert (picture.depth[rows, cols][back] < depth[back]).mean() > 0.98  # the front hides it
    hit = np.zeros(CAMERA.size, bool)
    hit[rows, cols] = True
    assert (hit != (picture.labels > 0)).mean() < 0.003  # pixels on the outline


def test_the_nearer_solid_hides_the_farther_one_in_any_order_of_drawing():
    towards = (CAMERA.position - (0, 0, 0.5)) / np.linalg.norm(CAMERA.position)
    solids = [
        make_solid(shape, (0, 0, 0.5) + k * towards, (0.5, 0.5, 0.5), k + 1, color=(50, 60, 70 + 50 * k))
        for k, shape in enumerate(SHAPES)
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
