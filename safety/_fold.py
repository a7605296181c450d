"""Characters to plain ones: width, case, accents, look-alikes, traditional forms, hidden marks."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from functools import lru_cache

#: Letters that look like Latin ones and that compatibility folding leaves alone.
_LOOKALIKES = {
    "абвгдеёкмнорстухіїјѕһԁԛԝъьԍɡӏҽҡмԺп": "a6brgeekmhopctyxiijshdqwbbggleкmзn",
    "αβγδεηικλμνοπρςστυχωϲϳ": "abydenikaμvonpcotuxwcj",
    "ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢ": "abcdefghijklmnoprstuvwyz",
    "ɑɐɓɕɖɗɘəɛɜɟɠɦɨɩɫɭɯɱɳɵɹɾʂʃʈʉʋʍʐʑʒ": "aabcddeeeejghiiilmmnorrsstuvwzzz",
    "øđħıłŧƀƃƈɍʝƙƥƭƴƶßæœ": "odhiltbbcrjkptyzsao",
    "օոհսցքաԛգտ": "onhugpaqqt",
    "’‘ʼ′‛“”„‟‐‒–—―−": "'" * 5 + '"' * 4 + "-" * 6,
}
#: Letters whose shape is a Latin letter's, by that letter: after Unicode's table of confusables
#: (UTS 39), what folding alone reads otherwise or not at all.
_SHAPES = {
    "a": "Ꭺᗅꓮ𐊠𖽀Ꭿ",
    "b": "ƄƅᏏᏴᑲᖯᗷꓐꞴ𐊂𐊡𐌁",
    "c": "ϲϹᏟⲤⲥꓚꮯ𐊢𐌂𐐕𐐽𐔜𑣩𑣲",
    "d": "ᎠᏧᑯᗞᗪꓒꓓ",
    "e": "Ꭼ℮ⴹꓰꬲ𐊆𑢦𑢮ℯєԑ",
    "f": "ϜքᖴẝꓝꞘꞙꬵ𐊇𐊥𐔥𑢢𑣂𝟊",
    "g": "ƍᏀᏳᶃꓖ",
    "h": "ΗᎻᏂᕼⲎꓧ𐋏𝚮𝛨𝜢𝝜𝞖",
    "i": "ͺᎥ⍳ꙇꭵ𑣃Ιı",
    "j": "Ꭻᒍꓙ",
    "k": "ᏦᛕⲔꓗ𐔘",
    "l": "ƖᏞᒪⳐꓡ𐐛𐔦𑢣𑢲𖼖",
    "m": "ΜϺᎷᗰᛖⲘꓟ𐊰𐌑𝚳𝛭𝜧𝝡𝞛",
    "n": "ΝռⲚꓠ𐔓𝚴𝛮𝜨𝝢𝞜",
    "o": "ჿᴑⲞⲟⵔꓳꬽ𐊒𐊫𐐄𐐬𐓂𐓪𐔖𑢵𑣈𑣗𑣠",
    "p": "ᏢᑭⲢⲣꓑ𐊕",
    "q": "զⵕ",
    "r": "ᎡᏒᖇᴦⲅꓣꭇꭈꮁ𐒴𖼵",
    "s": "ƽՏᏕᏚꓢꮪ𐊖𐐠𐑈𑣁𖼺",
    "t": "ᎢⲦꓔ𐊗𐊱𐌕𑢼𖼊",
    "u": "ʋሀᑌꓴꞟꭎꭒ𐓎𐓶𑢸𑣘𖽂ս",
    "v": "ѴѵᏙᐯꓦꮩ𐔝𑜆𑢠𑣀𖼈",
    "w": "ɯѡաᎳᏔꓪꮃ𑜊𑜎𑜏𑣦𑣯",
    "x": "ᕁᕽ᙭ᚷⲬⵝꓫꞳ𐊐𐊴𐌗𐌢𐔧𑣬",
    "y": "ɣΥϒҮүყᎩᎽᶌỿⲨꓬꭚ𐊲𑢤𑣜𖽃𝚼𝛶𝜰𝝪𝞤",
    "z": "ΖᏃꓜꮓ𐋵𑢩𑣄𑣥𝚭𝛧𝜡𝝛𝞕",
}
ROUNDS = 6


def _table() -> dict[str, str]:
    table = {}
    for strange, plain in _LOOKALIKES.items():
        for a, b in zip(strange, plain, strict=False):
            if b.isascii():
                table[a] = b
    for start in (0x1F130, 0x1F150, 0x1F170, 0x1F1E6):
        table.update({chr(start + i): chr(ord("a") + i) for i in range(26)})
    return table


_LATIN = _table()


_SHAPED = {char: letter for letter, chars in _SHAPES.items() for char in chars}


@lru_cache(maxsize=1)
def _simplifier() -> Callable[[str], str]:
    import opencc  # on first use: an import of this package stays light

    convert: Callable[[str], str] = opencc.OpenCC("t2s").convert
    return convert


def _hidden(char: str) -> bool:
    """Characters without a mark of their own: format, control, tags, fillers, selectors."""
    if char in "\t\n":
        return False
    return (
        unicodedata.category(char) in ("Cf", "Cc", "Mn", "Me", "Cs")
        or char in "\u115f\u1160\u3164\uffa0\u2800\u034f"
        or 0xE0000 <= ord(char) <= 0xE0FFF
    )


def _fold_once(text: str) -> str:
    out = []
    for char in unicodedata.normalize("NFKD", text):
        if _hidden(char):
            continue
        if char in "\r\v\f\x85\u2028\u2029":
            out.append("\n")
        elif char.isspace() and char not in "\t\n":
            out.append(" ")
        elif "\u3400" <= char <= "\u9fff" or ord(char) >= 0x20000:
            plain = _simplifier()(char)
            out.append(plain if len(plain) == 1 else char)
        else:
            low = char.casefold()
            out.append("".join(_LATIN.get(c, c) for c in low))
    return unicodedata.normalize("NFC", "".join(out))


class _Folds(dict[str, str]):
    """Character -> its plain form, worked out on first use."""

    def __missing__(self, char: str) -> str:
        if char in "\r\v\f\x85\u2028\u2029":
            value = "\n"
        elif char in _SHAPED:
            value = _SHAPED[char]
        else:
            value, before = _fold_once(char), char
            for _ in range(ROUNDS):
                if value == before:
                    break
                before, value = value, "".join(_fold_once(c) for c in value)
        self[char] = value
        return value


FOLDS = _Folds()
