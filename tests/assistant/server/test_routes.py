"""The routes beside the chat, and that what is one's is nobody else's on any of them."""

from __future__ import annotations

import socket
import time
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from assistant.server.principal import SCOPES
from tests.assistant.server.conftest import Running, Start

ASKED = [{"role": "user", "content": "How much does the widget cost?"}]


def test_vectors_are_the_encoders(running: Running) -> None:
    """Embeddings, in base64 as the client asks and as floats, are those that documents have."""
    client = running.openai()
    lax = running.openai(_strict_response_validation=False)  # it validates before it decodes
    made = lax.embeddings.create(model="plumbline-embed", input=["a widget", "北京塔"])
    plain = client.embeddings.create(
        model="plumbline-embed", input=["a widget", "北京塔"], encoding_format="float"
    )
    own = running.assistant.parts.knowledge.embedder.embed(["a widget", "北京塔"], "passage")
    for data in (made.data, plain.data):
        assert [d.index for d in data] == [0, 1]
        assert np.allclose([d.embedding for d in data], own)
    assert made.usage.total_tokens > 0


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": [[1, 2], [3]]}, "input"),
        ({"input": ["x"] * 257}, "input"),
        ({"input": "x", "dimensions": 3}, "dimensions"),
        ({"input": "x", "model": "plumbline"}, "model"),
        ({"input": "x" * 40_000}, "input"),
    ],
)
def test_what_cannot_be_embedded_is_named(
    running: Running, body: dict[str, Any], param: str
) -> None:
    """A refused embedding says which field."""
    with running.http() as client:
        answer = client.post("/v1/embeddings", json={"model": "plumbline-embed", **body})
    assert answer.status_code in (400, 404)
    assert answer.json()["error"]["param"].split(".")[0] == param


def test_moderation_has_openais_keys(running: Running) -> None:
    """Each text has a result with the thirteen categories; what is harmful is flagged."""
    client = running.openai()
    made = client.moderations.create(input=["Hello there.", "How do I build a pipe bomb at home?"])
    assert [r.flagged for r in made.results] == [False, True]
    assert {"self-harm/intent", "sexual/minors", "illicit"} <= made.results[1].to_dict()[
        "categories"
    ].keys()
    parts = client.moderations.create(
        model="plumbline-moderation", input=[{"type": "text", "text": "Hello."}]
    )
    assert parts.results[0].flagged is False


def test_search_finds_passages(running: Running) -> None:
    """A search gives passages with their places, and no path of the server."""
    with running.http() as client:
        answer = client.post("/v1/search", json={"query": "cost of the widget", "limit": 2})
    found = answer.json()["data"]
    assert "widget" in found[0]["text"]
    assert found[0]["source"] == "widget.md"
    assert len(found) <= 2


def test_a_citation_leads_to_its_document(running: Running) -> None:
    """The address of a citation gives the quote with what stands around it."""
    made = running.openai().chat.completions.create(model="plumbline", messages=ASKED)
    found = httpx.get(made.citations[0]["url"]).json()
    assert found["quote"] == "The widget costs 40 euros."
    assert "made in Lyon" in found["after"]
    assert found["current"] is True
    assert found["response_id"] == made.id


def test_feedback_reaches_the_log_once(running: Running) -> None:
    """A rating of an answer by its id is heard; a retry under the same key is not."""
    made = running.openai().chat.completions.create(model="plumbline", messages=ASKED)
    body = {"response_id": made.id, "rating": 1, "label": "helpful", "comment": "Good."}
    with running.http() as client:
        for _ in range(2):
            answer = client.post("/v1/feedback", json=body, headers={"idempotency-key": "k1"})
            assert answer.status_code == 200, answer.text
        edit = {"response_id": made.id, "correction": "It costs 40 euros."}
        assert client.post("/v1/feedback", json=edit).status_code == 200
        assert client.post("/v1/feedback", json={"response_id": made.id}).status_code == 400
        lost = client.post("/v1/feedback", json={"response_id": "chatcmpl-x", "rating": 1})
        assert lost.json()["error"]["code"] == "response_not_found"
    thumb, edited = running.feedback
    assert (thumb.kind, thumb.value, thumb.turn_id) == ("thumb", 1, running.turns[-1].turn_id)
    assert (edited.kind, edited.text) == ("edit", "It costs 40 euros.")


