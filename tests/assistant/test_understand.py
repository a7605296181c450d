"""Tables of messages in both languages.

What is small talk, what is a correction, what leans on the turn before it, and what stands alone
although a careless gate would think otherwise.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from assistant.schema import Citation, PolicyCard, Reply, Turn, Understanding
from assistant.understand import follow_up, standalone, understand


def turn(text: str, query: str | None = None, language: str = "en", *titles: str) -> Turn:
    """Make a turn that asked `text`, searched `query`, and cited documents of these titles."""
    cited = tuple(
        Citation(n, n, n, f"{n}.md", title, (), "q", 0, 1, True, "v", 0.0, 0.0, 1.0)
        for n, title in enumerate(titles, start=1)
    )
    reply = Reply(
        turn_id="t",
        candidate_id="c",
        conversation_id="v",
        text="An answer.",
        outcome="answered",
        language=language,
        citations=cited,
        passages=(),
        verdicts=(),
        steps=(),
        understanding=Understanding("question", query or text, False, language, ""),
        policy=PolicyCard("double", "double"),
        confidence=None,
        seconds=0.0,
    )
    return Turn("t", "v", text, reply, 0.0)


WIDGET = turn("How much does the Widget battery cost?")
TOWER = turn("北京塔的门票多少钱？", None, "zh")


def before(text: str) -> Turn:
    """Return a turn in the language of `text`."""
    return TOWER if any("\u4e00" <= c <= "\u9fff" for c in text) else WIDGET


SOCIAL = {
    "greeting": [
        "hi",
        "Hi!",
        "hello there",
        "Hi, there!",
        "Hello plumbline",
        "Good morning!",
        "Hi 👋",
        "hello, how are you?",
        "你好",
        "您好！",
        "你好呀！",
        "嗨！你好",
        "你好吗？",
        "在吗？",
        "大家好",
        "早上好。",
    ],
    "thanks": [
        "thanks",
        "Thank you so much!",
        "ok thanks",
        "Great, thank you.",
        "got it, thanks",
        "thanks for your help",
        "谢谢",
        "谢谢你！",
        "好的，谢谢",
        "明白了，谢谢",
        "谢谢您的帮助",
        "非常感谢！",
        "謝謝",
    ],
    "farewell": ["bye", "Goodbye!", "Thanks, bye", "see you later", "再见", "谢谢，再见！", "晚安"],
    "capability": [
        "who are you?",
        "Hello, who are you?",
        "What can you do?",
        "help",
        "How do you work?",
        "你是谁？",
        "你好，你是谁？",
        "你能做什么",
        "你可以帮我做什么？",
        "你会什么？",
        "你有什么功能？",
    ],
}


@pytest.mark.parametrize(
    ("intent", "text"), [(intent, text) for intent, texts in SOCIAL.items() for text in texts]
)
def test_small_talk_is_not_searched(intent: str, text: str) -> None:
    """A message of nothing but greeting, thanks, farewell or "who are you" searches nothing."""
    found = [understand(text, history) for history in ([], [before(text)])]
    assert [(u.intent, u.query) for u in found] == [(intent, "")] * 2


@pytest.mark.parametrize(
    "text",
    [
        "Hello world 程序怎么写？",
        "Hello, how do I add documents?",
        "hi how much is the fee",
        "hi-fi speakers price",
        "Hey Jude was written by whom?",
        "Good morning America host",
        "thanks to whom was the bridge built?",
        "Thanksgiving opening hours",
        "Thanks, and how much does the museum cost?",
        "Goodbye Lenin director",
        "help me reset the password",
        "who are you allowed to share data with?",
        "What do you do when the battery is empty?",
        "what can you do with a widget?",
        "你好，如何添加文档？",
        "你好世界程序",
        "早上好是什么意思",
        "谢谢的英文怎么写？",
        "谢谢，年假几天？",
        "再见用英语怎么说",
        "帮助文档在哪里",
        "你是谁写的程序",
    ],
)
def test_a_question_that_starts_like_small_talk_is_searched(text: str) -> None:
    """Politeness before a question, or a question about the words, is a question."""
    found = understand(text, [])
    assert (found.intent, found.query) == ("question", text)


CORRECTIONS = [
    "that's wrong",
    "That is not right.",
    "no, that's wrong",
    "No",
    "wrong",
    "Wrong answer!",
    "not true",
    "you are wrong",
    "I think that's wrong",
    "I don't think that's right",
    "Sorry, but that's wrong",
    "that doesn't look right",
    "That's not what I asked",
    "are you sure?",
    "不对",
    "不对！",
    "不对吧",
    "这不对",
    "这个不对",
    "你错了",
    "你说错了",
    "你搞错了吧",
    "回答错误",
    "我觉得不对",
    "答非所问",
    "不是这样的",
    "你确定吗",
    "不是",
]


@pytest.mark.parametrize("text", CORRECTIONS)
def test_a_correction_searches_the_same_question_again(text: str) -> None:
    """Told of a mistake, the previous question is asked anew and nothing is added to it."""
    asked = before(text)
    found = understand(text, [asked])
    assert (found.intent, found.query) == ("correction", asked.reply.understanding.query)


@pytest.mark.parametrize("text", CORRECTIONS)
def test_without_a_question_before_there_is_nothing_to_correct(text: str) -> None:
    """The same words as a first message are searched like any others."""
    assert understand(text, []).intent == "question"


@pytest.mark.parametrize(
    ("text", "new"),
    [
        ("That is wrong, I meant the 2025 edition", ["2025", "edition"]),
        ("no, the blue one", ["blue"]),
        ("不对，是2025年的", ["2025"]),
        ("不是，我问的是学生票", ["学生票"]),
        ("不对，应该是上海塔", ["上海"]),
    ],
)
def test_what_a_correction_adds_is_searched_too(text: str, new: list[str]) -> None:
    """Old question and new words go together, without the words of the complaint."""
    asked = before(text)
    found = understand(text, [asked])
    held = [word in found.query for word in (asked.user_text, *new)]
    noise = [word in found.query for word in ("wrong", "meant", "不对", "应该", "问的")]
    assert (found.intent, all(held), any(noise)) == ("correction", True, False)


@pytest.mark.parametrize(
    "text",
    [
        "What is wrong with the pump?",
        "Wrongful death law",
        "Incorrect PIN lockout: after how many attempts?",
        "False alarms: how many?",
        "Are you sure-footed on ice?",
        "What does 'not true' mean in logic?",
        "Which answer is incorrect in the quiz?",
        "No. 5 perfume price",
        "不对称加密是什么？",
        "不正确的密码会怎样？",
        "不对外开放的展馆有哪些？",
        "错了怎么办理退款？",
        "不是本地人可以申请吗？",
    ],
)
def test_a_question_about_mistakes_is_no_correction(text: str) -> None:
    """The words of a complaint inside a question complain of nothing."""
    found = understand(text, [before(text)])
    assert (found.intent, found.query) == ("question", text)


FOLLOW_UPS = [
    "and in version 3?",
    "why?",
    "Why not?",
    "But why?",
    "What about on Windows?",
    "how about the blue one",
    "How long does it last?",
    "Does it float?",
    "Is it safe for children?",
    "is it possible to recharge it?",
    "HOW LONG DOES IT LAST",
    "who made it?",
    "What is its weight?",
    "Who owns them?",
    "How many legs do they have?",
    "What makes them float?",
    "What else?",
    "any other colours?",
    "tell me more",
    "Give me an example",
    "What does that mean?",
    "Which one is cheaper?",
    "What is the difference between the two?",
    "How much for students?",
    "How long does it take?",
    "What is the price?",
    "in 1999?",
    "3.4?",
    "and how to remove them",
    "那它多少钱？",
    "为什么？",
    "为什么呢",
    "那北京呢？",
    "北京呢",
    "学生票呢？",
    "它支持中文吗",
    "他是谁？",
    "他们几点开门？",
    "其高度是多少？",
    "前者便宜吗",
    "这个怎么用",
    "那里冷吗？",
    "多高？",
    "在哪里？",
    "什么时候建的？",
    "可以退吗？",
    "然后呢",
    "还有别的吗",
    "具体说说",
    "能举个例子吗",
    "那么上海呢？",
    "Windows 呢？",
]


@pytest.mark.parametrize("text", FOLLOW_UPS)
def test_a_follow_up_carries_its_topic(text: str) -> None:
    """A message that leans on the question before is searched with that question's topic."""
    asked = TOWER if text == "Windows 呢？" else before(text)
    topic = "塔" if asked is TOWER else "Widget"
    found = understand(text, [asked])
    got = (found.intent, found.rewritten, found.query.startswith(text), topic in found.query)
    assert got == ("question", True, True, True)


