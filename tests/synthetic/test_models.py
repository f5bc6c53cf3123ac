"""Rendered takes of 3D models: `make_takes.py --models`, and the package from which models can come."""

import importlib.util
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from common.errors import UserError
from synthetic.make_takes import main, parse_object_sizes
from synthetic.models import item_of_model, load_mesh, modelled_things, models_by_split
from synthetic.options import TakeOptions
from synthetic.render import Camera, Solid, render, rotation_about
from synthetic.textures import TILE
from tests.made.processes import exit_status

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("embreex") is None,
    reason="embreex is not installed (pip install -r requirements-models.txt)",
)
WHITE = np.ones(3)


def write_box(path, sides=(0.2, 0.2, 0.2), picture=None, color=(200, 60, 20)):
    """A box with `sides` (x, y, z; y is up) in meters, which wears a picture on each face, or a color."""
    import trimesh

    box = trimesh.creation.box(sides)
    faces = box.triangles.reshape(-1, 3)
    box = trimesh.Trimesh(faces, np.arange(len(faces)).reshape(-1, 3), process=False)
    axis = np.abs(box.face_normals).argmax(1).repeat(3)
    rest = np.array([[2, 1], [0, 2], [0, 1]])[axis]
    uv = np.take_along_axis(faces / sides, rest, 1) + 0.5
    material = trimesh.visual.material.PBRMaterial(
        baseColorTexture=picture, baseColorFactor=[255] * 4 if picture else [*color, 255]
    )
    box.visual = trimesh.visual.TextureVisuals(uv=uv, material=material)
    box.export(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twenty boxes of unlike colors, some for each split."""
    models = tmp_path_factory.mktemp("boxes") / "models"
    models.mkdir()
    for k in range(20):
        sides = np.random.default_rng(k).uniform(0.05, 0.3, 3)
        write_box(models / f"box-{k}.glb", sides, color=((37 * k) % 256, (91 * k) % 256, (53 * k) % 256))
    return models


OPTIONS = TakeOptions(0, "tiny", 31, 2, 4, parse_object_sizes(["0.05"]), 30, clutter=12, things="models")


def test_a_box_that_somebody_modelled_looks_like_the_solid_and_its_picture_stands_upright(tmp_path):
    picture = Image.fromarray(np.array([[[250, 0, 0], [0, 250, 0]], [[0, 0, 250], [250, 250, 0]]], np.uint8))
    write_box(tmp_path / "box.glb", (0.2, 0.6, 0.1), picture=picture.resize((64, 64), Image.Resampling.NEAREST))
    mesh = item_of_model(tmp_path / "box.glb", 0, WHITE).solid
    tile = np.asarray(picture.resize((TILE, TILE), Image.Resampling.NEAREST))[..., ::-1]
    solid = Solid("box", mesh.position, mesh.texture.half_axes, np.hstack([tile] * 6))
    for pose in (np.eye(3), rotation_about(2, 0.7) @ rotation_about(0, 0.4)):
        camera = Camera.look_at(np.array([2.0, -7, 4]), np.zeros(3), 200, (160, 160))
        modelled, plain = (render(camera, [replace(x, label=3, rotation=pose)]) for x in (mesh, solid))
        assert (modelled.labels == plain.labels).mean() > 0.995 and (plain.labels == 3).mean() > 0.05
        both = (modelled.labels > 0) & (plain.labels > 0)
        np.testing.assert_allclose(modelled.depth[both], plain.depth[both], rtol=1e-3)
    camera = Camera.look_at(np.array([0.0, -7, 0]), np.zeros(3), 200, (160, 160))
    front = [render(camera, [replace(x, rotation=rotation_about(1, 0.2))]).image.astype(int) for x in (mesh, solid)]
    assert (np.abs(front[0] - front[1]).max(2) < 8).mean() > 0.98


def test_models_of_one_split_never_occur_in_another_wherever_the_folder_is(folder, tmp_path):
    files = models_by_split(folder)
    assert sorted(path for paths in files.values() for path in paths) == sorted(folder.iterdir())
    for path in [*folder.iterdir()][::2]:
        shutil.copy(path, tmp_path)
    for split, paths in models_by_split(tmp_path).items():
        assert {path.name for path in paths} <= {path.name for path in files[split]}
        items, others = modelled_things(tmp_path, 3, split, 5, 4, 9)
        assert {thing.name.rsplit("_", 1)[0] for thing in (*items, *others)} <= {path.stem for path in files[split]}


def test_files_say_how_large_models_are_and_what_is_no_model_is_named_in_one_line(tmp_path):
    write_box(tmp_path / "box.glb", (0.11, 0.22, 0.05))
    x, y, z = load_mesh(tmp_path / "box.glb").half_axes
    assert (2 * x, 2 * z) == pytest.approx((1.0, 2.0), rel=1e-3) and z > x > y  # a unit is 11 cm, and y is up in files
    write_box(tmp_path / "hall.glb", (1.5, 1.2, 1.3))
    (tmp_path / "text.obj").write_text("no model")
    (tmp_path / "flat.obj").write_text("v 0 0 0\nv .1 0 0\nv 0 .1 .1\nv .1 .1 .1\nf 1 2 3\nf 2 3 4\n")
    lines = {"hall.glb": "is 150 cm long", "text.obj": "cannot be read as a model", "flat.obj": "is flat"}
    for name, line in lines.items():
        with pytest.raises(UserError, match=f"{name} {line}"):
            load_mesh(tmp_path / name)


@pytest.mark.parametrize("texture", ["wood.png", "../private.png", "{}/private.png"])
def test_an_obj_file_wears_no_texture_outside_its_folder(texture, tmp_path, capsys):
    folder, texture, blue = tmp_path / "models", texture.format(tmp_path), (20, 40, 220)
    folder.mkdir()
    for path in (folder / "wood.png", tmp_path / "private.png"):
        Image.new("RGB", (8, 8), blue).save(path)
    (folder / "thing.mtl").write_text(f"newmtl picture\nKd 1 1 1\nmap_Kd {texture}\n")
    corners = "v 0 0 0\nv .2 0 0\nv 0 .2 0\nv 0 0 .2\nvt 0 0\nvt 1 0\nvt 0 1\n"
    faces = "usemtl picture\nf 1/1 2/2 3/3\nf 1/1 3/2 4/3\nf 1/1 4/2 2/3\nf 2/1 4/2 3/3\n"
    (folder / "thing.obj").write_text("mtllib thing.mtl\n" + corners + faces)
    colors = {tuple(color) for color in load_mesh(folder / "thing.obj").textures[0][0][:, ::-1].tolist()}
    assert (blue in colors) == (texture == "wood.png")
    line = f"thing.obj is drawn without {texture}, which is not in its folder\n"
    assert capsys.readouterr().err.endswith("" if blue in colors else line)


@pytest.mark.parametrize(
    "flags, line",
    [
        ("--things models", "--things models and --models FOLDER go together; one of them is missing"),
        ("--things models --models {}/none", "{}/none has too few models"),
        ("--things models --models {}", "pip install -r requirements-models.txt"),
    ],
)
def test_what_is_missing_is_named_before_anything_is_rendered(flags, line, folder, tmp_path, capsys, monkeypatch):
    if "pip" in line:
        monkeypatch.setitem(sys.modules, "embreex", None)
    status = exit_status(main, "--outputpath", tmp_path / "out", *flags.format(folder).split())
    assert status == 1 and line.format(folder) in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()
