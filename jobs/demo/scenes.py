"""The demo's world: what a scene holds and where, drawn by lot from a keyed generator and nothing else.

A scene is facts first (`Scene`), pixels later (`jobs.demo.drawing`) and words last (`jobs.demo.captions`), so a caption can
be checked against the facts, and two machines agree on both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np

Kind = Literal["ball", "box", "star", "heart", "house", "tree", "car", "boat", "fish", "mug", "moon", "flower"]
Colour = Literal["red", "orange", "yellow", "green", "blue", "purple", "pink", "black", "white"]
Size = Literal["small", "medium", "large"]
Backdrop = Literal["meadow", "beach", "night", "snow", "sea", "desert", "room", "road"]
Layout = Literal["alone", "beside", "above", "on", "row"]

KINDS: tuple[Kind, ...] = (
    "ball", "box", "star", "heart", "house", "tree", "car", "boat", "fish", "mug", "moon", "flower",
)  # fmt: skip
COLOURS: tuple[Colour, ...] = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "black", "white")
BACKDROPS: tuple[Backdrop, ...] = ("meadow", "beach", "night", "snow", "sea", "desert", "room", "road")

# A colour that would vanish into the ground it stands on is never drawn there.
HIDDEN_COLOUR: Mapping[Backdrop, Colour] = {
    "meadow": "green",
    "beach": "yellow",
    "night": "black",
    "snow": "white",
    "sea": "blue",
    "desert": "orange",
    "room": "white",
    "road": "black",
}
# Share of the picture's side; at the 64 px that the small preset sees, the smallest thing is still 13 px wide.
SIDE: Mapping[Size, float] = {"small": 0.21, "medium": 0.31, "large": 0.45}
# What has a flat top, and how far below the upper edge of its own square that top lies.
FLAT_TOP: Mapping[Kind, float] = {"box": 0.1, "car": 0.27, "mug": 0.14}
LAYOUT_SHARES: Mapping[Layout, float] = {"alone": 0.12, "beside": 0.33, "above": 0.2, "on": 0.13, "row": 0.22}

TALLEST_STACK = 0.78  # two groups above one another leave a gap and a margin

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One to three equal things that stand together."""

    kind: Kind
    colour: Colour
    size: Size
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """One thing on the picture: its square's left and upper edge and its side, as shares of the picture's side."""

    kind: Kind
    colour: Colour
    left: float
    top: float
    side: float
    grounded: bool  # casts a shadow on the ground


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One to three groups in a layout, before a backdrop.

    The order of `groups` is the layout's: left to right for `beside` and `row`, upper before lower for `above` and `on`.
    """

    backdrop: Backdrop
    layout: Layout
    groups: tuple[Group, ...]
    jitter: tuple[float, ...]  # small shifts, shares of the side; no caption depends on them

    @property
    def facts(self) -> tuple[object, ...]:
        """Everything that a caption can tell; two scenes with the same facts are the same scene."""
        return (self.backdrop, self.layout, self.groups)


def draw_scene(rng: np.random.Generator) -> Scene:
    """Draw a scene by lot. It uses uniform draws only, whose stream numpy keeps stable."""
    backdrop = pick(rng, BACKDROPS)
    layout = _weighted(rng, LAYOUT_SHARES)
    count = {"alone": 1, "beside": 2, "above": 2, "on": 2, "row": 3}[layout]
    groups: list[Group] = []
    for place in range(count):
        taken = {group.kind for group in groups}
        kinds: Sequence[Kind] = tuple(FLAT_TOP) if layout == "on" and place == 1 else KINDS
        groups.append(
            Group(
                kind=pick(rng, [kind for kind in kinds if kind not in taken]),
                colour=pick(rng, [colour for colour in COLOURS if colour != HIDDEN_COLOUR[backdrop]]),
                size=_size(rng, layout, place),
                count=_count(rng, layout),
            )
        )
    groups = [_fitted(group, layout) for group in groups]
    if layout == "above":
        groups = _stackable(groups)
    jitter = tuple(float(x) for x in rng.random(6) * 2 - 1)
    return Scene(backdrop=backdrop, layout=layout, groups=tuple(groups), jitter=jitter)


def place_things(scene: Scene) -> tuple[Placed, ...]:
    """Lay the groups out: rows stand on a common ground line, upper groups float over lower ones or rest on them."""
    j = scene.jitter
    ground = 0.84 + 0.04 * j[0]
    if scene.layout in ("alone", "beside", "row"):
        centres = {"alone": (0.5,), "beside": (0.27, 0.73), "row": (0.18, 0.5, 0.82)}[scene.layout]
        return tuple(
            thing
            for group, centre, x, y in zip(scene.groups, centres, j[1:4], j[3:6], strict=False)
            for thing in _stand(group, centre=centre + 0.025 * x, bottom=ground + 0.025 * y, grounded=True)
        )
    upper, lower = scene.groups
    centre = 0.5 + 0.12 * j[1]
    below = _stand(lower, centre=centre, bottom=ground + 0.06, grounded=True)
    if scene.layout == "on":
        rest = min(thing.top + FLAT_TOP[lower.kind] * thing.side for thing in below)
        return below + _stand(upper, centre=centre, bottom=rest + 0.012, grounded=False)
    # Room is left between the two, so that "above" never looks like "on".
    ceiling = min(thing.top for thing in below)
    bottom = min(ceiling - 0.05, 0.08 + _extent(upper) + 0.03 * j[3])
    return below + _stand(upper, centre=centre + 0.06 * j[2], bottom=bottom, grounded=False)


def pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    """One of the options, each as likely."""
    return options[min(int(rng.random() * len(options)), len(options) - 1)]


def _weighted(rng: np.random.Generator, shares: Mapping[Layout, float]) -> Layout:
    names = tuple(shares)
    marks = np.cumsum([shares[name] for name in names])
    return names[min(int(np.searchsorted(marks, rng.random() * marks[-1], side="right")), len(names) - 1)]


def _size(rng: np.random.Generator, layout: Layout, place: int) -> Size:
    if layout == "on":
        return pick(rng, ("small", "medium")) if place == 0 else "large"
    if layout == "row":
        return pick(rng, ("small", "medium"))
    return pick(rng, ("small", "medium", "large"))


def _count(rng: np.random.Generator, layout: Layout) -> int:
    mark = rng.random()
    if layout in ("on", "row"):
        return 1
    return 1 if mark < 0.68 else 2 if mark < 0.86 else 3


def _fitted(group: Group, layout: Layout) -> Group:
    """Shrink what would not fit: several things share the room that one large thing would take."""
    if group.count == 1:
        return group
    roomy: Size = "medium" if layout == "alone" and group.size != "small" else "small"
    return replace(group, size=roomy)


def _stackable(groups: list[Group]) -> list[Group]:
    """Shrink the upper group, then the lower one, until both fit above one another."""
    for place in (0, 1):
        if sum(map(_extent, groups)) > TALLEST_STACK:
            groups[place] = replace(groups[place], size="medium" if groups[place].count == 1 else "small")
    return groups


def _extent(group: Group) -> float:
    return SIDE[group.size] * (1.95 if group.count == 3 and group.size == "small" else 1.0)


def _stand(group: Group, *, centre: float, bottom: float, grounded: bool) -> tuple[Placed, ...]:
    """Things of a group around a centre: one, two side by side, three small ones as a pyramid or three in a row."""
    side = SIDE[group.size]
    step = side * 1.02
    if group.count == 3 and group.size == "small":
        spots = [(0.0, -side * 0.95), (-step / 2, 0.0), (step / 2, 0.0)]
    else:
        spots = [((i - (group.count - 1) / 2) * step, 0.0) for i in range(group.count)]
    return tuple(
        Placed(
            kind=group.kind,
            colour=group.colour,
            left=centre + dx - side / 2,
            top=bottom + dy - side,
            side=side,
            grounded=grounded and dy == 0.0,
        )
        for dx, dy in spots
    )
