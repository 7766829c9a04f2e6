"""Nouns without a tagger: closed word classes, endings and neighbours decide, nothing is downloaded and nothing is learned.

It serves where no trained pipeline can be had. The word lists hold what captions are made of; a word that no list and no
ending explains is taken for a noun, since nouns are the open class of captions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Literal

VERSION = 1  # raised with any change of a list or a rule, since counts that were made with another one no longer fit

Guess = Literal["noun", "adjective", "verb", "determiner", "preposition", "other"]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


DETERMINERS = _words("""
    a an the this that these those some any each every both all no another either neither my your his her its our their whose
    one two three four five six seven eight nine ten eleven twelve several many few various multiple numerous other such
    what which more most half
""")
PREPOSITIONS = _words("""
    in on at of by with from to into onto over under above below behind beside besides beneath near between among amongst
    around across along against through during towards toward inside outside within without off up down out past upon via
    for about after before beyond as like than atop underneath alongside next left right
""")
OTHERS = _words("""
    and or but nor so yet if while when where who whom because although though then also too very quite just only even still
    already again almost away back forward together apart here there now not n't 's ' i you he she it we they me him us them
    himself herself itself themselves myself yourself oneself someone something anyone anything everyone everything nobody
    nothing others is are was were be been being am has have had having do does did doing done can could will would shall
    should may might must seems appears looks nearby overhead outdoors indoors upside downstairs upstairs home etc ahead
    aside abroad ago ever never often sometimes once twice maybe perhaps instead rather well much lot lots
    able due ready aboard how why whilst until onto rather
""")
ADJECTIVES = _words("""
    red orange yellow green blue purple pink black white brown gray grey tan beige golden silver dark light bright pale
    colored coloured multicolored colorful blonde blond brunette
    small large big tiny little huge medium giant tall short long wide narrow thick thin fat high low deep shallow great
    young old new elderly older younger adult male female middle-aged antique ancient vintage modern
    wet dry hot cold warm cool clean dirty fresh raw ripe frozen sunny cloudy rainy snowy sandy grassy muddy dusty rocky
    wooden metal metallic woolen plastic concrete rusty furry fluffy hairy shaggy fuzzy bare naked full empty open closed
    busy crowded quiet calm happy sad angry funny pretty beautiful nice good bad best better fine fancy cute ugly strange
    plain simple various different same single double main upper lower front rear far close nearby first second third last
    next certain whole entire separate several public local urban rural wild tame electric electronic digital asian american
    african chinese japanese indian english british french italian european round square flat straight curved steep sharp
    soft hard smooth rough heavy loud strong weak fast slow quick safe free real fake live dead alone asleep awake blind
    bald barefoot bearded striped spotted checkered plaid shirtless stuffed parked crowded decorated painted lit tiled
    inflatable professional military traditional formal casual native foreign residential commercial industrial
    clear blurry distant overcast lush bushy leafy shiny icy stormy foggy tropical floral oriental
""")
# Verbs of captions in their base form; -s, -ed and -ing are derived. Many are nouns as well: the neighbours decide.
VERBS = _words("""
    sit stand walk run jump hold ride play wear look eat drink fly swim drive talk speak smile laugh pose watch wait lie lay
    lean stare catch throw kick hit swing skate ski surf climb hang carry pull push reach touch cut cook bake make take give
    get go come put show use try start begin stop turn move travel cross pass enter leave follow lead chase race perform
    sing dance dive slide splash roll crawl sleep rest relax read write draw paint work fix clean wash brush feed pet hug
    kiss shake wave point face gather surround fill cover contain feature display sell buy shop serve prepare perch fall
    graze grow bark chew bite lick sniff dig peek gaze enjoy celebrate compete attempt appear seem happen let keep seat park
    attach adorn top say see hear want need know think help open close set stick stretch bend kneel squat crouch balance
    row sail paddle float land hover hike camp fish hunt shoot fight wrestle tackle dribble bounce toss pitch bat serve
    blow ring beep honk hum buzz chirp croak crow cry yell shout scream sneeze cough whistle rumble rev roar rattle rustle
    crackle sizzle squeak clap cheer type tap knock vibrate rub scrape chop slice peel stir pour mix fry grill boil
    demonstrate explain describe discuss react record film photograph drag lift load raise lower tie wrap fold hand pick
    plant share spin spray rain snow shine glow bloom burn smoke arrive depart board operate steer approach overlook
    attend leap host interview
