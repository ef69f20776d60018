"""The status as words and as a table for a terminal."""

import re

import pytest

from reloader.status.table import coloured, table
from reloader.status.words import ago, overview, shown, span
from tests.unit.reports import ABSENT, CLOSED, EVERY, GOOD, HELD, HOSTILE, NASTY, OWED, STARTING, document_of


def lines(*reports, **more) -> list[str]:
    return table(document_of(*reports, **more))


def test_what_is_well_is_told_in_a_few_lines():
    assert lines(GOOD)[:5] == [
        "web  ready (fail-open)",
        "  source   site (files)  current  12 files",
        "  source   tls (vault)   current  lease, renewable, ends in 28 min",
        "  volume   generation 7  published 3 min ago, the certificate ends in 12 d",
        "  target   process pid 42  generation 7 confirmed  reloaded 3 min ago",
    ]


def test_what_is_wrong_is_told_where_it_is_and_what_to_do_next():
    text = "\n".join(lines(OWED))

    assert text.startswith("app  ready, degraded (fail-open)\n")
    assert "site (files)     current, held  12 files, its newest value is not used" in text
    assert "tls (vault)      ended          lease, renewable, ended 5 s ago, unreachable: connection refused" in text
    assert "routes (consul)  never read     refused: 403 permission denied" in text
    assert "generation 7  published 3 min ago, generation 8 waits" in text
    assert "  rejected check: nginx.conf:3:1: the key is not its certificate's" in text
    assert "target   process pid 42  reload owed  generation 6 is the last it confirmed" in text
    assert "  owed     troubled: pid 42 runs as uid 101" in text
    assert "  because  reload owed: pid 42" in text
    assert [line for line in lines(OWED) if line.startswith("  next ")] == [
        "  next     mend the value or the template: what changed is tried at once, what did not by `reloader resume`",
        "  next     `reloader check --online` reads each source now, and says what it would need",
        "  next     `reloader doctor` says what is between this and the target, and what mends it",
    ]


def test_events_are_aligned_and_the_newest_comes_first():
    events = [line for line in lines(OWED) if line.startswith("  event")]

    assert events[0] == "  event    3 s ago    signal   7  failed  14 times  permission: not permitted"
    assert events[1] == "  event    4 s ago    check    8  failed  2.5 s     the key is not its certificate's"
    assert events[2] == "  event    1 min ago  publish  7  ok      12 ms"
    assert len(events) == 10


def test_what_closed_did_is_told():
    text = "\n".join(lines(CLOSED))

    assert text.startswith("db  closed (fail-closed)\n")
    assert "  volume   withdrawn" in text
    assert "  target   process  stopped while closed" in text
    assert "  closed   not_ready, withdraw, stop_target" in text
    assert "next     closing is undone by itself" in text


def test_what_a_person_holds_is_told_and_how_to_let_go():
    text = "\n".join(lines(HELD))

    assert "  held     generation 6, by hand" in text
    assert "it is failure.fallback, the certificate ended 1 min ago" in text
    assert "generation 7 waits" in text
    assert "`reloader resume --pipeline held` lets go of generation 6" in text


def test_a_target_that_does_not_run_is_no_alarm():
    shown = overview(document_of(ABSENT))

    assert (shown.mood, shown.pipelines[0].target.mood, shown.pipelines[0].target.state) == ("good", "idle", "not running")


def test_the_start_is_told():
    assert lines(STARTING)[:3] == [
        "new  not ready (fail-open)",
        "  volume   nothing published",
        "  target   none  nothing to confirm  readers look for themselves",
    ]


def test_what_is_wrong_with_the_process_comes_after_its_pipelines():
    told = lines(GOOD, mistakes=("web.yaml:3:1: taget: unknown key",), stuck=("pipeline web",))

    assert "configuration refused: web.yaml:3:1: taget: unknown key" in told
    assert "stuck: pipeline web" in told
    assert sum(line.startswith("next: ") for line in told) == 2


@pytest.mark.parametrize(
    ("reports", "more", "told"),
    [
        ((GOOD,), {}, ("good", "Ready")),
        ((GOOD, OWED), {}, ("warn", "Ready, and something is wrong")),
        ((GOOD,), {"mistakes": ("no",)}, ("warn", "Ready, and something is wrong")),
        ((GOOD,), {"stuck": ("http",)}, ("warn", "Ready, and something is wrong")),
        ((CLOSED,), {}, ("bad", "Not ready")),
        ((GOOD, OWED, CLOSED), {}, ("bad", "Not ready: 1 of 3 pipelines")),
        ((), {}, ("bad", "No pipeline")),
    ],
)
def test_one_sentence_says_it_all(reports, more, told):
    seen = overview(document_of(*reports, **more))

    assert (seen.mood, seen.state) == told


def test_colours_change_nothing_but_colours():
    document = document_of(*EVERY)

    assert [re.sub(r"\x1b\[\d+m", "", line) for line in table(document, coloured)] == table(document)
    assert "\x1b[31mclosed\x1b[0m" in "\n".join(table(document, coloured))


def test_nothing_that_was_read_moves_the_cursor_or_ends_a_line():
    """A name or a reason may come from somebody who would like to write on the operator's terminal."""
    calm = lines(GOOD)
    told = lines(NASTY)

    assert all(line.isprintable() for line in told)
    assert any("\\x1b[2J" in line and "\\u202eereh" in line and "\\ud800" in line for line in told)
    assert sum(not line.startswith("  ") for line in told) == sum(not line.startswith("  ") for line in calm)


@pytest.mark.parametrize(
    ("text", "seen"),
    [("plain", "plain"), ("a\nb", "a\\nb"), ("\x9b", "\\x9b"), ("שלום 漢字 é", "שלום 漢字 é"), ("\u2028\u2066", "\\u2028\\u2066")],
)
def test_what_is_not_seen_as_itself_is_escaped(text, seen):
    assert shown(text) == seen


def test_hostile_texts_are_whole_apart_from_that():
    assert shown(HOSTILE).endswith("a" * 300)
    assert "<script>" in shown(HOSTILE), "what is markup elsewhere is plain text here"


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(-3, "0 s"), (0.9, "0 s"), (59.9, "59 s"), (60, "1 min"), (3599, "59 min"), (3600, "1 h"), (3660, "1 h 1 min"), (90000, "1 d 1 h")],
)
def test_durations_are_told_as_people_say_them(seconds, told):
    assert span(seconds) == told


def test_what_was_a_moment_ago_or_lies_ahead_by_a_clock_that_was_set_is_now():
    assert (ago(10, 10.5), ago(20, 10), ago(5, 10)) == ("just now", "just now", "5 s ago")
