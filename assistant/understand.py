"""What a message means: intent, whether to search, and the question made standalone.

Everything here is a rule: no model call a turn, no drift, and the searched query is shown. Search
is the default; only a pure greeting, thanks, farewell or question about the assistant itself goes
without. A follow-up is rewritten only when a gate says so (a pronoun, an opener, or fewer than
three content words), by carrying over the words of the previous question that name its topic.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from assistant.schema import Intent, Turn, Understanding
from retrieval.text import content_words, is_han, language, query_terms

_SOCIAL: tuple[tuple[Intent, re.Pattern[str]], ...] = (
    (
        "greeting",
        re.compile(
            r"(hi|hello|hey|howdy|good (morning|afternoon|evening|day)|greetings)"
            r"( there| all| everyone| again| plumbline| hello)?|there|"
            r"how are you( doing)?( today)?|nice to meet you|"
            r"(你|您|大家|你们)好[啊呀吗]?|嗨|哈喽|哈啰|早|早上好|早安|下午好|晚上好|在吗|在嗎|有人吗",
            re.I,
        ),
    ),
    (
        "thanks",
        re.compile(
            r"((many|ok|great|perfect) )?(thanks|thank (you|u)|thx|cheers)( a lot| so much| "
            r"very much| again)?( for (your|the|all your) (help|answers?|reply|explanation|time))?|"
            r"ok|okay|great|perfect|got it|i see|understood|"
            r"(太好了|好的)?(非常|十分|太|多)?(谢谢|感谢|謝謝|多谢)(你|您|啦|了|你们)?"
            r"(的(帮助|帮忙|回答|解答))?|好的|太好了|明白了?|知道了|懂了|辛苦了",
            re.I,
        ),
    ),
    (
        "farewell",
        re.compile(
            r"(good)?bye( bye)?|see you( later)?|good night|再见|拜拜|回头见|晚安|再見", re.I
        ),
    ),
    (
        "capability",
        re.compile(
            r"(who|what) are you|what('s| is) your name|what can you do( for me)?|what do you do|"
            r"help( me)?( please)?|how can you help( me)?|how do you work|"
            r"(请问)?(你|您)(是谁|是誰|叫什么名字|叫什么|是什么|是做什么的|会什么|(能|会|可以)?(帮我)?"
            r"[做干](些|点)?什么|(能|可以)帮我什么|有(什么|哪些)功能)|帮助|介绍一下你自己",
            re.I,
        ),
    ),
)
_BREAK = re.compile(r"[,.!?;~，。！？；～、…\n]+")
_EDGES = re.compile(r"^\W+|\W+$")
_STOPS = r"(?=\W*$|\s*[,.;:!?—])"
_CORRECTION = re.compile(
    r"^\W*((no|sorry|hmm|actually)\W+(but )?)?(i (still )?(think|believe) )?"
    r"(that|this|it|your answer|the answer|you)(('s| is|'re| are| was)?( \w+ly)? (wrong|mistaken|"
    r"not (right|correct|true)|incorrect|false)|('s| is| was)? not what i (asked|meant)"
    rf"|( does not|n't| doesn't)( look| sound| seem)? (right|correct|true)){_STOPS}|"
    rf"^\W*(no(?!\. ?\d)|nope|wrong( answer)?|incorrect|false|not (true|right|correct))"
    rf"{_STOPS}|^\W*(i (don't|do not) (think|believe) (that|this|it)('s| is| was) "
    r"(right|correct|true)|"
    r"that can'?t be (right|true|correct)|you made a mistake|are you (really )?sure)\b(?![-\w])|"
    r"^\W*(我(觉得|认为|想)|好像|似乎|恐怕)?(这个?|那|你|你的|答案|回答)*(说|说得|答|答得|回答|回答得|搞|弄)?"
    r"(都|是|好像|似乎|完全)?(不对|不對|错了|錯了|不正确|有误|错误|是错的|不是这样|不是這樣|答非所问)的?[吧啊呀哦了]?"
    r"(?=\W*$|\s*[，。！？,.!?；;]|应该|我(说|问|指)的是)|"
    r"^\W*(你|您)(确定|確定|肯定)|^\W*(不|不是)(?=\W*$|\s*[，,。])",
    re.I,
)
_MEANT = re.compile(
    r"\bi (meant|mean|asked|was asking)\b|我(说|问|指|想问)的?是|应该?是|而是", re.I
)
_PRONOUN_EN = re.compile(
    r"\b((?-i:it|It|its|Its)|they|them|their|theirs|he|him|his|she|her|hers|that one|this one|"
    r"(those|these)(?! who)|the same|the former|the latter|such(?! as| an?)|"
    r"(the|a|an|any|which) (\w+ )?ones?(?=\W*$)|which one|the two(?=\W*$))\b|"
    r"\b(this|that)\b(?=[\s?.!,]*$)|"
    r"\b(of|about|with|for|to|in|do|does|did|is|was|doing) (this|that)\b",
    re.I,
)
_PLURAL = r"\b(?!does|this|goes|its|has|was|is\b)(\w{2,}[^s\W]s|people|children|men|women)\b"
#: "it" that stands for nothing, and pronouns whose noun stands before them in the same sentence.
_EXPLETIVE = re.compile(
    r"\bit (be )?(possible|ok|okay|safe|allowed|necessary|required|better|best|worth|true|legal|"
    r"illegal|important|common|normal|easy|hard|difficult|dangerous|likely|like|wrong|rude|good|bad)"
    r"(?= (to|that|if|when|\w+ing|for \w+( \w+)? to)\b)|"
    r"\bit (is|was) (possible|necessary|true|safe)\b|\bit takes?\b|"
    r"\bhow \w+ is it to\b|\bdoes it (take to|matter)\b|\bit (rain|snow)(s|ing)?\b|"
    r"\bwhat (time|day) is it\b|"
    rf"(?<!what )(?<!who )(?<!many ){_PLURAL}.*\b(?<!do )(?<!are )(their|they)\b|"
    r"\b(a|an|any|every|each) \w+ .*\b(their|they|its)\b|"
    r"(?-i:(?<!^)\b[A-Z]\w+) .*\b(his|her|he|she)\b",
    re.I,
)
_PRONOUN_ZH = re.compile(
    r"它|他|她|其(?!乐)|该[^应]|[这那]个(?!月|星期|周|季度)|[这那]些|[这那]样|那里|那儿|那边|那时|"
    r"此(?!外)|上述|前者|后者|刚才|上面|這個|那個"
)
_POINTING = frozenset(
    "他们 她们 它们 前者 后者 上述 刚才 上面 这样 那样 那里 那儿 那边 那时".split()
)
_ASKS_ZH = re.compile("什么|怎么|为何|谁|哪|几|多少|如何|是否|[是有]没?[是有]")
_OPENER = re.compile(
    r"^\W*((and|or|but|also|then|so|what about|how about|what if|how so|how come|what else|"
    r"any (other|more)|which one)\b|more\b(?! than)|(why( not)?|when|where|who)\W*$)|"
    r"^\W*(那(?!不勒斯|英|达慕|曲)|还有(?=[\W呢吗没别其什哪]|$)|另外(?=[\W一两那的还]|$)|以及|然后(?!的)|"
    r"接着(?=[\W呢说讲怎]|$)|为什么[？?呢]*$|怎么说|(比如|例如)(?=[\W说呢]|$)|"
    r"(具体|详细)(?=[\W说讲点一些呢怎如是有多时地步内流原]|$)|再(?=[\W说讲来给举]|$)|除此)",
    re.I,
)
_ELLIPSIS = re.compile(r"^\W*((and|or|what about|how about)\b|那|还有|以及)", re.I)
#: Words that name no topic: a question of these alone leans on the one before.
_HOLLOW = frozenset(
    "much many long often old far big tall high more else example examples explain elaborate "
    "continue go give show mean means detail details come happened happen take takes last really "
    "钱 时候 例子 举个 举 继续 解释 说说 说明 详细 具体 真 再说 一遍".split()
)
#: "What is Photoshop?" names its topic in one word; "what is the price?" and "what is new?" do not.
_NAMED = re.compile(
    r"\W*(what|who) (is|are|was|were) (?!the (?-i:[a-z])|next|new|wrong|included|missing|needed|"
    r"required|allowed|possible|different|responsible)\w|"
    r"\W*(how \w+|where|when) (is|are|was|were|did|does) (the )?(?-i:[A-Z])|什么是",
    re.I,
)
#: A longer message brings its topic with it, characters.
_LONG = 300


#: A question of fewer terms says too little to be searched a second time as it is.
TOPIC = 3


@dataclass(frozen=True, slots=True)
class Gate:
    """Whether a message leans on the turn before, and the reason, for "why this answer"."""

    follow_up: bool
    reason: str


def understand(text: str, history: Sequence[Turn], tongue: str = "auto") -> Understanding:
    """Say what `text` asks for.

    Args:
        text: the user's message, as screened.
        history: earlier turns, oldest first.
        tongue: "en" or "zh" from the user's settings, "auto" = by the message's script.

    Returns:
        An understanding; `query` is "" where nothing is to be searched.
    """
    spoken = language_of(text, history, tongue)
    intent = _social(text)
    if intent is not None:
        return Understanding(intent, "", False, spoken, f"a pure {intent}: nothing to search")
    asked = _last_question(history)
    if asked is not None and _CORRECTION.search(text):
        rest = _MEANT.sub(" ", _CORRECTION.sub("", text))
        about = asked.reply.understanding.query
        if len(query_terms(about)) < TOPIC and asked.reply.citations:
            about = f"{about} {asked.reply.citations[0].title}"
        query = " ".join([about, *content_words(rest)])
        return Understanding(
            "correction", query, True, spoken, "told of a mistake: search again, elsewhere"
        )
    gate = follow_up(text) if asked is not None else Gate(False, "first question")
    if asked is None or not gate.follow_up:
        return Understanding("question", text.strip(), False, spoken, gate.reason)
    query = standalone(text, asked)
    return Understanding("question", query, query != text.strip(), spoken, gate.reason)


def follow_up(text: str) -> Gate:
    """The gate: deterministic, and generous only where the words leave no topic."""
    if len(text) > _LONG:
        return Gate(False, "stands alone")
    if _OPENER.search(text) or _asks_likewise(text):
        return Gate(True, "opens like a follow-up")
    if _points_back(text):
        return Gate(True, "a pronoun points back")
    words = _topics(text)
    whole = is_han(text) and len(query_terms(" ".join(words))) > 2  # one long Chinese word
    if not words or (len(words) < 2 and not whole and not _NAMED.match(text)):
        return Gate(True, "too few words to stand alone")
    return Gate(False, "stands alone")


def standalone(text: str, asked: Turn) -> str:
    """Add to `text` the words of the previous question that name its topic.

    One with a pronoun takes the words that the cited document's title and headings share with the
    question, all where they share none. An elliptic one ("and in version 3?", "why?") takes over
    the whole previous question; after another elliptic one, what that one took over.
    """
    before, earlier = asked.reply.understanding.query, asked.user_text.strip()
    elliptic = _elliptic(text)
    again = elliptic and _topics(text) and _elliptic(earlier) and before.startswith(f"{earlier} ")
    have = {w.lower() for w in content_words(text)}
    source = before.removeprefix(earlier) if again else before
    carried = [w for w in content_words(source) if w.lower() not in have]
    if not elliptic:
        about = " ".join(" ".join((c.title, *c.headings)) for c in asked.reply.citations).lower()
        topical = [w for w in carried if w.lower() in about]
        carried = topical or carried
    joined = ""
    for word in carried:
        whole = joined + word  # 北京 and 塔 stay one phrase where they were one
        phrase = is_han(word) and whole.split()[-1] in source
        joined = whole if phrase else f"{joined} {word}"
    return f"{text.strip()} {joined.strip()}".strip()


def _topics(text: str) -> list[str]:
    return [w for w in content_words(text) if w.lower() not in _HOLLOW]


def _social(text: str) -> Intent | None:
    """The intent of the last clause where every clause is small talk."""
    found: Intent | None = None
    for clause in _BREAK.split(text):
        bare = _EDGES.sub("", clause)
        if bare:
            found = next((i for i, pattern in _SOCIAL if pattern.fullmatch(bare)), None)
            if found is None:
                return None
    return found


def _points_back(text: str) -> bool:
    """Whether a pronoun stands for something outside `text`."""
    if text.isupper():
        text = text.lower()
    if is_han(text):
        # 吉他, 其他, 应该 hold a pronoun's character and are none
        words = [w for w in content_words(text) if len(w) > 1 and w not in _POINTING]
        for word in sorted(words, key=len, reverse=True):
            text = text.replace(word, " ")
    return bool(_PRONOUN_ZH.search(text) or _PRONOUN_EN.search(_EXPLETIVE.sub(" ", text)))


def _asks_likewise(text: str) -> bool:
    """Whether it ends in 呢 and asks nothing of its own, as 那北京呢 does."""
    return re.search(r"呢\W*$", text) is not None and not _ASKS_ZH.search(text)


def _elliptic(text: str) -> bool:
    """Whether only a part was said, or nothing of a topic, and the rest is the question before."""
    if len(text) > _LONG or _points_back(text):
        return False
    words = _topics(text)
    return bool(_ELLIPSIS.search(text)) or _asks_likewise(text) or not words


def _last_question(history: Sequence[Turn]) -> Turn | None:
    """The newest turn that was searched for; small talk that a policy saw through is none."""
    found = (t for t in reversed(history) if t.reply.understanding.query)
    return next((t for t in found if t.reply.outcome != "social"), None)


def language_of(text: str, history: Sequence[Turn], tongue: str = "auto") -> str:
    """The language to answer in: the one set, or by script.

    "3.4?" and "Windows 呢？" keep the conversation's language.
    """
    if tongue != "auto":
        return tongue
    before = history[-1].reply.language if history else ""
    letters = [c for c in text if c.isalpha()]
    if before and not letters:
        return before
    return "zh" if before == "zh" and is_han(letters[-1]) else language(text)
