"""The page on training, below: the candidates with their gates, and the blind picks."""

from __future__ import annotations

import re
from collections.abc import Sequence

from assistant.training import Answer, Candidate, Decided, GateRow, Pair
from assistant.ui.render import button, escape, page
from assistant.ui.render_train import confirm
from assistant.ui.state import Lot
from assistant.ui.strings import Language, ago, count, known, say

#: Gates that are a change against the live policy: their numbers have a sign.
_CHANGES = ("safety", "over_refusal", "groundedness", "answers", "sign", "modelling")
_COARSE = ("kl", "length")
_MARK = re.compile(r"\[(\d{1,3})\]")
_UNSAFE = re.compile(r"[^A-Za-z0-9]")


def candidates(
    found: Sequence[Candidate],
    decisions: Sequence[Decided],
    share: float,
    language: Language,
    *,
    can_roll_back: bool,
    note: str = "",
    now: float | None = None,
) -> str:
    """Every candidate with what can be done with it. A trial would take `share` of the chats.

    `note` is what `render_train.said` made of the verb before.
    """
    heading = f'<h3 class="pl-heading">{escape(say(language, "train_candidates"))}</h3>'
    trial = any(one.state == "canary" for one in found)
    body = "".join(
        _candidate(one, share, language, trial=trial, can_roll_back=can_roll_back, now=now)
        for one in found
    )
    if not found:
        body = f'<p class="pl-empty">{escape(say(language, "train_no_candidates"))}</p>'
    log = _decisions(decisions, language, now)
    return page(f'<section class="pl-sheet">{heading}{note}{body}{log}</section>')


def _candidate(
    one: Candidate,
    share: float,
    language: Language,
    *,
    trial: bool,
    can_roll_back: bool,
    now: float | None,
) -> str:
    state = known(language, f"train_state_{one.state}", one.state)
    parent = (
        say(language, "train_parent", id=one.parent)
        if one.parent
        else say(language, "train_parent_none")
    )
    facts = [ago(language, one.created, now), parent]
    if any(one.picks):
        new, old, equal = one.picks
        facts.append(say(language, "train_picks", new=new, old=old, equal=equal))
    lines = f"<small>{escape(' · '.join(facts))}</small>"
    if one.state == "canary":
        lines += f"<small>{escape(_votes(one, language))}</small>"
    return (
        f'<article class="pl-candidate pl-is-{one.state}" data-host aria-label="{escape(one.id)}">'
        f'<p class="pl-facts"><span class="pl-badge pl-is-{one.state}">{escape(state)}</span> '
        f'<span class="pl-code">{escape(one.id)}</span></p>'
        f'<p class="pl-facts">{lines}</p>{_trouble(one, language)}{_gates(one, language)}'
        f"{_verbs(one, share, language, trial=trial, can_roll_back=can_roll_back)}</article>"
    )


def _votes(one: Candidate, language: Language) -> str:
    return say(
        language,
        "train_votes",
        share=f"{one.share:.0%}",
        up=one.votes[0],
        down=one.votes[1],
        up_live=one.votes_live[0],
        down_live=one.votes_live[1],
    )


def _trouble(one: Candidate, language: Language) -> str:
    """What is broken, and what stands against promoting it that no row of the table says."""
    if one.error:
        return f'<p class="pl-warning" lang="en">{escape(one.error)}</p>'
    if one.state not in ("candidate", "rolled_back", "previous") or not one.blockers:
        return ""
    rows = tuple(f"{gate.name}:" for gate in one.gates if not gate.passed)
    others = [line for line in one.blockers if not line.startswith(rows)] if rows else one.blockers
    items = "".join(f'<li lang="en">{escape(line)}</li>' for line in others)
    words = escape(say(language, "train_blocked"))
    return f'<p class="pl-facts pl-caution">{words}</p>' + (
        f'<ul class="pl-remarks">{items}</ul>' if items else ""
    )