@pytest.mark.parametrize("text", FOLLOW_UPS)
def test_a_first_message_follows_nothing(text: str) -> None:
    """Without a question before, the words are searched as typed."""
    found = understand(text, [])
    assert (found.query, found.rewritten) == (text, False)


STANDALONE = [
    "Is it possible to export the preferences as JSON?",
    "Is it safe to charge a phone overnight?",
    "Is it legal to record phone calls in Germany?",
    "is it worth upgrading to version 3 of the Gadget?",
    "It is necessary to register a bicycle in Lyon?",
    "How important is it to back up the database?",
    "How long does it take to fly to Paris?",
    "Does it matter which encoder is used?",
    "Will it rain in Lyon tomorrow?",
    "What time is it in Tokyo?",
    "What is it like to live in Iceland?",
    "What is IT support?",
    "What is Photoshop?",
    "How tall is Everest?",
    "How long is the Nile?",
    "Who wrote The Origin of Species?",
    "Where can employees find their payslips?",
    "How do bees find their hive?",
    "What happens if a customer loses their card?",
    "What did Marie Curie win her second Nobel Prize for?",
    "Which tools such as hammers need a permit?",
    "Order status page location",
    "Android or iOS security updates: how long?",
    "Socrates was born in which city?",
    "Software licence renewal",
    "More than how many employees require a works council?",
    "Is there a museum in Lyon?",
    "reset password",
    "其中一个数据库的上限是多少？",
    "其他支付方式有哪些？",
    "其它费用如何报销？",
    "其实长城有多长？",
    "其余员工怎么申请年假？",
    "应该如何报销差旅费？",
    "年假应该提前几天申请？",
    "他人的个人信息可以公开吗？",
    "此外还有哪些假期规定？",
    "因此事件的死亡人数是多少？",
    "尤其适合儿童的展览是什么？",
    "土耳其的首都是哪里？",
    "马耳他的官方语言是什么？",
    "吉他有几根弦？",
    "那不勒斯是哪个国家的城市？",
    "那英是哪里人？",
    "再生能源有哪些？",
    "而立之年是多少岁？",
    "具体行政行为是什么？",
    "还有三天假期怎么请？",
    "另外收费的项目有哪些？",
    "然后的英文怎么写？",
    "这个月的工资什么时候发？",
    "什么是光合作用？",
    "长城有多长？",
    "呢子大衣怎么洗？",
    "李白为什么被流放呢？",
    "重置密码",
]


