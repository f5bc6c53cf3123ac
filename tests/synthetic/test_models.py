"""Rendered takes of 3D models: `make_takes.py --models`, and the package from which models can come."""

import importlib.util
import io
import sys
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from common.errors import UserError
from formats.takes import SPLITS
from synthetic import household_models
from synthetic.make_takes import main, object_sizes
from synthetic.models import deal_models, load_mesh, make_item, model_files
from synthetic.options import TakeOptions
from synthetic.render import Camera, Solid, cast_shadows, render, rotation_about
from synthetic.tabletop import EGO
from synthetic.take import TakeId, build_tabletop
from synthetic.textures import TILE
from tests.made.processes import exit_status, run_main
from tests.made.raw_takes import tree

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


@pytest.fixture
def folder(tmp_path):
    """Twenty boxes of unlike colors, some for each split."""
    models = tmp_path / "models"
    models.mkdir()
    for k in range(20):
        sides = np.random.default_rng(k).uniform(0.05, 0.3, 3)
        write_box(models / f"box-{k}.glb", sides, color=((37 * k) % 256, (91 * k) % 256, (53 * k) % 256))
    return models


OPTIONS = TakeOptions(0, "small", 31, 2, 4, object_sizes(["0.05"]), 30, clutter=12, things="models")


@pytest.mark.parametrize("sides", [(0.2, 0.2, 0.2), (0.2, 0.6, 0.1)])
def test_a_box_that_somebody_modelled_looks_like_the_solid(tmp_path, sides):
    """Depth, outline, light and shadow; the picture on it stands upright."""
    picture = Image.fromarray(np.array([[[250, 0, 0], [0, 250, 0]], [[0, 0, 250], [250, 250, 0]]], np.uint8))
    write_box(tmp_path / "box.glb", sides, picture=picture.resize((64, 64), Image.Resampling.NEAREST))
    [mesh] = make_item(tmp_path / "box.glb", 0, WHITE).parts
    tile = np.asarray(picture.resize((TILE, TILE), Image.Resampling.NEAREST))[..., ::-1]
    solid = Solid("box", mesh.position, mesh.texture.half_axes, np.hstack([tile] * 6))
    table = Solid("box", np.array([0, 0, -2.5]), np.array([9, 9, 1.0]), np.full((64, 64 * 6, 3), 200, np.uint8))
    for pose in (np.eye(3), rotation_about(2, 0.7) @ rotation_about(0, 0.4)):
        camera = Camera.look_at(np.array([2.0, -7, 4]), np.zeros(3), 200, (160, 160))
        modelled, plain = (render(camera, [replace(x, label=3, rotation=pose)]) for x in (mesh, solid))
        assert (modelled.labels == plain.labels).mean() > 0.995 and (plain.labels == 3).mean() > 0.05
        both = (modelled.labels > 0) & (plain.labels > 0)
        np.testing.assert_allclose(modelled.depth[both], plain.depth[both], rtol=1e-3)
        shadows = [cast_shadows(table, [replace(x, rotation=pose)]).texture for x in (mesh, solid)]
        assert np.abs(np.subtract(*shadows, dtype=float)).max() < 3 and shadows[0].min() < 120
    camera = Camera.look_at(np.array([0.0, -7, 0]), np.zeros(3), 200, (160, 160))
    front = [render(camera, [replace(x, rotation=rotation_about(1, 0.2))]).image.astype(int) for x in (mesh, solid)]
    assert (np.abs(front[0] - front[1]).max(2) < 8).mean() > 0.98
    assert len(np.unique(front[0].reshape(-1, 3), axis=0)) > 4


def test_models_of_one_split_never_occur_in_another_wherever_the_folder_is(folder, tmp_path):
    files = model_files(folder)
    assert sorted(path for paths in files.values() for path in paths) == sorted(folder.iterdir())
    (tmp_path / "moved").mkdir()
    for path in [*folder.iterdir()][::2]:
        path.rename(tmp_path / "moved" / path.name)
    moved = model_files(tmp_path / "moved")
    for split in SPLITS:
        assert {x.name for x in moved[split]} <= {x.name for x in files[split]}
        seen = {
            thing.name.rsplit("_", 1)[0]
            for group in deal_models(tmp_path / "moved", 3, split, 5, 4, 9)
            for thing in group
        }
        assert seen <= {path.stem for path in files[split]}


