"""What the user is told when a text may not pass, in English and Chinese.

A refusal is one sentence that says what cannot be done and one that offers the nearest safe
help: no lecture, no guess at motive. A crisis reply is not a refusal: it stays with the person.
"""

from __future__ import annotations

import re

from safety._refusals import shipped
from safety.schema import Category, Side

#: category -> (English, Chinese): the refusal, then the nearest safe help.
REFUSALS: dict[Category, tuple[str, str]] = {
    "hate": (
        "I can't write something that demeans people for who they are. "
        "I can help with the facts about a group's history, rights or views instead.",
        "我不能写贬低某个群体的内容。如果需要，我可以介绍这个群体的历史、权益或观点等事实。",
    ),
    "harassment": (
        "I can't help to insult, threaten or wear down a person. "
        "I can help you write a firm, civil message or find a way to settle the conflict.",
        "我不能帮忙辱骂、威胁或骚扰他人。我可以帮您写一段坚定而得体的话，或一起想想怎么化解冲突。",
    ),
    "violence": (
        "I can't help with hurting anyone. "
        "I can help with staying safe, calming a conflict, or finding people who can step in.",
        "我不能协助伤害他人。我可以帮您了解如何保护自己、缓和冲突，或找到可以介入的人。",
    ),
    "sexual": (
        "I can't write sexually explicit material. "
        "I can help with questions about health, consent and relationships.",
        "我不能写露骨的色情内容。关于健康、尊重意愿和亲密关系的问题，我可以帮忙。",
    ),
    "minors": (
        "I can't help with this. If a child may be at risk, the police or a child protection "
        "line can act at once.",
        "我不能协助这件事。如果有孩子可能处于危险之中，"
        "请立即联系警方（中国大陆 110）或儿童保护机构。",
    ),
    "self_harm": (
        "I can't give methods of self-harm. "
        "I can listen, and help you find someone to talk to right now.",
        "我不能提供伤害自己的方法。我可以听您说，也可以帮您找到现在就能倾诉的人。",
    ),
    "illicit": (
        "I can't give instructions for that, because they could cause serious harm. "
        "I can help with how it is prevented, detected or regulated.",
        "我不能提供这方面的操作方法，因为可能造成严重危害。关于如何防范、识别或相关法规，我可以帮忙。",
    ),
    "privacy": (
        "I can't help to find or expose someone's private information. "
        "I can explain how to protect personal data or how to request it lawfully.",
        "我不能帮忙查找或公开他人的隐私信息。我可以说明如何保护个人信息，或通过合法途径申请查询。",
    ),
    "attack": (
        "I can't set aside my instructions or show them. "
        "Ask me the question itself and I will answer what I can.",
        "我不能忽略或展示我的内部指令。请直接告诉我您想问的问题，我会尽力回答。",
    ),
    "fault": (
        "The safety check could not be done, so I can't answer just now. Please try again.",
        "安全检查暂时无法完成，我现在不能回答。请稍后再试。",
    ),
}
GENERIC = (
    "I can't help with that. Tell me what you need it for and I will look for a safe way.",
    "这个我帮不了。您可以告诉我想达到什么目的，我来找一个安全的办法。",
)
OUTPUT = (
    "I can't show the answer I had, because it did not pass the safety check. "
    "You can ask in another way and I will try again.",
    "原本的回答没有通过安全检查，不能显示。您可以换一种问法，我再试试。",
)

#: region -> (English, Chinese) resources. 988 and 116 123 are 24-hour lines; 12356 is mainland
#: China's national psychological assistance line; 120 ambulance, 110 police.
RESOURCES: dict[str, tuple[str, str]] = {
    "US": (
        "In the US you can call or text 988 at any hour; in danger, call 911",
        "在美国可以随时拨打或发短信给 988；有危险请拨 911",
    ),
    "GB": (
        "In the UK you can call Samaritans on 116 123 at any hour; in danger, call 999",
        "在英国可以随时拨打 116 123（Samaritans）；有危险请拨 999",
    ),
    "CN": (
        "In mainland China you can call 12356; in danger, call 120 or 110",
        "在中国大陆可以拨打全国统一心理援助热线 12356；有危险请拨 120 或 110",
    ),
}
ELSEWHERE = (
    "anywhere else, your local emergency number can help right away",
    "在其他地区，请拨打当地的紧急电话",
)
CRISIS = (
    "I'm really glad you told me, and I'm sorry it hurts this much. "
    "Are you safe right now, or is there something near you that you might use to hurt yourself? "
    "If so, please move away from it and be with someone you trust. {lines}. "
    "I'm here, and we can keep talking: what has today been like?",
    "谢谢您愿意告诉我，您现在一定很难受。您此刻安全吗？身边有没有可能用来伤害自己的东西？"
    "如果有，请先离开它，让一个您信任的人陪着您。{lines}。"
    "我在这里，我们可以继续聊：今天发生了什么？",
)


def _pick(pair: tuple[str, str], language: str) -> str:
    return pair[1] if language.lower().startswith("zh") else pair[0]


def refusal_reply(category: Category, language: str, side: Side = "input") -> str:
    """The refusal for `category` in `language` ("zh…" is Chinese, all else English).

    On the output side the fault is the assistant's, so the reply does not blame the request.
    """
    if side == "output" and category != "fault":
        return _pick(OUTPUT, language)
    return _pick(REFUSALS.get(category, GENERIC), language)


def crisis_reply(language: str, locale: str = "") -> str:
    """Words for a person in danger of self-harm, with the lines of `locale`.

    `locale` is a region ("US") or a locale ("zh-CN", "en_GB"); "" names the lines by language.
    A region that is not known gets the local emergency number.
    """
    region = re.split(r"[-_]", locale.strip())[-1].upper().replace("UK", "GB")
    if not region:
        regions = ["CN"] if language.lower().startswith("zh") else ["US", "GB"]
    else:
        regions = [region] if region in RESOURCES else []
    lines = [_pick(RESOURCES[r], language) for r in regions] + [_pick(ELSEWHERE, language)]
    mark = "；" if language.lower().startswith("zh") else "; "
    text = mark.join(lines)
    return _pick(CRISIS, language).format(lines=text[:1].upper() + text[1:])


def is_refusal(text: str) -> bool:
    """True where `text` declines (English or Chinese); a crisis reply is not a refusal.

    To say that nothing was found is an answer. A refusal that goes on to help may be told either
    way.

    Raises:
        ModelUnusable: the weights in models/refusals are missing or damaged.
    """
    return bool(text.strip()) and shipped().logit(text) > 0