def _verbs(
    one: Candidate, share: float, language: Language, *, trial: bool, can_roll_back: bool
) -> str:
    shown: list[tuple[str, str, str, bool]] = []
    percent = f"{share:.0%}"
    promotable = one.state not in ("live", "broken") and not one.blockers
    if promotable:
        sure = say(language, "train_promote_sure", id=one.id)
        shown.append(("promote", say(language, "train_promote"), sure, False))
    if promotable and one.state != "canary" and not trial:
        sure = say(language, "train_canary_sure", id=one.id, share=percent)
        shown.append(("canary", say(language, "train_canary", share=percent), sure, False))
    if one.state == "canary":
        sure = say(language, "train_end_canary_sure", id=one.id)
        shown.append(("end_canary", say(language, "train_end_canary"), sure, True))
    if one.state == "live" and can_roll_back:
        sure = say(language, "train_rollback_sure", id=one.id)
        shown.append(("rollback", say(language, "train_rollback"), sure, True))
    if not shown:
        return ""
    openers = "".join(
        button(f"open-{name}", label, classes="pl-framed", data={"target": one.id})
        for name, label, _, _ in shown
    )
    forms = "".join(
        confirm(name, sure, "train_yes", language, one.id, danger=danger)
        for name, _, sure, danger in shown
    )
    return f'<div class="pl-verbs"><div class="pl-row">{openers}</div>{forms}</div>'


# gates --------------------------------------------------------------------------------------------


def _gates(one: Candidate, language: Language) -> str:
    if not one.gates:
        words = say(language, "train_ungated")
        return "" if one.error else f'<p class="pl-facts"><small>{escape(words)}</small></p>'
    names = ("train_gate", "train_verdict", "train_value", "train_within", "train_bound")
    head = "".join(f'<th scope="col">{escape(say(language, name))}</th>' for name in names)
    head += f'<th scope="col">{escape(say(language, "train_rows"))}</th>'
    rows = "".join(_gate(gate, language) for gate in one.gates)
    passed = sum(gate.passed for gate in one.gates)
    words = escape(say(language, "train_passed", passed=passed, n=len(one.gates)))
    unfolded = " open" if one.state == "candidate" and passed < len(one.gates) else ""
    return (
        f'<details class="pl-fold pl-fold-{_UNSAFE.sub("-", one.id)}"{unfolded}><summary>{words}'
        f'</summary><div class="pl-wide" tabindex="0" role="group" aria-label="{words}">'
        f'<table class="pl-gates"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        f"</details>"
    )


def _gate(gate: GateRow, language: Language) -> str:
    kind = "passed" if gate.passed else "unknown" if gate.value is None else "failed"
    # the numbers say the same in both languages; the sentence says why where they do not
    why = "" if gate.passed and gate.value is not None else gate.reason
    told = f'<small lang="en">{escape(why)}</small>' if why else ""
    within = ""
    if gate.low is not None and gate.high is not None:
        within = f"{_written(gate, gate.low)} … {_written(gate, gate.high)}"
    return (
        f'<tr class="pl-is-{kind}"><th scope="row">{escape(_name(gate.name, language))}{told}</th>'
        f'<td><span class="pl-verdict pl-is-{kind}">'
        f"{escape(say(language, f'train_gate_{kind}'))}</span></td>"
        f"<td>{'–' if gate.value is None else _written(gate, gate.value)}</td><td>{within}</td>"
        f"<td>{escape(_bound(gate))}</td><td>{f'{gate.n:,}' if gate.n else ''}</td></tr>"
    )


def _name(name: str, language: Language) -> str:
    if name.startswith("safety."):
        rule = name.removeprefix("safety.")
        return say(language, "train_gate_rule", rule=known(language, f"category_{rule}", rule))
    return known(language, f"train_gate_{name}", name)


def _written(gate: GateRow, value: float) -> str:
    base = gate.name.split(".")[0]
    form = "+.3f" if base in _CHANGES else ".2f" if base in _COARSE else ".3f"
    return format(value, form).replace("-", "−")