def test_a_take_shows_models_of_their_own_sizes_that_touch_others_under_lights_of_its_own(folder):
    touching, lights, turned = 0, set(), 0
    for index in range(16):
        take, options = TakeId("train", index), replace(OPTIONS, models=folder)
        tabletop = build_tabletop(take, options)
        items, _ = deal_models(folder, 0, "train", index, 4, 12)
        for item, dealt in zip(tabletop.items, items, strict=True):
            np.testing.assert_array_equal(item.half_axes, dealt.half_axes)
        boxes = [(place, item.half_axes) for place, item in zip(tabletop.places, tabletop.items, strict=True)]
        for solid in tabletop.clutter:
            radius = np.abs(solid.points(solid.texture.rim) - solid.position).max(0)
            touching += any(
                (np.abs(solid.position - place) < 1.05 * (half.max() + radius.max())).all() for place, half in boxes
            )
        lights.add(len(tabletop.lights))
        turned += np.abs(tabletop.rolls).max() > 0.5
        if index == 0:
            pictures = tabletop.pictures(0.0)
            assert set(np.unique(pictures[EGO].labels)) <= {0, 1, 2, 3, 4} and pictures[EGO].labels.any()
            again = build_tabletop(take, options).pictures(0.0)
            assert all((again[camera].colors == picture.colors).all() for camera, picture in pictures.items())
    assert touching > 12 and len(lights) > 1 and 0 < turned < 8


def test_photographs_lie_on_tables_and_floors(folder, tmp_path):
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (90, 60), (10, 200, 30)).save(tmp_path / "photos" / "green.png")
    options = replace(OPTIONS, models=folder, photos=tmp_path / "photos")
    tabletops = (build_tabletop(TakeId("val", index), options) for index in range(6))
    textures = (solid.texture[:200, :200] for tabletop in tabletops for solid in (tabletop.table, tabletop.room))
    assert any(texture[..., 1].mean() > 3 * texture[..., 2].mean() for texture in textures)


def test_files_say_how_large_models_are(tmp_path):
    write_box(tmp_path / "box.glb", (0.11, 0.22, 0.05))
    x, y, z = load_mesh(tmp_path / "box.glb").half_axes
    assert (2 * x, 2 * z) == pytest.approx((1.0, 2.0), rel=1e-3) and z > x > y  # a unit is 11 cm, and y is up in files
    write_box(tmp_path / "hall.glb", (5, 22, 3))
    with pytest.raises(UserError, match=r"hall.glb is 2.2e\+03 cm long; .* scale the file, whose unit is the meter"):
        load_mesh(tmp_path / "hall.glb")


def write_pyramid(folder, texture):
    """thing.obj, half of which is red, and which wears a texture on the other half."""
    (folder / "thing.mtl").write_text(f"newmtl red\nKd 0.9 0.1 0\nnewmtl picture\nKd 1 1 1\nmap_Kd {texture}\n")
    corners = "v 0 0 0\nv .2 0 0\nv 0 .2 0\nv 0 0 .2\nvt 0 0\nvt 1 0\nvt 0 1\n"
    faces = "usemtl red\nf 1/1 2/2 3/3\nf 1/1 3/2 4/3\nusemtl picture\nf 1/1 4/2 2/3\nf 2/1 4/2 3/3\n"
    (folder / "thing.obj").write_text("mtllib thing.mtl\n" + corners + faces)


def test_an_obj_file_with_its_material_is_read(tmp_path):
    Image.new("RGB", (8, 8), (20, 40, 220)).save(tmp_path / "wood.png")
    write_pyramid(tmp_path, "wood.png")
    item = make_item(tmp_path / "thing.obj", 0, WHITE)
    seen = set()
    for side in ((3, -3, 2), (-3, 3, -3), (3, 3, 3), (-4, -2, 1), (0.5, 4, 0)):
        camera = Camera.look_at(np.array(side, float), np.zeros(3), 60, (64, 64))
        image = render(camera, item.solids(np.zeros(3), np.eye(3), 1)).image.reshape(-1, 3).astype(int)
        seen |= {"red"} if (image[:, 2] > 3 * image[:, 0] + 30).any() else set()
        seen |= {"blue"} if (image[:, 0] > 3 * image[:, 2] + 30).any() else set()
    assert seen == {"red", "blue"}


@pytest.mark.parametrize("texture", ["../private.png", "{}/private.png", "none.png"])
def test_a_texture_outside_the_models_folder_is_not_read_and_what_is_not_there_is_named(texture, tmp_path, capsys):
    Image.new("RGB", (8, 8), (20, 40, 220)).save(tmp_path / "private.png")
    (tmp_path / "models").mkdir()
    write_pyramid(tmp_path / "models", texture.format(tmp_path))
    assert [20, 40, 220] not in load_mesh(tmp_path / "models/thing.obj").textures[0][0][:, ::-1].tolist()
    line = f"thing.obj goes without {texture.format(tmp_path)}, which is not in its folder\n"
    assert capsys.readouterr().err.endswith(line)


