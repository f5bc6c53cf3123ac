"""The world of a take: objects in a row on a table, and the wearer of the head-worn camera, who picks some of them up.

Lengths are in units of the mean object width, times in seconds. z is up; the wearer stands on the side of negative y.
"""

import colorsys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from formats.geometry import Size
from formats.picture_files import read_picture
from synthetic.models import pictures_below
from synthetic.options import FPS, VIDEO_SIZES, TakeOptions
from synthetic.render import CUBE_CORNERS, LIGHTS, Camera, Picture, Solid, cast_shadows, render, rotation_about
from synthetic.textures import SURFACE, Item, paint_table_top, paint_wall

EGO = "aria01_214-1"
EGO_FOCAL, EXO_FOCAL = 1.0, 1.2  # focal lengths in picture widths: pictures are 53 and 45 degrees wide
EPISODE = 5.0  # seconds in which the wearer picks up one object, looks at it and puts it back
OBJECT_AREA = 1.0  # mean area of an object's outline, seen from about 35 degrees above
TABLE_HEIGHT = 4.0
SKIN, SLEEVE = (120, 155, 205), (110, 85, 70)  # BGR
# Clothes have one of these colors, each a range from one (hue, saturation, value) to another: first three vivid and two
# muted ranges, then white and black, then gray and brown.
CLOTHES = [((0.0, 0.65, 0.45), (1.0, 1.0, 0.95))] * 3 + [((0.0, 0.2, 0.35), (1.0, 0.55, 0.9))] * 2
CLOTHES += [((0.0, 0.0, 0.85), (1.0, 0.1, 1.0)), ((0.0, 0.0, 0.07), (1.0, 0.3, 0.2))]
CLOTHES += [((0.55, 0.0, 0.45), (0.65, 0.1, 0.75)), ((0.05, 0.4, 0.25), (0.1, 0.7, 0.6))]
LIMBS = (  # of a person: place to the side, lowest and highest point, radius, color (0: trousers, 1: shirt, 2: skin)
    (0, 0, 7, 1.6, 0),
    *((side, 6, 11.5, 0.6, 1) for side in (-1.9, 1.9)),
    (0, 5, 12, 2.1, 1),
    (0, 11.5, 14.5, 1, 2),
)
HAND_OFFSET = np.array([0.42, -0.42, 0.12])  # from the center of a held object to the hand
OUTLINE_SIDE = 64  # width in pixels of a view of one object alone, in which its outline is counted
FINGERS = np.array([[-0.12, 0.2, 0.08], [-0.16, 0.2, 0.0], [-0.15, 0.18, -0.08], [-0.05, 0.16, 0.17]])


def camera_names(num_exo: int) -> list[str]:
    """The names of the ego camera and of `num_exo` exo cameras, in the style of the data set."""
    return [EGO, *(f"cam{number:02d}" for number in range(1, num_exo + 1))]