def _bound(gate: GateRow) -> str:
    least = "" if gate.least is None else _written(gate, gate.least)
    most = "" if gate.most is None else _written(gate, gate.most)
    if least and most:
        return f"{least} … {most}"
    return f"≥ {least}" if least else f"≤ {most}" if most else ""


def _decisions(found: Sequence[Decided], language: Language, now: float | None) -> str:
    if not found:
        return ""
    rows = ""
    for one in found:
        action = known(language, f"train_action_{one.action}", one.action)
        by = say(language, "train_by", who=one.who)
        facts = f"{ago(language, one.at, now)} · {by}"
        why = f'<small lang="en">{escape(one.reason)}</small>' if one.reason else ""
        rows += (
            f'<li>{escape(action)} <span class="pl-code">{escape(one.candidate)}</span>'
            f"<small>{escape(facts)}</small>{why}</li>"
        )
    words = escape(say(language, "train_decisions", n=len(found)))
    return (
        f'<details class="pl-fold pl-fold-decisions"><summary>{words}</summary>'
        f'<ul class="pl-list">{rows}</ul></details>'
    )


# blind picks --------------------------------------------------------------------------------------


def blind(pair: Pair | None, lot: Lot | None, left: int, language: Language, note: str = "") -> str:
    """Two answers side by side, in the order that `lot` says, and three buttons."""
    heading = f'<h3 class="pl-heading">{escape(say(language, "train_blind"))}</h3>'
    if pair is None or lot is None:
        empty = f'<p class="pl-empty">{escape(say(language, "train_blind_none"))}</p>'
        return page(f'<section class="pl-sheet">{heading}{note}{empty}</section>')
    answers = (pair.old, pair.new) if lot.first == "old" else (pair.new, pair.old)
    names = (("compare_left", "pick_left"), ("compare_right", "pick_right"))
    sides = "".join(
        _side(answer, say(language, name), say(language, pick), pair, lot, value)
        for value, (answer, (name, pick)) in enumerate(zip(answers, names, strict=True))
    )
    equal = button(
        "judge",
        say(language, "pick_equal"),
        classes="pl-framed",
        data={"target": pair.id, "token": lot.token, "value": -1},
    )
    lead = escape(say(language, "train_blind_lead", id=pair.candidate))
    rest = escape(count(language, "train_blind_left", left))
    spoken = escape(pair.language)
    return page(
        f'<section class="pl-sheet">{heading}{note}'
        f'<p class="pl-facts"><small>{lead} {rest}</small></p>'
        f'<div class="pl-question" tabindex="-1" lang="{spoken}">{escape(pair.question)}</div>'
        f'<div class="pl-sides">{sides}</div><div class="pl-row pl-equal">{equal}</div></section>'
    )


def _side(answer: Answer, name: str, pick: str, pair: Pair, lot: Lot, value: int) -> str:
    quoted = "".join(
        f'<li><span class="pl-cite">{one.number}</span><span><strong>{escape(one.title)}</strong> '
        f"{escape(one.quote)}</span></li>"
        for one in answer.evidence
    )
    data = {"target": pair.id, "token": lot.token, "value": value}
    choose = button("judge", pick, classes="pl-main", data=data)
    numbers = {one.number for one in answer.evidence}
    return (
        f'<section class="pl-side" aria-label="{escape(name)}"><h4>{escape(name)}</h4>'
        f'<div class="pl-text" lang="{escape(pair.language)}"><p>{_cited(answer.text, numbers)}</p>'
        f"</div>"
        + (f'<ul class="pl-quoted" lang="{escape(pair.language)}">{quoted}</ul>' if quoted else "")
        + f'<div class="pl-row">{choose}</div></section>'
    )


def _cited(text: str, numbers: set[int]) -> str:
    """The text as words only, with the marks of its evidence as on the other page."""

    def mark(found: re.Match[str]) -> str:
        number = int(found[1])
        return f'<span class="pl-cite">{number}</span>' if number in numbers else found[0]

    return _MARK.sub(mark, escape(text).strip()).replace("\n", "<br>")
