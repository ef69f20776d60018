"""What a person may see of texts that hold secrets."""

import base64
import html
import json
import random
import re
from typing import Any
from urllib.parse import quote

import pytest

from reloader.mask import MASK, Mask, masked_diff
from reloader.snapshot import Reading

NOTHING = Mask({})


def mask_of(*values: Any) -> Mask:
    """Return the mask of one secret reading for each value."""
    return Mask({f"s{n}": Reading(value=value, at=0, secret=True) for n, value in enumerate(values)})


def test_only_secret_readings_are_hidden() -> None:
    """A route is for everybody."""
    readings = {"db": Reading(value={"password": "hunter2"}, at=0, secret=True), "routes": Reading(value={"a": "backend"}, at=0)}
    assert Mask(readings).text("password hunter2 backend") == f"password {MASK} backend"


@pytest.mark.parametrize(
    ("value", "text", "shown"),
    [
        ("hunter2", "xhunter2y", f"x{MASK}y"),
        ({"a": [{"b": ["hunter2"]}]}, "hunter2", MASK),
        ({"pin": 12345}, "pin=12345", f"pin={MASK}"),
        ({"on": True, "off": None}, "True None", "True None"),
        (b"hunter2", "hunter2", MASK),
        ("first line\nsecond line\n", "a first line b second line", f"a {MASK} b {MASK}"),
        ("first line\nsecond line\n", "  first line\n  second line", f"  {MASK}\n  {MASK}"),
        ("hunter2\n", "[hunter2]", f"[{MASK}]"),
        ("  hunter2  ", "[hunter2]", f"[{MASK}]"),
        ({"a": "abcdef", "b": "defghi"}, "abcdefghi", MASK),
        ({"a": "abcd", "b": "abcdef"}, "abcdef", MASK),
        ({"a": "aaaa"}, "aaaaaa", MASK),
        ({"a": "abcd", "b": "efgh"}, "abcdefgh", MASK),
        ({"a": "abc"}, "abc abcd (abc) xabc", f"{MASK} abcd ({MASK}) xabc"),
        ({"a": "x", "b": ""}, "x y", "x y"),
        ({"a.b*c": "k", "v": "a.b*c"}, "a.b*c aXbc", f"{MASK} aXbc"),
    ],
)
def test_secrets_are_found_wherever_they_stand(value: Any, text: str, shown: str) -> None:
    """Nested, in parts of lines, overlapping; three characters or fewer only as a word."""
    assert mask_of(value).text(text) == shown


NASTY = 'p@ss "wörd"<&>/+\\x'


@pytest.mark.parametrize(
    "form",
    [
        json.dumps(NASTY),
        json.dumps(NASTY, ensure_ascii=False),
        quote(NASTY),
        quote(NASTY, safe=""),
        html.escape(NASTY),
        base64.b64encode(NASTY.encode()).decode(),
        base64.urlsafe_b64encode(NASTY.encode()).decode().rstrip("="),
    ],
)
def test_secrets_are_known_in_the_forms_that_filters_give_them(form: str) -> None:
    """JSON, URL, HTML and base64."""
    assert mask_of(NASTY).text(f"<{form}>").strip('<">') == MASK