class Tabletop:
    """The world of one take. Solids of object i have label i + 1; everything else has label 0."""

    def __init__(
        self, rng: np.random.Generator, options: TakeOptions, items: Sequence[Item], clutter: Sequence[Item]
    ) -> None:
        self.sizes, self.object_size = VIDEO_SIZES[options.size], options.object_size
        self.modelled, self.twins = (options.things == things for things in ("models", "twins"))
        self.cameras = camera_names(options.num_exo)
        views = np.array_split(np.arange(len(items)), options.num_exo)  # objects at which each exo camera is aimed
        self.exo_views = [view.tolist() or [k % len(items)] for k, view in enumerate(views)]
        variety, oddity = rng.spawn(2)  # so that an option does not change the numbers that `rng` draws
        scales = self.object_size.scales(variety, len(items))
        self.items = [item.scaled(scale) for item, scale in zip(items, scales, strict=True)]
        ego_distance = _distance_for_area(EGO_FOCAL, self.object_size.ego, self.sizes[0])
        spread = np.exp(variety.normal(0, self.object_size.cameras, options.num_exo).clip(-1, 0.7))
        exo_distances = _distance_for_area(EXO_FOCAL, self.object_size.exo, self.sizes[1]) * spread
        self.spacing = max(1.5, (0.22 if self.modelled else 0.3) * ego_distance / EGO_FOCAL)
        self.places, self.yaws = self._place_items(rng, options.touching)
        photos = pictures_below(options.photos) if options.photos else []
        self.room, self.table = self._build_room(rng, 1.2 * max(ego_distance, *exo_distances), photos)
        self._plan_wearer(rng, options.num_frames / FPS, ego_distance)
        self.clutter = self._place_clutter(variety, clutter)
        count = len(self.cameras)
        self.lights, self.rolls, self.people, self.tints = LIGHTS, np.zeros(count), [], {}
        if self.modelled:
            self.lights, is_upright = _draw_lights(variety), variety.random() < 0.9
            self.rolls = variety.normal(0, 0.08, count) if is_upright else variety.uniform(-np.pi, np.pi, count)
        # A user's pictures may come from cameras that are turned, that are all static, or that record gray.
        odd = oddity.random() < options.odd_cameras
        turned, fixed, gray = odd & (oddity.random(3) < 0.5)
        if turned:
            self.rolls = oddity.uniform(-np.pi, np.pi, count)
        self.exo_cameras = [self._aim_exo(rng, number, exo_distances[number]) for number in range(options.num_exo)]
        self.fixed_ego = self._place_fixed_ego(oddity, self.exo_cameras[0]) if fixed else None
        self.gray = [name for name in self.cameras if gray and oddity.random() < 0.7]
        seconds = options.num_frames // FPS + 1
        self.left_out = oddity.random((seconds, count, len(self.items))) < options.left_out
        if self.modelled:
            self.people = [self._plan_person(variety, camera) for camera in 2 * self.exo_cameras]
        if self.modelled or self.twins:
            self.tints = self._draw_tints(variety)
        self.exo_rooms = [render(camera, [self.room, *self.clutter], None, self.lights) for camera in self.exo_cameras]

    def pictures(self, second: float) -> dict[str, Picture]:
        """Each camera's picture at the moment `second`."""
        objects = [self.object_solid(number, second) for number in range(len(self.items))]
        people = [*self._hand_solids(second), *(limb for person in self.people for limb in person(second))]
        table, worlds = None, []  # for each camera, the solids that it can see besides the room
        for left_out in self.left_out[int(second)]:
            present = [solid for solid, is_left_out in zip(objects, left_out, strict=True) if not is_left_out]
            solids = present + people
            if table is None or self.left_out[int(second)].any():
                table = cast_shadows(self.table, solids + self.clutter, self.lights[0])
            worlds.append([*solids, table])
        ego, *exos = worlds
        pictures = {EGO: render(self.camera(EGO, second), [*ego, *self.clutter, self.room], None, self.lights)}
        for name, camera, room, world in zip(self.cameras[1:], self.exo_cameras, self.exo_rooms, exos, strict=True):
            pictures[name] = render(camera, world, room, self.lights)
        for name, tint in self.tints.items():
            channels = pictures[name].channels
            channels[:] = tinted(channels, np.append(tint, 1))
        for name in self.gray:
            channels = pictures[name].channels
            channels[..., :3] = cv2.cvtColor(channels, cv2.COLOR_BGRA2GRAY)[..., None]
        return pictures

    def camera(self, name: str, second: float) -> Camera:
        """A camera at a time. A fixed camera may take the place of the head-worn one."""
        if name == EGO:
            return self.fixed_ego or self._head_camera(second)
        return self.exo_cameras[self.cameras.index(name) - 1]

    def _head_camera(self, second: float) -> Camera:
        gaze = self.gaze(second)  # the head follows the gaze, and sways
        sway = np.sin(second * self.sway_speed + self.sway_phase)
        head = self.head + gaze * (0.7, 0.3, 0.6) + sway[:3] * 0.06
        focal, roll = EGO_FOCAL * self.sizes[0][1], 0.06 * sway[3] + self.rolls[0]
        return Camera.look_at(head, gaze, focal, self.sizes[0], roll)

    def _place_items(self, rng: np.random.Generator, touching: bool) -> tuple[np.ndarray, np.ndarray]:
        """Place the objects in a row along x, some nearer and some farther in y: their centers (N, 3), and by how much
        each is turned about z (N,). If `touching`, every second one touches its predecessor's bounding box.
        """
        count, ragged = len(self.items), self.spacing - 0.7
        x = (np.arange(count) - (count - 1) / 2) * self.spacing
        y = rng.uniform(-0.5, 0.5, count) * (ragged if self.object_size.mixed else min(1.0, ragged))
        yaws = rng.uniform(-0.5, 0.5, count) * np.pi
        if touching:
            half_widths = np.array([item.half_axes[0] for item in self.items])
            x[1::2] = x[:-1:2] + half_widths[:-1:2] + half_widths[1::2]
            y[1::2] = y[:-1:2]
            yaws[:] = 0
        return np.stack([_on_table(*at) for at in zip(self.items, x, y, strict=True)]), yaws

    def _build_room(self, rng: np.random.Generator, reach: float, photos: list[Path]) -> tuple[Solid, Solid]:
        """A room with space for cameras at distances up to `reach` from the objects, and the table in it."""
        width = len(self.items) * self.spacing / 2
        grounds = [paint_wall(rng, bool(rng.integers(2))) for _ in range(4)]
        grounds += [paint_wall(rng, True) // 2, paint_table_top(rng)]
        if self.twins:
            grounds = [self._in_object_color(rng, ground) for ground in grounds]
        if photos:
            grounds = [_draw_photo_texture(rng, photos) if rng.random() < 0.8 else ground for ground in grounds]
        *walls_and_floor, top = grounds
        half = np.array([reach + width + 2, reach + 3, (reach + TABLE_HEIGHT + 3) / 2])
        room = Solid("room", np.array([0, 0.5, half[2]]), half, np.hstack([*walls_and_floor, np.full_like(top, 225)]))
        table_half = np.array([width + 0.9, max(1.9, self.spacing), TABLE_HEIGHT / 2])
        return room, Solid("box", np.array([0, 0, TABLE_HEIGHT / 2]), table_half, np.hstack([top] * 6))

    def _in_object_color(self, rng: np.random.Generator, ground: np.ndarray) -> np.ndarray:
        """A table top, wall or floor, half of the time in the color of a random point of a random object."""
        if rng.random() < 0.5:
            return ground
        texture = self.items[rng.integers(len(self.items))].solid.texture
        color = texture[tuple(rng.integers(texture.shape[:2]))]
        return tinted(ground, color / cv2.mean(ground)[:3])

    def _place_clutter(self, rng: np.random.Generator, clutter: Sequence[Item]) -> list[Solid]:
        """Put things at random free places of the table; a thing for which no place is found is left out. Every fourth
        model touches an object instead, or stands on it.
        """
        taken = [(place[:2], item.radius) for place, item in zip(self.places, self.items, strict=True)]
        solids: list[Solid] = []
        for number, (thing, scale) in enumerate(zip(clutter, self.object_size.scales(rng, len(clutter)), strict=True)):
            thing = thing.scaled(scale)
            if self.modelled and number % 4 == 0:
                solids.append(thing.placed(*self._place_touching(rng, thing)))
                continue
            for _ in range(20):
                at = rng.uniform(-1, 1, 2) * (self.table.half_axes[:2] - min(thing.radius, 1))
                if all(np.hypot(*(at - other)) > thing.radius + radius + 0.1 for other, radius in taken):
                    taken.append((at, thing.radius))
                    solids.append(thing.placed(_on_table(thing, *at), rotation_about(2, rng.uniform(-np.pi, np.pi))))
                    break
        return solids

    def _place_touching(self, rng: np.random.Generator, thing: Item) -> tuple[np.ndarray, np.ndarray]:
        """The place and rotation of a thing that touches an object, or stands on an object that is never lifted."""
        number = int(rng.integers(len(self.items)))
        item, (x, y, z) = self.items[number], self.places[number]
        angle = rng.uniform(-np.pi, np.pi)
        lifted = {number for _, number in self.episodes}
        if rng.integers(3) == 0 and thing.radius < 0.8 * item.radius and number not in lifted:
            return np.array([x, y, z + (item.half_axes[2] + thing.half_axes[2])]), rotation_about(2, angle)
        away = 0.85 * (item.radius + thing.radius)
        return _on_table(thing, x + away * np.cos(angle), y + away * np.sin(angle)), rotation_about(2, angle)

    def _plan_wearer(self, rng: np.random.Generator, seconds: float, distance: float) -> None:
        """Plan the paths of gaze and hand. In each episode the wearer looks at an object, reaches for it, lifts it out
        of the exo cameras' view, looks at it and puts it back.
        """
        elevation = np.deg2rad(rng.uniform(32, 42))
        self.head = distance * np.array([0, -np.cos(elevation), np.sin(elevation)])
        self.sway_speed, self.sway_phase = rng.uniform(0.6, 1.6, 4), rng.uniform(0, 2 * np.pi, 4)
        self.head += self.places.mean(0) * (0.3, 0.7, 0.4)
        self.lift = 0.4 * self.head * (0, 1, 1) if self.object_size.mixed else np.array([0, -0.2, 2.2])
        episodes = max(1, int(np.ceil(seconds / EPISODE)))
        # The objects in the order in which the wearer glances at one, picks up the next, glances at the next ...
        order = np.concatenate([rng.permutation(len(self.items)) for _ in range(2 * episodes + 1)])
        self.episodes: list[tuple[np.ndarray, int]] = []  # the six times of the hand's stops, and the object it moves
        hand_times, hand_points = [], []
        gaze_times, gaze_points = [0.0], [self._point_near(rng, order[0])]
        for episode in range(episodes):
            number, following = order[2 * episode + 1 : 2 * episode + 3]
            stop_times = np.array([0.03, 0.2, 0.42, 0.66, 0.86, 0.96]) + rng.uniform(-0.02, 0.02, 6)
            stop_times = (episode + stop_times) * EPISODE
            self.episodes.append((stop_times, number))
            place = self.places[number]
            # Between episodes the hand is in front of the table.
            rest = np.array([place[0] + 0.8, -self.table.half_axes[1] - 0.3, TABLE_HEIGHT - 0.5])
            stops = [place, place + self.lift, place + self.lift, place]
            hand_times += list(stop_times)
            hand_points += [rest, *(stop + HAND_OFFSET for stop in stops), rest]
            offset = rng.uniform(-0.3, 0.3, 3) * (1, 1, 0.3)
            gaze_times += [*(stop_times[1:5] - 0.2), stop_times[5]]
            gaze_points += [*(stop + offset for stop in stops), self._point_near(rng, following)]
        self.hand = partial(_point_on_path, np.array(hand_times), np.array(hand_points))
        self.gaze = partial(_point_on_path, np.array(gaze_times), np.array(gaze_points))

    def _point_near(self, rng: np.random.Generator, number: int) -> np.ndarray:
        """A random point near an object, to look at."""
        return self.places[number] + rng.uniform(-0.6, 0.6, 3) * (1, 0.5, 0.3)

    def _aim_exo(self, rng: np.random.Generator, number: int, distance: float) -> Camera:
        """An exo camera that looks down at its objects: from the left, the right, or from behind the table."""
        azimuth = np.deg2rad((-40, 40, 160, -160)[number % 4] + rng.uniform(-18, 18))
        elevation = np.deg2rad(rng.uniform(22, 36) - 8 * self.modelled)
        target = self.places[self.exo_views[number]].mean(0)
        direction = np.array([np.sin(azimuth), -np.cos(azimuth), np.tan(elevation)]) * np.cos(elevation)
        size = self.sizes[1]
        return Camera.look_at(target + distance * direction, target, EXO_FOCAL * size[1], size, self.rolls[1 + number])

    def _place_fixed_ego(self, rng: np.random.Generator, exo: Camera) -> Camera:
        """A fixed camera that replaces the head-worn camera. The fixed camera stands beside an exo camera, or farther
        around the table, and looks at the same objects from about the same distance.
        """
        target, size = self.places[self.exo_views[0]].mean(0), self.sizes[0]
        away = rotation_about(2, rng.uniform(0.05, (0.3, 1.5)[rng.integers(2)])) @ (exo.position - target)
        away *= EGO_FOCAL / EXO_FOCAL * rng.uniform(0.8, 1.25)
        return Camera.look_at(target + away, target, EGO_FOCAL * size[1], size, self.rolls[0])

    def _plan_person(self, rng: np.random.Generator, camera: Camera) -> Callable[[float], list[Solid]]:
        """A person who walks to and fro in front of an exo camera: a function that gives the solids at a time."""
        middle = self.places.mean(0) * (1, 1, 0)
        away = (camera.position - middle) * (1, 1, 0)
        distance = np.linalg.norm(away)
        near = np.clip(rng.uniform(0.35, 0.5) * distance, 10, 18)
        across = np.array([-away[1], away[0], 0]) / distance
        swing = rng.uniform(8, 12) * (1 - near / distance)
        speed, phase = rng.uniform((0.6, 0), (1.4, 2 * np.pi))
        clothes = (CLOTHES[rng.integers(len(CLOTHES))] for _ in range(2))
        colors = *(255 * np.array(colorsys.hsv_to_rgb(*rng.uniform(*tones))[::-1]) for tones in clothes), SKIN

        def solids_at(second: float) -> list[Solid]:
            feet, solids = middle + near / distance * away + swing * np.sin(phase + speed * second) * across, []
            for side, low, high, radius, color in LIMBS:
                below = feet + side * across
                solids.append(_limb_between(below + (0, 0, low), below + (0, 0, high), radius, colors[color]))
            return solids

        return solids_at

    def _draw_tints(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Factors of blue, green and red by which each camera shows the take's light: dim to bright, warm to cool."""
        warm = np.array([-1, 0, 1])
        light = rng.uniform(0.75 if self.twins else 0.45, 1.15) * np.exp(rng.normal(0, 0.1) * warm)
        tints = {name: light * np.exp(rng.normal(0, 0.12) + rng.normal(0, 0.06) * warm) for name in self.cameras}
        return tints | {EGO: 0.85 * tints[EGO]}

    def object_solid(self, number: int, second: float) -> Solid:
        """The solid of an object at a time, when it is in the hand or on the table."""
        item, place = self.items[number], self.places[number]
        lifted = 0.0
        for stop_times, held in self.episodes:
            if held == number and stop_times[1] <= second <= stop_times[4]:
                place = self.hand(second) - HAND_OFFSET
                lifted = (place - self.places[number])[2] / self.lift[2]
        rotation = rotation_about(2, self.yaws[number] + 0.8 * lifted) @ rotation_about(0, -0.35 * lifted)
        return item.placed(place, rotation, number + 1)

    def outline_area(self, name: str, second: float, number: int) -> float:
        """The number of pixels that an object would have in a camera's picture if nothing hid it and the picture were
        unbounded. The pixels are counted in a small view with the object in its middle. At an angle from the camera's
        axis, an object has more pixels than in the middle, by a factor of 1 / cos(angle)^3.
        """
        camera, solid = self.camera(name, second), self.object_solid(number, second)
        points = solid.to_world(CUBE_CORNERS)
        middle = (points.min(0) + points.max(0)) / 2
        away = np.linalg.norm(middle - camera.position)
        focal = OUTLINE_SIDE * away / (2.2 * np.linalg.norm(points - middle, axis=1).max())  # a tenth of margin
        view = Camera.look_at(camera.position, middle, focal, (OUTLINE_SIDE, OUTLINE_SIDE))
        cosine = max((middle - camera.position) @ camera.rotation[2] / away, 0.2)
        return (render(view, [solid]).labels > 0).sum() * (camera.focal / focal) ** 2 / cosine**3

    def _hand_solids(self, second: float) -> list[Solid]:
        """The solids of the hand: palm, fingers, forearm, and a sleeve up to the shoulder below the head."""
        palm = self.hand(second)
        shoulder = self._head_camera(second).position + (0.5, -0.4, -1.3)
        arm = (shoulder - palm) / np.linalg.norm(shoulder - palm)
        return [
            _limb_between(palm - 0.15 * arm, palm + 0.3 * arm, 0.17, SKIN),
            *(_limb_between(palm, palm + 1.5 * finger, 0.06, SKIN) for finger in FINGERS),
            _limb_between(palm, palm + 1.6 * arm, 0.14, SKIN),
            _limb_between(palm + 0.55 * arm, shoulder, 0.24, SLEEVE),
        ]


def tinted(image: np.ndarray, tint: np.ndarray) -> np.ndarray:
    """The image (H, W, C) uint8, its channels multiplied by `tint` (C,). A table is three times as fast as products."""
    values = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], len(tint), 2)
    return cv2.LUT(image, cv2.multiply(values, (*tint, *[1] * (4 - len(tint))), dtype=cv2.CV_8U))  # pyrefly: ignore


