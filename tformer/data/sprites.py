"""A procedural set of 16×16 sprites with five context classes, drawn from templates, so that nothing is downloaded.

Each template is character art; each character is a role that gets a colour of its own in every sprite.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

SIZE = 16
NAMES = ("hero", "non_hero", "food", "spell", "side")
"""People seen from the front, creatures, things to eat, magic, and people seen from the side."""

# Eight columns of a symmetric sprite; the right half mirrors them. Roles: o outline, w white, k black, and a to e,
# whose colours are drawn from the class's palettes below. Empty rows at the top and the bottom are left out.
MIRRORED = {
    "hero": [
        ".....ooo ....oaaa ...oaaaa ...oaabb ...oabkb ...obbkb ....obbb ...oocco ..occccc ..occocc ..obooco "
        "...o.odd .....occ .....oce .....oeo .....oo.",
        ".....ooo ....occc ...occcc ..oooooo ...oabkb ...obbkb ....obbb ...oocco ..occccd ..occoce ..obooce "
        "...o.oce ....occe ....occe ....oeee .....ooo",
        "....o... ....ooaa ...oaaaa ...oaaaa ...oabbb ...oabkb ...oabbb ..oaoobb ..oaoccc ..ooccdd ..obocdd "
        "...oocdd .....occ .....obb .....oeo .....oo.",
    ],
    "non_hero": [
        ".......o .....ooa ....oaaa ...oaaaa ..oaaaaa ..oawwaa .oaawkaa .oaawkaa .oaaaaaa .oaaaakk .oabaaaa "
        ".obbbaaa ..oobbbb ....oooo",
        ".....ooo ...ooaaa ..oaaaaa ..oawwaa .oaawkaa .oaawkaa .oaaaaaa .oaaaaab .oaaaaaa .oaaaaaa .oaaaaaa "
        ".oaoaaoa .oo.oao. ......o.",
        "..o..... .oao.... .oaaoooo .oabaaaa ..oaaaaa o.oakaaa ooaakaaa oaoaaaaw oaaoaawk oaaaoaaa .oaaooaa "
        "..oo..ob ......oo",
        ".....ooo ....owww ...owwww ...owkkw ...owkkw ...owwww ....owko .....owk ....ooow ...owaow ...oooww "
        "..ow.oww .....oow .....oow ....oowo ....oooo",
    ],
    "food": [
        ".......b ......bb ....oobo ...oaaoa ..oaaaaa .oaawaaa .oawaaaa .oaaaaaa .oaaaaaa ..oaaaaa ..oaaaaa "
        "...oaaaa ....ooao",
        "......oo ....ooaa ...oaaww ..oaawwa ..oaaaaa .oawwaaa .oaaaaaa .ooaaaaa ..oooooo ...obbbb ....obbb "
        "....obbb ....obbb .....ooo",
        "...oooo. ..oaaaao .oaaaaaa oaaaaaaa owawawaw oooooooo obbbbbbb .occcccc oooooooo oaaaaaaa .oaaaaaa ..oooooo",
        ".....bbb ......bb ....oobb ..ooaaab .oaaaaaa .oawaaaw .oaaaaaa .oaawaaa ..oaaaaw ..oawaaa ...oaaaa "
        "....oaaw .....oaa ......oa .......o",
    ],
    "spell": [
        "......oo ......od ......od ......ow ......ow .....oow ....owww ...owaaa ..owaaaa ..oaawaa ..oawaaa "
        "..oaaaaa ...oaaaa ....oooo",
        ".......o .......a ......oa ......aw ......aw .ooooaww ..oaawww ...oawww ....oaww ....aaww ....awww "
        "...oawaa ...oaao. ...ooo..",
        "....oooo ...oaaaa ..oawwaa ..oawaaa .oaawaaa .oaaaaaa .oabaaaa .oabbaaa ..oabbbb ..ooaabb ...ooooo "
        "....occc ...occcc ...ooooo",
        "........ .oooooo. .oaaaaao .oabbbbb .oabwwbb .oabwbbd .oabbbdd .oabbbdd .oabbbbd .oabbbbb .oaaaaao "
        ".owwwwww .oooooo.",
    ],
}
WHOLE = {
    "side": [
        "......oooo...... .....oaaaao..... ....oaaaaaao.... ....oaaaabbo.... ....oaaabkbo.... ....oaabbkbbo... "
        ".....oabbbbo.... ......obbo...... .....occcco..... ....occocco..... ....occoccobo... ....occooobbo... "
        ".....oddddo..... .....oceeco..... ....ooo.oeeo.... .....oo..ooo....",
        ".....ooooo...... ....occcccoo.... ....occcccccoo.. ...ooooooooo.... ....oaabbkbo.... ....oabbbkbbo... "
        "....oabbbbbo.... .....oobboo..... ....odcccco..... ....odcoccco.... ....odcobboo.... ....odccooco.... "
        "....odcccco..... .....ocooco..... .....oeo.oeo.... .....ooo.ooo....",
        ".....ooooo...... ....oaaaaao..... ...oaaaaaaao.... ...oaaaabbbo.... ..oaaaabbkbo.... ..oaaoabbkbbo... "
        "..oao.obbbbo.... ..oo...obbo..... .....occcco..... .....occoco.o... .....ocobbooo... .....occooo.o... "
        "....occccco..... ....occccco..... ....oooeoeo..... ......oooooo....",
    ],
}
Colour = tuple[int, int, int]
HAIR: list[Colour] = [(90, 56, 37), (40, 36, 44), (214, 170, 72), (176, 78, 40), (150, 150, 160), (110, 70, 150)]
SKIN: list[Colour] = [(250, 214, 176), (232, 184, 140), (190, 134, 92), (128, 84, 58)]
CLOTH: list[Colour] = [(196, 52, 52), (52, 104, 196), (56, 150, 76), (150, 72, 170), (222, 150, 48), (88, 96, 110)]
DARK: list[Colour] = [(84, 58, 40), (60, 64, 80), (112, 82, 50)]
PALETTES: Mapping[str, Mapping[str, list[Colour]]] = {
    "hero": {"a": HAIR, "b": SKIN, "c": CLOTH, "d": DARK + CLOTH, "e": DARK},
    "side": {"a": HAIR, "b": SKIN, "c": CLOTH, "d": DARK + CLOTH, "e": DARK},
    "non_hero": {
        "a": [(98, 186, 92), (92, 148, 214), (168, 108, 196), (120, 120, 132), (206, 96, 110), (226, 188, 92)],
        "b": [(66, 120, 70), (70, 90, 150), (96, 60, 120), (196, 80, 90)],
    },
    "food": {
        "a": [(206, 52, 48), (226, 132, 44), (234, 200, 76), (196, 140, 84), (150, 190, 70), (206, 90, 140)],
        "b": [(70, 150, 62), (110, 170, 70), (236, 218, 186)],
        "c": [(120, 72, 44), (150, 60, 50)],
    },
    "spell": {
        "a": [(84, 120, 240), (196, 70, 220), (70, 200, 210), (250, 140, 60), (110, 220, 120)],
        "b": [(140, 90, 230), (90, 60, 170), (60, 120, 190)],
        "c": [(120, 96, 60), (96, 96, 110)],
        "d": [(250, 214, 90), (240, 240, 255), (176, 122, 70)],
    },
}
FIXED: Mapping[str, Colour] = {".": (255, 255, 255), "o": (32, 28, 40), "w": (255, 255, 255), "k": (16, 12, 24)}


ROLES = "".join(FIXED) + "abcde"


def draw_sprites(count: int = 5000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return images (count, 16, 16, 3) uint8 and labels (count,) int64 into ``NAMES``, classes in equal parts.

    A sprite's template, colours, shade and place (one pixel either way) are random; people from the side face either
    way.
    """
    random = np.random.default_rng(seed)
    templates = [[_roles(art, name not in WHOLE) for art in (MIRRORED | WHOLE)[name]] for name in NAMES]
    labels = random.permutation(np.arange(count) % len(NAMES))  # (count,)
    images = np.empty((count, SIZE, SIZE, 3), np.uint8)
    for image, label in zip(images, labels, strict=True):
        roles = templates[label][random.integers(len(templates[label]))]  # (16, 16) indices into ROLES
        down, right = random.integers(0, 3, size=2)
        roles = np.pad(roles, 1)[down : down + SIZE, right : right + SIZE]  # role 0 is the background
        if NAMES[label] == "side" and random.random() < 0.5:
            roles = roles[:, ::-1]
        image[:] = _colours(NAMES[label], random)[roles]
    return images, labels


def _roles(art: str, mirrored: bool) -> np.ndarray:
    rows = [row + row[::-1] if mirrored else row for row in art.split()]
    above = (SIZE - len(rows)) // 2
    below = SIZE - len(rows) - above
    rows = ["." * SIZE] * above + rows + ["." * SIZE] * below
    return np.array([[ROLES.index(role) for role in row] for row in rows])


def _colours(name: str, random: np.random.Generator) -> np.ndarray:
    """Return one sprite's colour for each role, (roles, 3) uint8."""
    shade = random.uniform(0.85, 1.1)
    colours = np.zeros((len(ROLES), 3))
    for i, role in enumerate(ROLES):
        choices = PALETTES[name].get(role)
        colours[i] = FIXED.get(role, 0) if choices is None else shade * np.array(choices[random.integers(len(choices))])
    return colours.clip(0, 255).astype(np.uint8)