@pytest.mark.parametrize("before", ["", "a", "ab", "user:", "user:x"])
@pytest.mark.parametrize("after", ["", "z", "zz", "zzz"])
def test_a_secret_inside_of_base64_is_hidden_at_every_offset(before: str, after: str) -> None:
    """`user:password` of a basic authorisation."""
    secret = "correct-horse-battery"
    shown = mask_of(secret).text(base64.b64encode(f"{before}{secret}{after}".encode()).decode())
    prefix, found, suffix = shown.partition(MASK)
    assert found
    assert len(prefix) <= -(-len(before) * 8 // 6)
    assert len(suffix.rstrip("=")) <= -(-len(after) * 8 // 6) + 1


KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIcanary\nMIIcanary2\n-----END RSA PRIVATE KEY-----"


def test_private_keys_are_hidden_whoever_brought_them() -> None:
    """Also one that was cut at either end."""
    assert NOTHING.text(f"a\n{KEY}\nb") == f"a\n{MASK}\nb"
    assert NOTHING.text(f"a {json.dumps(KEY)} b") == f'a "{MASK}" b'
    assert NOTHING.text(f"a\n{KEY[:50]}") == f"a\n{MASK}"
    assert NOTHING.text(f"{KEY[40:]}\nb") == f"{MASK}\nb"
    assert NOTHING.text("-----BEGIN CERTIFICATE-----") == "-----BEGIN CERTIFICATE-----"


def diff(old: str, new: str, mask: Mask = NOTHING) -> list[str]:
    """Return the lines of the difference between two texts, without its heads."""
    return masked_diff({"f": old.encode()}, {"f": new.encode()}, mask).splitlines()[3:]


def test_a_diff_names_its_files_and_places() -> None:
    """As `diff -u` does."""
    old = {"same": b"x\n", "f": b"1\n2\n3\n4\n5\n6\n", "gone": b"a\n", "bin": b"\xff"}
    new = {"same": b"x\n", "f": b"1\n2\n3\n4\n5\nsix\n7\n", "new": b"b\n", "bin": b"\xfe"}
    assert masked_diff(old, new, NOTHING) == (
        "Binary file bin differs\n"
        "--- a/f\n+++ b/f\n@@ -3,4 +3,5 @@\n 3\n 4\n 5\n-6\n+six\n+7\n"
        "--- a/gone\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n"
        "--- /dev/null\n+++ b/new\n@@ -0,0 +1 @@\n+b\n"
    )
    assert masked_diff(new, new, NOTHING) == ""


def test_a_changed_secret_is_a_changed_line() -> None:
    """Though both look the same."""
    assert diff("user=a\npassword=old-one\n", "user=a\npassword=new-one\n", mask_of("new-one")) == [
        " user=a",
        f"-password={MASK}",
        f"+password={MASK}",
    ]


def test_an_unchanged_secret_is_hidden_in_the_context() -> None:
    """Unchanged lines are text of the new set."""
    assert diff("password=same-one\na\n", "password=same-one\nb\n", mask_of("same-one")) == [f" password={MASK}", f"-{MASK}", "+b"]


def test_a_removed_line_shows_what_stands_in_the_new_text() -> None:
    """An earlier secret is known to nobody, so everything else is hidden."""
    shown = diff("proxy_pass http://10.0.0.1:80;\n", "proxy_pass http://10.0.0.2:80;\n", mask_of("unrelated"))
    assert shown == [f"-proxy_pass http://10.0.0.{MASK}:80;", "+proxy_pass http://10.0.0.2:80;"]


def test_without_secret_readings_removed_lines_are_shown() -> None:
    """There is nothing to hide but private keys."""
    assert diff("a 1\n", "a 2\n") == ["-a 1", "+a 2"]
    assert diff(f"{KEY}\n", "a\n") == [f"-{MASK}", "+a"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("password=OLDCANARY\n", "password=NEWSECRET\n"),
        ("password=OLDCANARY\n", ""),
        ("password=OLDCANARY\n", "passfile=/run/x\n"),
        ("a\npassword OLDCANARY\nb\n", "a\nb\n"),
        ("OLDCANARY\n" * 30, "NEWSECRET\n" * 3),
        ("password=NEWSECRET OLDCANARY\n", "password=NEWSECRET\n"),
        ("password=NEWSECRET-OLDCANARY\n", "password=NEWSECRET\n"),
        ("x" * 5000 + "OLDCANARY\n", "x" * 5000 + "NEWSECRET\n"),
        ("password=OLD-CANARY\n", "password=NEWSECRET\n"),
        ("-----BEGIN CERTIFICATE-----\nOLDCANARY\n", "-----BEGIN CERTIFICATE-----\nNEWSECRET\n"),
        ("password=OLDCANARY", "password=NEWSECRET"),
    ],
)
def test_an_earlier_secret_is_never_shown(old: str, new: str) -> None:
    """However the template changed with it."""
    shown = "\n".join(diff(old, new, mask_of("NEWSECRET")))
    assert "CANARY" not in shown
    assert "NEWSECRET" not in shown


def test_an_earlier_secret_is_not_shown_by_a_file_that_is_gone() -> None:
    """There is no new text, so nothing is told."""
    shown = masked_diff({"f": b"password=OLDCANARY\nuser=a\n"}, {}, mask_of("NEWSECRET"))
    assert shown == f"--- a/f\n+++ /dev/null\n@@ -1,2 +0,0 @@\n-{MASK}\n"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("user=nginx\npassword=nginx\n", "user=nginx\npassword=NEWSECRET\n"),
        ("password=nginx\nuser=x\n", "password=NEWSECRET\nuser=nginx\n"),
        ("user=admin password=admin\n", "user=admin password=NEWSECRET\n"),
        ("password=host host=db\n", "password=NEWSECRET host=db\n"),
    ],
)
def test_an_earlier_secret_that_is_a_common_word_is_not_shown_in_its_place(old: str, new: str) -> None:
    """A word that stands elsewhere in the new text does not make the old password public."""
    [removed] = [line for line in diff(old, new, mask_of("NEWSECRET")) if line.startswith("-") and "password" in line]
    assert f"password={MASK}" in removed