def _distance_for_area(focal: float, area: float, size: Size) -> float:
    """The distance at which a median object fills the fraction `area` of a camera's picture of `size`."""
    return focal * np.sqrt(OBJECT_AREA / area * size[1] / size[0])


def _draw_photo_texture(rng: np.random.Generator, photos: list[Path]) -> np.ndarray:
    """A part of a random photograph, perhaps repeated, lighter or darker -> (SURFACE, SURFACE, 3) uint8 BGR."""
    picture = read_picture(photos[rng.integers(len(photos))])[..., ::-1]
    length = int(min(picture.shape[:2]) * rng.uniform(0.4, 1))
    row, col = (rng.integers(n - length + 1) for n in picture.shape[:2])
    times = int(rng.integers(1, 5))
    part = picture[row : row + length, col : col + length]
    tile = cv2.resize(part, (SURFACE // times,) * 2, interpolation=cv2.INTER_AREA)
    tiles = np.tile(np.hstack([tile, tile[:, ::-1]]), (times, times, 1))[:SURFACE, :SURFACE]
    tiles = np.pad(tiles, [(0, SURFACE - len(tiles)), (0, 0), (0, 0)], "edge")  # 3 * 170 rows are 2 too few
    return cv2.convertScaleAbs(tiles, alpha=rng.uniform(0.6, 1.2))


def _on_table(item: Item, x: float, y: float) -> np.ndarray:
    """The middle of an item that stands on the table."""
    return np.array([x, y, TABLE_HEIGHT + item.half_axes[2]])


def _draw_lights(rng: np.random.Generator) -> np.ndarray:
    """Draw one to three lights, (L, 3), as `synthetic.render.LIGHTS`."""
    turns, heights = rng.uniform((-np.pi, 0.5), (np.pi, 1.3), (rng.integers(1, 4), 2)).T
    towards = np.stack([np.cos(turns) * np.cos(heights), np.sin(turns) * np.cos(heights), np.sin(heights)], 1)
    return towards * rng.dirichlet(np.ones(len(towards)))[:, None]


def _point_on_path(times: np.ndarray, points: np.ndarray, second: float) -> np.ndarray:
    """The place at a time on a smooth path through `points` (N, 3), which reaches each point at its time in `times`."""
    after = int(np.clip(np.searchsorted(times, second), 1, len(times) - 1))
    part = np.clip((second - times[after - 1]) / (times[after] - times[after - 1]), 0, 1)
    return points[after - 1] + (points[after] - points[after - 1]) * (part * part * (3 - 2 * part))


def _limb_between(start: np.ndarray, end: np.ndarray, radius: float, color: Sequence[float] | np.ndarray) -> Solid:
    """An ellipsoid of one color (BGR), one axis of which runs from `start` to `end`."""
    length = np.linalg.norm(end - start)
    axis = (end - start) / length
    side = np.cross(axis, [0.3, 0.9, 0.1])
    side /= np.linalg.norm(side)
    rotation, texture = np.stack([side, np.cross(axis, side), axis], 1), np.full((8, 24, 3), color, np.uint8)
    return Solid("ellipsoid", (start + end) / 2, np.array([radius, radius, length / 2]), texture, 0, rotation)