""")
# Of these, no form is ever a noun of a caption, whatever stands before it: "a man in black sits", "each holding a flag".
VERBS_ALONE = _words("sit hold wear get put take give come make go have look begin lie bring grow enjoy attend")
IRREGULAR_VERBS = _words("""
    sat stood ran held rode wore ate drank flew swam drove spoke lay lain lying caught threw thrown hung cut made took taken
    gave given got gotten went gone came put shown began begun left led sang sung slept read wrote written drew drawn fed
    shook shaken fell fallen grew grown dug seen saw heard knew known thought kept built sent spent stuck bent knelt shot
    fought blew blown rang rung cried tied dying tying woken broken worn ridden driven eaten sewn torn bitten hidden seated
    worn lit laid
""")
# Words whose ending would say verb, adverb or adjective although captions use them as nouns.
NOUN_ENDINGS = _words("""
    building ceiling clothing ring king string wing spring swing thing evening morning wedding painting railing awning icing
    pudding crossing opening landing earring ping viking herring lightning stocking dumpling duckling sibling gosling sling
    topping frosting stuffing siding sting bling drawing
    bed shed sled seed weed reed speed breed feed
    family butterfly belly jelly lily bully trolley fly dolly assembly hilly
    animal hospital cereal metal pedal medal signal canal crystal mall ball wall hall festival terminal vegetal meal seal
    table cable vegetable stable fish dish goldfish jellyfish radish catfish starfish
    bus octopus circus campus cactus hippopotamus walrus harness dress class glass grass mattress cross princess waitress
    olive hive dive drive detective motorcycle
    bikini wheelchair archive
""")
_ADVERB = re.compile(r".{2,}ly")
_ADJECTIVE = re.compile(r".{2,}(?:ful|ous|ish|less|ive|able|ible|ical)|.{3,}(?:-like|-colored|-sized|-shaped|-haired)")
_PARTICIPLE = re.compile(r".{2,}(?:ing|ed)")
_WORD = re.compile(r"[^\W\d_]+(?:[-'’][^\W\d_]+)*")


def _inflections(verb: str) -> Iterator[str]:
    yield verb
    yield verb[:-1] + "ies" if verb.endswith("y") and verb[-2] not in "aeiou" else verb + "s"
    if verb.endswith(("s", "x", "ch", "sh", "o")):
        yield verb + "es"


def _ing_form(verb: str) -> Iterator[str]:
    yield verb + "ing"
    yield verb.removesuffix("e") + "ing"
    yield verb + verb[-1] + "ing"


VERB_FORMS = frozenset(form for verb in VERBS for form in _inflections(verb)) | IRREGULAR_VERBS
# "a painting" and its like are in `NOUN_ENDINGS`, which is asked first.
ING_FORMS = frozenset(form for verb in VERBS for form in _ing_form(verb))
NEVER_NOUNS = ING_FORMS | {form for verb in VERBS_ALONE for form in _inflections(verb)}


def is_word(token: str) -> bool:
    """Whether a token is made of letters, with hyphens or apostrophes only inside."""
    return _WORD.fullmatch(token) is not None


def guess_classes(tokens: Sequence[str]) -> list[Guess]:
    """Guess the class of every token of one caption.

    Args:
        tokens: words and punctuation in order, any case.
    """
    words = [token.lower() for token in tokens]
    classes: list[Guess] = []
    for place, word in enumerate(words):
        before: Guess = classes[-1] if classes else "other"
        after = words[place + 1] if place + 1 < len(words) else ""
        classes.append(_guess(word, previous=words[place - 1] if place else "", before=before, after=after))
    return classes


def _guess(word: str, *, previous: str, before: Guess, after: str) -> Guess:
    if not is_word(word):
        return "other"
    if word in ("left", "right", "front", "back", "top") and before in ("determiner", "adjective"):
        return "noun"  # "on the left": a place; the vocabulary's stop list decides what such places are worth
    if word in DETERMINERS:
        return "determiner"
    if word in PREPOSITIONS:
        return "preposition"
    if word in OTHERS:
        return "other"
    if word in NOUN_ENDINGS:
        return "noun"
    if word in ADJECTIVES:
        return "adjective"
    if word in NEVER_NOUNS:
        return "verb"
    opens_phrase = before in ("determiner", "adjective")
    if _PARTICIPLE.fullmatch(word):
        # "a painting of": nothing else is left to be the phrase's noun. "a smiling man": the noun follows.
        return "noun" if opens_phrase and word.endswith("ing") and not _may_be_noun(after) else "verb"
    if word in VERB_FORMS:
        after_preposition = before == "preposition" and previous != "to"  # "on skate" but "to skate"
        return "noun" if opens_phrase or (after_preposition and not _may_be_noun(after)) else "verb"
    if _ADVERB.fullmatch(word):
        return "other"
    return "adjective" if _ADJECTIVE.fullmatch(word) else "noun"


def _may_be_noun(word: str) -> bool:
    return is_word(word) and word not in DETERMINERS | PREPOSITIONS | OTHERS