def test_of_removed_lines_nothing_is_shown_that_is_not_public_in_the_new_text() -> None:
    """The rule itself, over many random texts: what is left of a removed line is a subsequence of one new line without its masks."""
    rng = random.Random(7)
    words = ["listen", "server", "=", ";", " ", "db", "NEWSECRET", "10", ".", ":"]
    mask = mask_of("NEWSECRET")
    for _ in range(300):
        new = ["".join(rng.choices(words, k=rng.randint(0, 8))) for _ in range(rng.randint(0, 6))]
        old = [line.replace("NEWSECRET", "OLDCANARY") if rng.random() < 0.7 else "OLDCANARY" for line in new]
        rng.shuffle(old)
        public = [re.findall(r"\w+|\s+|[^\w\s]", line.replace("NEWSECRET", "\0")) for line in new]
        for line in diff("\n".join(old), "\n".join(new), mask):
            assert "CANARY" not in line
            assert "NEWSECRET" not in line
            if line.startswith("-") and not line.startswith("-\\ "):
                left = re.findall(r"\w+|\s+|[^\w\s]", line[1:].replace(MASK, "\0"))
                assert any(_subsequence([token for token in left if token != "\0"], model) for model in public) or left in ([], ["\0"])


def _subsequence(tokens: list[str], model: list[str]) -> bool:
    rest = iter(model)
    return all(token in rest for token in tokens)


def test_a_changed_key_is_one_masked_line() -> None:
    """Thirty lines of asterisks tell nothing."""
    new = KEY.replace("canary", "another")
    assert diff(f"a\n{KEY}\n", f"a\n{new}\n", mask_of(new)) == [" a", f" {MASK}", f"-{MASK}", f"+{MASK}", f" {MASK}"]


def test_the_end_of_the_last_line_is_told() -> None:
    """A change of nothing but the last newline is still a change."""
    assert diff("a", "a\n", mask_of("secret")) == [" a", "-\\ No newline at end of file"]


def test_a_diff_cannot_steer_the_terminal() -> None:
    """What a backend holds is printed where an operator looks."""
    assert diff("", "\x1b[2J\u202ex\ty\r\n") == ["+\\x1b[2J\\x202ex\ty\\x0d"]


def test_nothing_of_a_mask_is_in_its_repr() -> None:
    """It knows every secret."""
    assert "hunter2" not in repr(mask_of("hunter2"))
