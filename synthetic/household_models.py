"""Make the models and pictures with which this repository's network was trained, from a package of Debian:

    apt-get download sweethome3d-furniture && dpkg -x sweethome3d-furniture_*.deb furniture
    python synthetic/household_models.py --package furniture --out runs/household

The package of furniture for Sweet Home 3D (version 1.8, 115 MB) has models under CC0 and CC-BY 3.0. Each model that
stands on tables and is at most 45 cm long becomes a GLB file, upright and in meters, for `make_takes.py --models`. The
textures of larger furniture (wood, cloth) become pictures for `--photos`. `credits.csv` names authors and licenses.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from common.start import start

start(__name__)

import csv
import re
import zipfile

import numpy as np
from PIL import Image

from common.arguments import Parser
from common.errors import UserError, counted, run_script
from common.files import atomic_write, temporary_folder
from synthetic.models import PICTURE_SUFFIXES, import_trimesh

MODELS, PHOTOS = "models", "photos"  # folders in --out
LONGEST_IN_CM = 45.0  # of models; the pictures of longer ones become `--photos`
SHORTEST_SIDE = 200  # pixels that the shorter side of a picture has at least
NOT_ON_TABLES = re.compile(r"switch|socket|plug|bell|wall|ceiling|skirt|bill |detector|intercom|frame", re.IGNORECASE)
LICENCES = {
    "BlendSwap-CC-0": "CC0",
    "BlendSwap-CC-BY": "CC-BY 3.0",
    "KatorLegaz": "CC-BY 3.0 US",
    "Scopia": "CC-BY 3.0",
}


def read_catalogue(archive: Path) -> list[dict[str, str]]:
    """The entries of the PluginFurnitureCatalog.properties in an unpacked archive, one for each model."""
    text = (archive / "PluginFurnitureCatalog.properties").read_text("latin-1")
    entries: dict[str, dict[str, str]] = {}
    for name, number, value in re.findall(r"^(\w+)#(\d+)=(.*)$", text, re.MULTILINE):
        entries.setdefault(number, {"number": number})[name] = value.strip()
    return list(entries.values())


def convert_model(source: Path, entry: dict[str, str], longest: float, target: Path) -> None:
    """Write an OBJ file as GLB, turned as its `entry` says and scaled to `longest` cm: sizes in the files are wrong."""
    scene = import_trimesh().load_scene(source, process=False)
    rotation = np.eye(4)
    if "modelRotation" in entry:
        rotation[:3, :3] = np.array(entry["modelRotation"].split(), float).reshape(3, 3)
    scene.apply_transform(rotation)
    scene.apply_scale(longest / 100 / scene.extents.max())
    scene.export(target)


def surface_pictures(folder: Path) -> list[Image.Image]:
    """The pictures in a model's folder that show one surface: they are large enough, not plain, and alike all over."""
    surfaces = []
    for path in sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES):
        picture = Image.open(path).convert("RGB")
        evenness = np.asarray(picture.resize((4, 4), Image.Resampling.BOX), float).std((0, 1)).max()
        if min(picture.size) >= SHORTEST_SIDE and np.asarray(picture.convert("L")).std() > 6 and evenness < 16:
            surfaces.append(picture)
    return surfaces


def write_entry(archive: Path, entry: dict[str, str], out: Path, file_name: str, surfaces: set[bytes]) -> bool:
    """Write an entry's model if it stands on tables, or the pictures of surfaces of a large one, without those that are
    in `surfaces` already; returns whether anything was written.
    """
    source = archive / entry["model"].lstrip("/")
    longest = max(float(entry[side]) for side in ("width", "depth", "height"))
    if longest <= LONGEST_IN_CM:
        if "elevation" in entry or NOT_ON_TABLES.search(entry["name"]):
            return False
        convert_model(source, entry, longest, out / MODELS / f"{file_name}.glb")
        return True
    number = len(surfaces)
    for picture in surface_pictures(source.parent):
        pixels = picture.tobytes()
        if pixels not in surfaces:
            surfaces.add(pixels)
            picture.save(out / PHOTOS / f"{len(surfaces):03d}-{file_name}.jpg", quality=92)
    return len(surfaces) > number


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--package", type=Path, required=True, help="folder of the unpacked package")
    parser.add_argument("--out", type=Path, required=True, help="folder for models/, photos/ and credits.csv")
    args = parser.parse_args()
    credits: dict[str, tuple[str, ...]] = {}  # by file
    surfaces: set[bytes] = set()
    archives = {path.stem: path for path in args.package.rglob("*.sh3f")}
    missing = [name for name in LICENCES if name not in archives]
    if missing:
        raise UserError(f"{args.package} has no {', '.join(missing)}.sh3f; version 1.8 of the package, unpacked, does")
    for folder in (MODELS, PHOTOS):
        (args.out / folder).mkdir(parents=True, exist_ok=True)
    with temporary_folder(args.out, "credits.csv", f"writes {args.out}") as temporary:
        for name, licence in LICENCES.items():
            archive = temporary / name
            with zipfile.ZipFile(archives[name]) as files:
                files.extractall(archive)
            for entry in read_catalogue(archive):
                file_name = re.sub(r"\W+", "-", f"{name} {entry['number']} {entry['name']}".lower()).strip("-")
                if write_entry(archive, entry, args.out, file_name, surfaces):
                    credits[file_name] = file_name, entry["name"], entry.get("creator", ""), licence
    with atomic_write(args.out / "credits.csv") as file:  # written last, as a sign that all files are there
        csv.writer(file).writerows([("file", "name", "author", "licence"), *credits.values()])
    count = len(list((args.out / MODELS).iterdir()))
    print(f"{counted(count, 'model')} and {counted(len(surfaces), 'picture')} in {args.out}")


if __name__ == "__main__":
    run_script(main)
