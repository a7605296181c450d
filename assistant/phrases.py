"""What the assistant says in its own words, in both languages. Everything else is evidence."""

from __future__ import annotations

import re
from collections.abc import Sequence

PHRASES: dict[str, dict[str, str]] = {
    "greeting": {
        "en": "Hello! Ask me anything about your documents, and I will answer with the sentences "
        "that say so.",
        "zh": "你好！关于你的文档，有什么都可以问我，我会用文档里的原句来回答。",
    },
    "thanks": {"en": "You are welcome.", "zh": "不客气。"},
    "farewell": {
        "en": "Goodbye! This conversation is kept in the list.",
        "zh": "再见！这段对话会保留在列表里。",
    },
    "capability": {
        "en": "I am plumbline: I answer questions from your documents, in Chinese and English. "
        "Every sentence I quote carries its source, and when the documents do not say it, I tell "
        "you so. Add documents on the left, or ask “How do I add documents?”.",
        "zh": "我是 plumbline：我根据你的文档用中文或英文回答问题。每句引用都注明出处；"
        "文档里没有的，"
        "我会直接告诉你没有找到。可以在左侧添加文档，或者问我“如何添加文档？”。",
    },
    "clarify": {
        "en": "I am not sure what to look for. Please name the topic, for example a document, a "
        "product or a rule, and I will search for it.",
        "zh": "我还不确定要查什么。请说出具体的主题，"
        "例如某份文档、某个产品或某条规定，我再去查找。",
    },
    "empty": {
        "en": "There are no documents yet. Add some on the left, or with `python app.py ingest "
        "PATH`, and ask again.",
        "zh": "目前还没有任何文档。请在左侧添加，或运行 `python app.py ingest 路径`，然后再问。",
    },
    "failed": {
        "en": "The answer could not be written: {reason}",
        "zh": "未能生成回答：{reason}",
    },
    "corrected": {
        "en": "Thank you for telling me; I may have been wrong. I searched again, elsewhere:",
        "zh": "谢谢指出，我之前的回答可能有误。我换了别处重新查找：",
    },
    "not_corrected": {
        "en": "Thank you for telling me; I may have been wrong, but I found no better answer to "
        "“{query}” in the documents.",
        "zh": "谢谢指出，我之前的回答可能有误，但在文档中没有找到关于“{query}”的更好答案。",
    },
    "set_aside": {
        "en": "Passages set aside, whole or in part, because they try to give me instructions: "
        "{number}.",
        "zh": "另有 {number} 段资料试图向我下达指令，其全部或部分未被采用。",
    },
    "any_date": {
        "en": "Within “{phrase}” I found no answer in the documents, so this comes from documents "
        "of any date:",
        "zh": "在“{phrase}”的时间范围内没有找到答案，以下内容来自所有日期的文档：",
    },
    "older": {
        "en": "An older version says something else: {name} ({date}).",
        "zh": "较早的版本说法不同：{name}（{date}）。",
    },
    "no_other": {
        "en": "I found no other answer in the documents.",
        "zh": "文档中没有找到其他答案。",
    },
}

_ABSTAIN = {
    "en": (
        "I did not find an answer to “{query}” in the documents.",
        " No document mentions {words}.",
        " The closest I found is about: {near}.",
        ", ",
    ),
    "zh": (
        "我在文档中没有找到“{query}”的答案。",
        "没有任何文档提到{words}。",
        "最接近的内容是：{near}。",
        "、",
    ),
}


def say(key: str, language: str, **values: str) -> str:
    """The phrase `key` in "zh" or else English, with its values filled in."""
    return PHRASES[key]["zh" if language == "zh" else "en"].format(**values)


def abstain(language: str, query: str, absent: Sequence[str], near: Sequence[str]) -> str:
    """Say what was not found.

    Args:
        language: "zh" or else English.
        query: what was searched.
        absent: words of the question that stand in no document.
        near: where the closest passages lie, best first.
    """
    head, words, closest, joint = _ABSTAIN["zh" if language == "zh" else "en"]
    quoted = [f"“{word}”" for word in absent]
    text = head.format(query=query)
    if absent:
        text += words.format(words=joint.join(quoted))
    elif near:
        text += closest.format(near=joint.join(near))
    return text


_DETAILS_ZH = tuple(
    (re.compile(pattern), wording)
    for pattern, wording in (
        (r"(\d+) turns, (\d+) in the window", r"\1 轮对话，\2 轮在窗口内"),
        (r"(\d+) passages, (\d+) messages", r"\1 段资料，\2 条消息"),
        (r": (\d+) passages, dated (.+)$", r"：\1 段，时间范围：\2"),
        (r": (\d+) passages, of any date$", r"：\1 段，不限日期"),
        (r": (\d+) passages", r"：\1 段"),
        (
            r", (\d+) tokens read \((\d+) of them before\), (\d+) written",
            r"，读入 \1 个词元（其中 \2 个此前已读），写出 \3 个",
        ),
        (r"(\d+) set aside", r"搁置 \1 段"),
        (r"(\d+) cut\b", r"删节 \1 段"),
        (r"(\d+) pass\b", r"\1 段通过"),
        (r"(\d+) citations", r"\1 处引用"),
        (r"first question", "第一个问题"),
        (r"stands alone", "可独立理解"),
        (r"opens like a follow-up", "以追问的方式开头"),
        (r"a pronoun points back", "代词指向上文"),
        (r"too few words to stand alone", "词太少，不能独立理解"),
        (r"a pure (\w+): nothing to search", "无需检索"),
        (r"told of a mistake: search again, elsewhere", "被指出有误，换处重新检索"),
        (r"^question: ", "提问："),
        (r"^greeting: ", "问候："),
        (r"^thanks: ", "致谢："),
        (r"^farewell: ", "告别："),
        (r"^capability: ", "询问能力："),
        (r"^correction: ", "指正："),
        (r"^answered, ", "已回答，"),
        (r"^abstained, ", "未作答，"),
        (r"^refused, ", "已拒绝，"),
        (r"^crisis, ", "危机关怀，"),
        (r"^social, ", "寒暄，"),
        (r"^failed, ", "失败，"),
        (r"^allow\b", "通过"),
        (r"^annotate\b", "标注"),
        (r"^refuse\b", "拒绝"),
        (r"^block\b", "阻止"),
        (r": stop$", "：完成"),
        (r": stopped$", "：已停止"),
        (r": abstain$", "：不作答"),
        (r": unsupported$", "：无依据"),
        (r": length$", "：达到长度上限"),
    )
)


def told(detail: str, language: str) -> str:
    """A step's detail in the language of the page; steps write them in English."""
    if language == "zh":
        for pattern, wording in _DETAILS_ZH:
            detail = pattern.sub(wording, detail)
    return detail