@pytest.mark.parametrize(
    "flags, line",
    [
        ("--things models", "--things models and --models FOLDER go together; one of them is missing"),
        ("--things models --models {}/none", "{}/none has too few models"),
        ("--photos {}", "--photos {} has no picture (JPEG, PNG)"),
        ("--things models --models {}", "pip install -r requirements-models.txt"),
    ],
)
def test_what_is_missing_is_named_before_anything_is_rendered(flags, line, folder, tmp_path, capsys, monkeypatch):
    if "pip" in line:
        monkeypatch.setitem(sys.modules, "embreex", None)
    status = exit_status(main, "--outputpath", tmp_path / "out", *flags.format(folder).split())
    assert status == 1 and line.format(folder) in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("no model", "cannot be read as a model"),
        ("v 0 0 nan\nv .1 0 0\nv 0 .1 0\nf 1 2 3\n", "is nan cm long"),
        ("v 0 0 0\nv .1 0 0\nv 0 .1 .1\nv .1 .1 .1\nf 1 2 3\nf 2 3 4\n", "is flat"),
    ],
)
def test_a_file_that_is_no_model_or_flat_is_named_in_one_line(content, line, tmp_path):
    (tmp_path / "thing.obj").write_text(content)
    with pytest.raises(UserError, match=f"thing.obj {line}"):
        load_mesh(tmp_path / "thing.obj")


def test_other_models_are_refused_in_a_folder_with_takes_but_not_the_same_ones_elsewhere(folder, tmp_path, capsys):
    out = tmp_path / "out"
    counts = ("--num_train", 1, "--num_val", 0, "--num_test", 0, "--num_frames", 1, "--size", "tiny")
    words = (*counts, "--num_workers", 1, "--outputpath", out, "--things", "models")
    assert exit_status(main, *words, "--models", folder) == 0
    before = tree(out)
    (tmp_path / "elsewhere").mkdir()
    folder = folder.rename(tmp_path / "elsewhere" / folder.name)
    assert exit_status(main, *words, "--models", folder) == 0 and tree(out) == before
    write_box(folder / "box-0.glb", color=(1, 2, 3), picture=Image.new("RGB", (9, 9)))
    assert exit_status(main, *words, "--models", folder) == 1 and tree(out) == before
    error = f"{out} holds takes of other models than --models {folder} has now; choose another --outputpath"
    assert capsys.readouterr().err.splitlines()[-1].endswith(error)


CATALOGUE = [
    {"name": "Tea cup", "model": "/a/cup.obj", "width": 10, "depth": 8, "height": 12, "creator": "Ada"},
    {"name": "Wall switch", "model": "/a/cup.obj", "width": 8, "depth": 1, "height": 8},
    {"name": "Table", "model": "/b/table.obj", "width": 150, "depth": 80, "height": 75, "creator": "Bob"},
    {"name": "Lamp", "model": "/a/cup.obj", "width": 10, "depth": 10, "height": 10, "elevation": 200},
]


def test_the_catalogue_becomes_models_in_meters_grounds_and_credits(tmp_path, capsys):
    """The unpacked package, with one archive of each name."""
    cup = "v 0 0 0\nv 5 0 0\nv 0 6 0\nv 0 0 4\nf 1 2 3\nf 1 3 4\nf 1 4 2\nf 2 4 3\n"
    entries = [{"id": number} | entry for number, entry in enumerate(CATALOGUE, 1)]
    listed = "\n".join(f"{key}#{entry['id']}={value}" for entry in entries for key, value in entry.items())
    contents = {"PluginFurnitureCatalog.properties": listed, "a/cup.obj": cup, "b/table.obj": cup}
    noise = np.random.default_rng(0).integers(80, 180, (256, 256, 3)).astype(np.uint8)
    for name, pixels in {"b/wood.png": noise, "b/plain.png": 0 * noise + 9}.items():
        Image.fromarray(pixels).save(picture := io.BytesIO(), "PNG")
        contents[name] = picture.getvalue()
    package, out = tmp_path / "furniture", tmp_path / "household"
    (package / "usr" / "share").mkdir(parents=True)
    for name in household_models.LICENCES:
        with zipfile.ZipFile(package / "usr" / "share" / f"{name}.sh3f", "w") as archive:
            for path, content in contents.items():
                archive.writestr(path, content)
    out.mkdir()
    (out / ".credits.csv.0123abcd.tmp").touch()  # as a killed run leaves it
    done = run_main(household_models.main, "--package", package, "--out", out)
    assert {path.name for path in out.iterdir()} == {"models", "photos", "credits.csv"}
    assert done.returncode == 0 and "4 models and 1 picture in " in done.stdout
    credits = (out / "credits.csv").read_text().splitlines()
    assert credits[:2] == ["file,name,author,licence", "blendswap-cc-0-1-tea-cup,Tea cup,Ada,CC0"]
    assert credits[2] == "blendswap-cc-0-3-table,Table,Bob,CC0"
    assert len(credits) == 6 and credits[-1].endswith("CC-BY 3.0")
    height = 11 * 2 * load_mesh(out / "models" / "scopia-1-tea-cup.glb").half_axes.max()
    assert height == pytest.approx(12, rel=1e-3)  # cm
    assert exit_status(household_models.main, "--package", tmp_path / "none", "--out", out) == 1
    assert "none has no BlendSwap-CC-0, " in capsys.readouterr().err
