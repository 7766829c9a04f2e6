"""Words that exclude each other: what is red is not blue, and who sits does not walk; to exchange them makes a caption false.

A set is a line; a comma parts its members, and words of one member, which say the same, are parted by blanks.
"""

from __future__ import annotations

from collections.abc import Mapping

_ATTRIBUTES = """
    red, orange, yellow, green, blue, purple, pink, black, white, brown tan, gray grey, silver, golden gold, beige
    small little tiny, large big huge giant enormous
    young, old elderly older
    long, short
    tall, short low
    wooden, metal metallic, plastic, concrete, brick, glass, leather
    wet, dry
    hot, cold
    open, closed
    full, empty
    clean, dirty
    happy, sad, angry
    dark, light bright pale
    round, square, flat
    male, female
    striped, plaid checkered, floral, spotted
    sunny, cloudy overcast, rainy, snowy, foggy
    old antique vintage ancient, new modern
    smooth, rough
    thick, thin
    wide, narrow
    crowded busy, quiet deserted
    ripe, unripe, rotten
    sandy, grassy, snowy, rocky, muddy
    paved, dirt, gravel
"""
_RELATIONS = """
    on atop upon, under below beneath underneath
    above over, under below beneath underneath
    inside, outside
    sitting sits sit, standing stands stand, lying laying lies lays, walking walks walk, kneeling kneels, flying flies
    standing stands stand, walking walks walk, running runs run, jumping jumps jump, sleeping sleeps
    holding holds hold, throwing throws throw, catching catches catch, kicking kicks kick, swinging swings
    eating eats eat, cooking cooks cook, cutting cuts slicing slices, serving serves, washing washes
    riding rides ride, pushing pushes, pulling pulls, carrying carries, chasing chases, leading leads, feeding feeds, petting pets
    opening opens, closing closes
    into, out
    up, down
    left, right
    before, after
    facing, leaving
    parked, driving drives, moving
    wearing wears, removing removes, washing washes, folding folds
    buying buys, selling sells
"""
# As true of another noun as of the one it would replace.
GENERAL = frozenset({
    "person", "people", "someone", "somebody", "anyone", "everyone", "group", "crowd", "bunch", "couple", "pair", "set",
    "lot", "number", "row", "line", "piece", "kind", "type", "thing", "things", "object", "objects", "item", "items",
    "animal", "animals", "vehicle", "vehicles", "food", "place", "area", "scene", "view", "picture", "photo", "image",
    "side", "top", "bottom", "front", "back", "middle", "part", "something", "one", "ones", "way",
})  # fmt: skip
# Said of both sides alike, so that exchanging them changes nothing; or of so little that it changes nothing that is seen.
SYMMETRIC = frozenset({
    "near", "beside", "next to", "with", "by", "alongside", "along", "around", "and", "against", "close to", "at",
    "between", "among", "of", "standing with", "sitting with", "standing near", "sitting near", "standing next to",
    "sitting next to", "standing beside", "sitting beside", "standing by", "sitting by", "facing", "touching", "from",
    "is", "has", "playing with", "talking to", "parked next to", "parked near", "laying next to", "lying next to",
    "for", "during", "like", "as",
})  # fmt: skip


def _members(lines: str) -> Mapping[str, frozenset[tuple[int, int]]]:
    found: dict[str, set[tuple[int, int]]] = {}
    for number, line in enumerate(filter(None, map(str.strip, lines.splitlines()))):
        for member, words in enumerate(line.split(",")):
            for word in words.split():
                found.setdefault(word, set()).add((number, member))
    return {word: frozenset(places) for word, places in found.items()}


_BY_ATTRIBUTE, _BY_RELATION = _members(_ATTRIBUTES), _members(_RELATIONS)


def excluded_attributes(word: str) -> frozenset[str]:
    """The attributes that nothing has at the same time as this one."""
    return _excluded(word, _BY_ATTRIBUTE)


def excluded_relations(word: str) -> frozenset[str]:
    """The words of place and of doing that do not hold together with this one."""
    return frozenset(other for other in _excluded(word, _BY_RELATION) if _form(other) == _form(word))


def _excluded(word: str, members: Mapping[str, frozenset[tuple[int, int]]]) -> frozenset[str]:
    mine = dict(members.get(word, ()))
    shared = {
        other
        for other, places in members.items()
        if any(mine.get(line, member) != member for line, member in places)
        and not any(mine.get(line) == member for line, member in places)
    }
    return frozenset(shared)


def _form(word: str) -> str:
    """The ending by which a verb fits into the sentence."""
    return "ing" if word.endswith("ing") else "s" if word.endswith("s") else ""