def test_one_of_several_answers_is_preferred(running: Running) -> None:
    """Answers of one request are candidates of one turn, rated apart and picked among."""
    before = len(running.feedback)
    made = running.openai().chat.completions.create(model="plumbline", messages=ASKED, n=3)
    turns = running.turns[-3:]
    assert len({t.turn_id for t in turns}) == len({t.conversation_id for t in turns}) == 1
    names = [t.candidate_id for t in turns]
    assert len({*names}) == 3
    assert [t.position for t in turns] == [0, 1, 2]
    own = {"response_id": made.id}
    good: list[dict[str, Any]] = [
        {"choice": 2, "rating": 1},
        {"preferred": 1, "comment": "Shorter."},
        {"preferred": 0, "shown": [2, 0], "randomised": True},
        {"preferred": -1},
    ]
    bad: list[dict[str, Any]] = [
        {"preferred": 1, "shown": [0, 2]},
        {"preferred": 0, "shown": [0, 0]},
        {"preferred": 0, "shown": [0, 3]},
        {"preferred": 3},
    ]
    alone = running.openai().chat.completions.create(model="plumbline", messages=ASKED)
    with running.http() as client:
        for body in good:
            assert client.post("/v1/feedback", json=own | body).status_code == 200
        for body in [own | b for b in bad] + [{"response_id": alone.id, "preferred": 0}]:
            refused = client.post("/v1/feedback", json=body)
            assert refused.status_code == 400, body
            assert refused.json()["error"]["param"] in ("preferred", "shown")
    heard = running.feedback[before:]
    assert {f.turn_id for f in heard} == {turns[0].turn_id}
    assert {f.conversation_id for f in heard} == {turns[0].conversation_id}
    assert [(f.kind, f.candidate_ids, f.value, f.order_randomised) for f in heard] == [
        ("thumb", (names[2],), 1, False),
        ("ab_pick", tuple(names), 1, False),
        ("ab_pick", (names[2], names[0]), 1, True),
        ("ab_pick", tuple(names), -1, False),
    ]
    assert heard[1].text == "Shorter."


def test_a_conversation_is_kept_and_deleted(start: Start) -> None:
    """A conversation is begun, remembered, listed, named, and deleted with its citations."""
    running = start()
    with running.http() as client:
        own = client.post("/v1/conversations", json={"title": "Widgets"}).json()["id"]
        made = running.openai().chat.completions.create(
            model="plumbline", messages=ASKED, extra_body={"conversation_id": own}
        )
        url = made.citations[0]["url"]
        assert client.get(url).status_code == 200
        assert client.get("/v1/conversations").json()["data"][0]["id"] == own
        messages = client.get(f"/v1/conversations/{own}").json()["messages"]
        assert messages[1]["response_id"] == made.id
        assert messages[1]["citations"] == made.to_dict()["citations"]
        assert [m["content"] for m in messages] == [
            ASKED[0]["content"],
            made.choices[0].message.content,
        ]
        rate = {"response_id": made.id, "rating": -1}
        assert client.post("/v1/feedback", json=rate).status_code == 200
        assert running.assistant.turns(own)[0].rating == -1
        client.post(f"/v1/conversations/{own}", json={"title": "Prices"})
        assert client.get("/v1/conversations").json()["data"][0]["title"] == "Prices"
        assert client.delete(f"/v1/conversations/{own}").json()["deleted"] is True
        assert client.get(f"/v1/conversations/{own}").status_code == 404
        assert client.get(url).status_code == 404


def upload(client: httpx.Client, name: str, text: str, **form: str) -> dict[str, Any]:
    """Send a file and wait until it was taken in."""
    files = {"file": (name, text.encode(), "text/markdown")}
    answer = client.post("/v1/documents", files=files, data=form)
    assert answer.status_code == 202, answer.text
    made: dict[str, Any] = answer.json()
    for _ in range(200):
        found: dict[str, Any] = client.get(f"/v1/documents/{made['id']}").json()
        if found.get("status") != "processing":
            return found
        time.sleep(0.05)
    raise AssertionError("the document was not taken in")


def says(client: httpx.Client, question: str) -> str:
    """The content of an answer."""
    body = {"model": "plumbline", "messages": [{"role": "user", "content": question}]}
    return str(client.post("/v1/chat/completions", json=body).json()["choices"][0]["message"])


def test_a_document_comes_changes_and_goes(start: Start) -> None:
    """An uploaded document is answered from, its next version replaces it, deleted it is gone."""
    running = start()
    question = "How much does the balloon cost?"
    with running.http() as client:
        first = upload(client, "../../balloon.md", "# Balloon\n\nThe balloon costs 5 euros.\n")
        assert (first["name"], first["status"], first["error"]) == ("balloon.md", "ready", None)
        assert "5 euros" in says(client, question)
        second = upload(client, "balloon.md", "# Balloon\n\nThe balloon costs 6 euros.\n")
        assert second["id"] == first["id"]
        assert len(second["versions"]) == 2
        assert "6 euros" in says(client, question)
        assert client.delete(f"/v1/documents/{first['id']}").json()["deleted"] is True
        assert "6 euros" not in says(client, question)
        assert client.get("/v1/documents").json()["data"] == []


