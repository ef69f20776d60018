"""What a person may see of texts that hold secrets."""

import base64
import hashlib
import html
import json
import random
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import pytest

from reloader.mask import MASK, Mask, Unknown, changed_files, masked_diff
from reloader.pipeline.publishing import mask_of as mask_of_snapshot
from reloader.render.filters import OWN
from reloader.snapshot import Reading, Snapshot, Standing

NOTHING = Mask()


def mask_of(*values: Any) -> Mask:
    return Mask(values)


def test_only_secret_readings_are_hidden() -> None:
    """A route is for everybody."""
    readings = {"db": Reading(value={"password": "hunter2"}, at=0, secret=True), "routes": Reading(value={"a": "backend"}, at=0)}
    snapshot = Snapshot(standings={name: Standing(reading=reading) for name, reading in readings.items()})
    assert mask_of_snapshot(snapshot).text("password hunter2 backend") == f"password {MASK} backend"


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
        NASTY.upper(),
        NASTY.lower(),
        NASTY.title(),
        hashlib.sha256(NASTY.encode()).hexdigest(),
    ],
)
def test_secrets_are_known_in_the_forms_that_filters_give_them(form: str) -> None:
    """JSON, URL, HTML, base64, in other cases and as a fingerprint that could be guessed from."""
    assert mask_of(NASTY).text(f"<{form}>").strip('<">') == MASK


def test_secrets_are_known_in_the_forms_of_yaml() -> None:
    """Quoted in one way or the other, as `toyaml` finds it necessary."""
    for secret in ("it's: a #canary", "canary\x07bell", "- canary", "plain-canary"):
        assert "canary" not in mask_of(secret).text(OWN["toyaml"]({"key": secret}))


@pytest.mark.parametrize(
    "secret",
    [
        base64.b64encode(b"canary-in-base64").decode(),
        base64.encodebytes(b"canary-in-base64" * 9).decode(),
        json.dumps({"password": "canary-in-json", "more": ["canary-in-list"]}),
        base64.b64encode(json.dumps({"password": "canary-in-json"}).encode()).decode(),
        "user: web\npassword: canary-in-yaml\n",
        'password = "canary-in-toml"',
        "PASSWORD=canary-in-env",
        b"PASSWORD='canary-in-bytes'",
    ],
)
def test_secrets_are_known_that_a_template_takes_out_of_others(secret: str | bytes) -> None:
    """By `b64decode`, `fromjson`, `fromyaml` or `fromtoml`; names of fields stay."""
    for inner in ("canary-in-base64", "canary-in-json", "canary-in-list", "canary-in-yaml", "canary-in-toml", "canary-in-env"):
        if inner in str(secret) or "base64" in inner:
            assert "canary" not in mask_of(secret, "canary-in-base64").text(f"x {inner} y")
    assert mask_of(secret).text("password user") == "password user"


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


def shown(old: Mapping[str, bytes], new: Mapping[str, bytes], mask: Mask = NOTHING, unknown: Unknown | None = None) -> str:
    return "".join(masked_diff(old, new, mask, unknown=unknown))


def diff(old: str, new: str, mask: Mask = NOTHING, *, unknown: Unknown | None = "old") -> list[str]:
    """Return the lines of the difference between two texts, without its heads."""
    return shown({"f": old.encode()}, {"f": new.encode()}, mask, unknown).splitlines()[3:]


def test_a_diff_names_its_files_and_places() -> None:
    """As `diff -u` does."""
    old = {"same": b"x\n", "f": b"1\n2\n3\n4\n5\n6\n", "gone": b"a\n", "bin": b"\xff"}
    new = {"same": b"x\n", "f": b"1\n2\n3\n4\n5\nsix\n7\n", "new": b"b\n", "bin": b"\xfe"}
    assert shown(old, new) == (
        "Binary file bin differs\n"
        "--- a/f\n+++ b/f\n@@ -3,4 +3,5 @@\n 3\n 4\n 5\n-6\n+six\n+7\n"
        "--- a/gone\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n"
        "--- /dev/null\n+++ b/new\n@@ -0,0 +1 @@\n+b\n"
    )
    assert shown(new, new) == ""
    told = "File bin differs\nFile f differs\nFile gone removed\nFile new added\n"
    assert "".join(changed_files(old, new)) == told


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
    told = diff("proxy_pass http://10.0.0.1:80;\n", "proxy_pass http://10.0.0.2:80;\n", mask_of("unrelated"))
    assert told == [f"-proxy_pass http://10.0.0.{MASK}:80;", "+proxy_pass http://10.0.0.2:80;"]


def test_removed_lines_are_shown_where_it_is_known_what_was_secret() -> None:
    """Of both sets; private keys are hidden all the same."""
    assert diff("a 1\n", "a 2\n", unknown=None) == ["-a 1", "+a 2"]
    assert diff(f"{KEY}\n", "a\n", unknown=None) == [f"-{MASK}", "+a"]
    assert diff("user=a\nold-secret\n", "b\n", mask_of("old-secret"), unknown=None) == ["-user=a", f"-{MASK}", "+b"]


def test_where_nobody_knows_what_was_secret_nothing_more_than_the_new_text_is_shown() -> None:
    """Also when no source is secret any more: an earlier one may have been."""
    assert diff("password=OLDCANARY\n", "b\n") == [f"-{MASK}", "+b"]
    assert diff("listen 80\n", "listen 81\n") == [f"-listen {MASK}", "+listen 81"]


def test_of_an_earlier_set_that_is_back_only_what_the_known_one_holds_is_shown() -> None:
    """Nobody may remember what went into a generation that a person put back."""
    back = diff(
        "listen 80\npassword=NEWSECRET\nsame NEWSECRET\n",
        "listen 81\npassword=OLDCANARY\nsame NEWSECRET\n",
        mask_of("NEWSECRET"),
        unknown="new",
    )
    assert back == ["-listen 80", f"-password={MASK}", f"+listen {MASK}", f"+password={MASK}", f" same {MASK}"]


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
    told = "\n".join(diff(old, new, mask_of("NEWSECRET")))
    assert "CANARY" not in told
    assert "NEWSECRET" not in told


def test_an_earlier_secret_is_not_shown_by_a_file_that_is_gone() -> None:
    """There is no new text, so nothing is told."""
    told = shown({"f": b"password=OLDCANARY\nuser=a\n"}, {}, mask_of("NEWSECRET"), "old")
    assert told == f"--- a/f\n+++ /dev/null\n@@ -1,2 +0,0 @@\n-{MASK}\n"


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