@pytest.mark.parametrize("text", STANDALONE)
def test_a_question_with_its_own_topic_stays_as_typed(text: str) -> None:
    """An expletive "it", or a character of a longer word, points at nothing."""
    found = understand(text, [before(text)])
    assert (found.query, found.rewritten, found.reason) == (text, False, "stands alone")


def test_a_long_message_brings_its_topic_with_it() -> None:
    """A pasted page is no follow-up however many pronouns are in it, and takes no time."""
    text = "a dog and they lost it. " * 2000
    assert understand(text, [WIDGET]).rewritten is False


def test_a_pronoun_stands_for_what_the_answer_was_about() -> None:
    """Of the previous question only the words that the cited document is named by are carried."""
    asked = turn("How much does the Widget battery cost?", None, "en", "Widget manual")
    assert standalone("Who made it?", asked) == "Who made it? Widget"


def test_an_elliptic_follow_up_takes_the_whole_question_over() -> None:
    """What is left out is everything that is not said anew."""
    asked = turn("How much does the Widget battery cost?", None, "en", "Widget manual")
    got = standalone("and the Gadget battery?", asked)
    assert got == "and the Gadget battery? much Widget cost"


def test_why_takes_the_whole_question_over() -> None:
    """A question without a word of its own asks about all of the one before."""
    asked = turn("How much does the Widget battery cost?", None, "en", "Widget manual")
    assert standalone("Why?", asked) == "Why? much Widget battery cost"