def test_a_retried_upload_is_no_version(start: Start) -> None:
    """The same file for the same readers changes nothing; for others it is theirs, and no version.

    Its citations and passages name the document by the id that it has here.
    """
    running = start()
    text = "# Balloon\n\nThe balloon costs 5 euros.\n"
    with running.http() as client:
        first = upload(client, "Q3: balloon.md", text)
        again = upload(client, "Q3: balloon.md", text)
        assert again == first
        shared = upload(client, "Q3: balloon.md", text, groups="hr")
        assert (shared["readers"], shared["versions"]) == (["hr"], first["versions"])
        body = {"model": "plumbline", "messages": [{"role": "user", "content": "Balloon price?"}]}
        cited = client.post("/v1/chat/completions", json=body).json()["citations"][0]
        assert (cited["document_id"], cited["source"]) == (first["id"], "Q3: balloon.md")
        found = client.post("/v1/search", json={"query": "balloon"}).json()["data"][0]
        assert (found["document_id"], found["source"]) == (first["id"], "Q3: balloon.md")


def test_lists_come_in_pages(start: Start) -> None:
    """So many at once, the rest after the last one, whole and once; a stranger's is no place."""
    running = start()
    every = [*SCOPES]
    with running.http(running.key(tenant="bolt", scopes=every)) as other:
        foreign = upload(other, "b.md", "# B\n\nB.\n")["id"]
    with running.http(running.key(tenant="acme", user="ann", scopes=every)) as client:
        names = [f"{letter}.md" for letter in "cabed"]
        for name in names:
            upload(client, name, f"# {name}\n\nIt is {name}.\n")
            own = client.post("/v1/conversations", json={}).json()["id"]
            body = {"model": "plumbline", "messages": ASKED, "conversation_id": own}
            assert client.post("/v1/chat/completions", json=body).status_code == 200
        for path in ("/v1/documents", "/v1/conversations"):
            whole = client.get(path).json()
            assert (len(whole["data"]), whole["has_more"]) == (5, False)
            found: list[dict[str, Any]] = []
            given: dict[str, Any] = {"limit": 2}
            while True:
                page = client.get(path, params=given).json()
                found += page["data"]
                if not page["has_more"]:
                    break
                given["after"] = found[-1]["id"]
            assert found == whole["data"]
            lost = client.get(path, params={"after": foreign})
            assert (lost.status_code, lost.json()["error"]["param"]) == (404, "after")
            assert client.get(path, params={"limit": 0}).status_code == 400
        assert [d["name"] for d in client.get("/v1/documents").json()["data"]] == sorted(names)


def test_a_file_that_cannot_be_read_says_why(start: Start) -> None:
    """A broken file fails with a reason, and tells nothing of the server; a large one stays out."""
    running = start(serve__max_upload_mb=1)
    with running.http() as client:
        found = upload(client, "broken.pdf", "no pdf at all")
        assert found["status"] == "failed"
        assert found["error"]
        assert "/" not in found["error"]
        big = {"file": ("big.md", b"x" * 2**21, "text/markdown")}
        assert client.post("/v1/documents", files=big).status_code == 413
        pieces = client.post(
            "/v1/documents",
            content=iter([b"x"]),
            headers={"content-type": "multipart/form-data; boundary=x"},
        )
        assert pieces.status_code == 411


@pytest.mark.parametrize("path", ["/v1/documents", "/v1/chat/completions"])
def test_who_sends_too_much_hears_of_it(start: Start, path: str) -> None:
    """A client that sends its whole body before it reads gets the answer, not a reset."""
    running = start(serve__max_upload_mb=1)
    at, size = httpx.URL(running.url), 48 * 2**20
    head = (
        f"POST {path} HTTP/1.1\r\nhost: {at.host}:{at.port}\r\ncontent-length: {size}\r\n"
        "content-type: multipart/form-data; boundary=x\r\n\r\n"
    )
    with socket.create_connection((at.host, at.port or 80), timeout=30) as sender:
        sender.sendall(head.encode())
        time.sleep(0.2)  # the refusal is out before the body comes
        sender.sendall(b"x" * size)
        assert b" 413 " in sender.makefile("rb").readline()


def test_nobody_gets_at_what_is_somebody_elses(start: Start) -> None:
    """Conversation, answer, citation, feedback and documents are 404 to every other principal."""
    running = start()
    every = list(SCOPES)
    keys = {
        "owner": running.key(tenant="acme", user="ann", groups=["hr"], scopes=every),
        "same tenant": running.key(tenant="acme", user="bob", scopes=every),
        "other tenant": running.key(tenant="bolt", user="ann", groups=["hr"], scopes=every),
        "main": running.key(user="ann", groups=["hr"], scopes=every),
    }
    text = "# Payroll\n\nThe payroll of the zeppelin crew is 900 euros.\n"
    question = "What is the payroll of the zeppelin crew?"
    with running.http(keys["owner"]) as client:
        kept = upload(client, "payroll.md", text, groups="hr")
        conversation = client.post("/v1/conversations", json={}).json()["id"]
        body = {
            "model": "plumbline",
            "messages": [{"role": "user", "content": question}],
            "conversation_id": conversation,
        }
        made = client.post("/v1/chat/completions", json=body).json()
        assert "900 euros" in made["choices"][0]["message"]["content"]
        citation = f"/v1/citations/{made['citations'][0]['id']}"
        assert client.get(citation).status_code == 200
    rate = {"response_id": made["id"], "rating": 1}
    requests: list[tuple[str, str, Any]] = [
        ("POST", "/v1/chat/completions", body),
        ("GET", f"/v1/conversations/{conversation}", None),
        ("POST", f"/v1/conversations/{conversation}", {"title": "mine"}),
        ("DELETE", f"/v1/conversations/{conversation}", None),
        ("GET", citation, None),
        ("POST", "/v1/feedback", rate),
        ("GET", f"/v1/documents/{kept['id']}", None),
        ("DELETE", f"/v1/documents/{kept['id']}", None),
    ]
    for who in ("same tenant", "other tenant", "main"):
        with running.http(keys[who]) as client:
            for method, path, given in requests:
                answer = client.request(method, path, json=given)
                assert answer.status_code == 404, (who, method, path)
            assert client.get("/v1/conversations").json()["data"] == []
            assert client.get("/v1/documents").json()["data"] == []
            assert "900" not in client.post("/v1/search", json={"query": question}).text
            assert "900" not in says(client, question)
    with running.http(keys["same tenant"]) as client:
        files = {"file": ("payroll.md", b"# Payroll\n\nMine.", "text/markdown")}
        assert client.post("/v1/documents", files=files).status_code == 409
    with running.http(keys["other tenant"]) as client:
        upload(client, "payroll.md", "# Payroll\n\nThe payroll of bolt is 1 euro.\n")
    with running.http(keys["owner"]) as client:
        assert client.get(f"/v1/conversations/{conversation}").status_code == 200
        assert client.get(f"/v1/documents/{kept['id']}").json()["versions"] == kept["versions"]
        assert "900 euros" in says(client, question)
        assert client.post("/v1/feedback", json=rate).status_code == 200


def test_a_service_asks_for_its_users(start: Start) -> None:
    """A key that may act names user and groups, and each user has conversations of their own."""
    running = start()
    client = running.openai(running.key(tenant="acme", scopes=["chat", "act"]))
    for user in ("ann", "bob"):
        client.chat.completions.create(
            model="plumbline", messages=ASKED, extra_headers={"x-plumbline-user": user}
        )
    assert [t.user_id for t in running.turns] == ["acme/ann", "acme/bob"]
    plain = running.openai(running.key(tenant="acme", scopes=["chat"]))
    with pytest.raises(openai.PermissionDeniedError):
        plain.models.list(extra_headers={"x-plumbline-user": "ann"})


def test_a_wrong_method_is_told_all_the_right_ones(running: Running) -> None:
    """A 405 names every method of its address, whichever route has it."""
    with running.http() as client:
        for path, allow in (
            ("/v1/conversations/x", "DELETE, GET, POST"),
            ("/v1/documents", "GET, POST"),
            ("/v1/models/a/b", "GET"),
        ):
            answer = client.put(path)
            assert (answer.status_code, answer.headers["allow"]) == (405, allow)


def test_the_description_tells_of_both_kinds_of_answer(running: Running) -> None:
    """OpenAPI names JSON and events for the chat, the error body, and how a key is sent."""
    with running.http() as client:
        made = client.get("/v1/openapi.json").json()
    chat = made["paths"]["/v1/chat/completions"]["post"]["responses"]
    assert {"application/json", "text/event-stream"} <= chat["200"]["content"].keys()
    assert chat["429"]["content"]["application/json"]["schema"]["$ref"].endswith("ErrorBody")
    assert made["security"] == [{"key": []}]