def test_a_word_is_not_searched_twice() -> None:
    """What the follow-up says itself is not carried over again."""
    got = standalone("And what does the widget weigh?", WIDGET)
    assert got.lower().count("widget") == 1


def test_carried_words_stay_apart_or_together_as_they_were() -> None:
    """Latin words are not run together, and a Chinese name is not torn apart."""
    asked = turn("GPT mini 北京塔的高", None, "zh")
    assert standalone("它多少钱？", asked).split() == ["它多少钱？", "GPT", "mini", "北京塔", "高"]


@pytest.mark.parametrize(
    ("first", "chain", "topic", "gone"),
    [
        (WIDGET, ["and in version 3?", "and in version 4?"], "Widget", "3"),
        (WIDGET, ["What about on Windows?", "why?"], "Windows", "\0"),
        (WIDGET, ["Does it float?", "How long does it last?"], "Widget", "\0"),
        (TOWER, ["那上海塔呢？", "那广州塔呢？"], "门票", "上海"),
        (TOWER, ["那上海塔呢？", "为什么？"], "上海", "\0"),
        (TOWER, ["它有多高？", "它是谁建的？"], "北京塔", "\0"),
    ],
)
def test_a_follow_up_of_a_follow_up(first: Turn, chain: list[str], topic: str, gone: str) -> None:
    """The topic survives two follow-ups; what a second ellipsis replaces does not come back."""
    asked = first
    for text in chain:
        found = understand(text, [asked])
        asked = turn(text, found.query, found.language)
    got = (found.query.startswith(chain[-1]), topic in found.query, gone in found.query)
    assert got == (True, True, False)


def test_small_talk_in_between_does_not_lose_the_question() -> None:
    """After a thank-you, the last question is still the one followed up."""
    thanks = turn("thanks")
    reply = replace(thanks.reply, understanding=Understanding("thanks", "", False, "en", ""))
    found = understand("and in version 3?", [WIDGET, replace(thanks, reply=reply)])
    assert found.query == "and in version 3? much Widget battery cost"


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("3.4?", "zh"),
        ("2025", "zh"),
        ("？", "zh"),
        ("Windows 呢？", "zh"),
        ("那 PostgreSQL 呢", "zh"),
        ("What is Windows?", "en"),
    ],
)
def test_a_message_of_digits_keeps_the_language(text: str, language: str) -> None:
    """In a Chinese conversation only an English sentence is answered in English."""
    assert understand(text, [TOWER]).language == language


@pytest.mark.parametrize(
    ("text", "tongue", "language"),
    [
        ("How tall?", "zh", "zh"),
        ("多高？", "en", "en"),
        ("How tall?", "auto", "en"),
        ("多高？", "auto", "zh"),
    ],
)
def test_a_language_that_was_chosen_is_kept(text: str, tongue: str, language: str) -> None:
    """The setting decides; "auto" decides by the script."""
    assert understand(text, [], tongue).language == language


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("and in version 3?", "opens like a follow-up"),
        ("Does the battery of it last?", "a pronoun points back"),
        ("Price?", "too few words to stand alone"),
        ("What is the capital of France?", "stands alone"),
    ],
)
def test_the_gate_gives_its_reason(text: str, reason: str) -> None:
    """The panel shows why a message was taken for a follow-up."""
    gate = follow_up(text)
    assert (gate.reason, gate.follow_up) == (reason, reason != "stands alone")


@pytest.mark.parametrize("text", ["", "   ", "?", "…", "\n", "🙂", "\x00"])
def test_a_message_without_words_is_still_a_question(text: str) -> None:
    """Nothing said is no crash and no small talk."""
    assert [understand(text, h).intent for h in ([], [WIDGET])] == ["question", "question"]
