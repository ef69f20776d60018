"""The operator's check on the staged set."""

import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from reloader.certificates import certificate_validity
from reloader.check import Checker, CheckErrored, CheckRefused
from reloader.check.keypair import check as check_keypair
from reloader.fileset import Rendered, RenderedFile
from reloader.plan import Check
from reloader.world.children import OUTPUT_LIMIT, Children
from reloader.world.clock import Clock
from tests.servers.certificates import Authority

Files = dict[str, bytes]


def staged(tmp_path: Path, files: Files) -> tuple[Path, Rendered]:
    """Write a set where the volume would stage it."""
    directory = tmp_path / "live" / "..7"
    for name, data in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)
    return directory, {name: RenderedFile(data=data) for name, data in files.items()}


def check(tmp_path: Path, check: Check, files: Files, *, target_path: str | None = None, published: Files | None = None) -> None:
    """Check a set that would take the place of `published`; without it, nobody may ask for that."""
    checker = Checker(check, Children(), Clock(), target_path=target_path)
    checker.check(*staged(tmp_path, files), lambda: published)


def run(tmp_path: Path, code: str, files: Files | None = None, *, timeout: float = 30.0, target_path: str | None = None) -> None:
    """Check a set with a Python program that gets the staged directory as its argument."""
    command = (sys.executable, "-c", code, "dir={staged}/", "{not} {0}")
    check(tmp_path, Check(command=command, timeout=timeout), files or {"a": b"good"}, target_path=target_path)


def test_a_command_that_ends_with_0_lets_the_set_pass(tmp_path: Path) -> None:
    """It finds the set at {staged}, wherever that stands in an argument; other braces are its own."""
    run(tmp_path, "import sys; assert open(sys.argv[1][4:] + 'a').read() == 'good'; assert sys.argv[2] == '{not} {0}'")


def test_a_command_that_says_no_refuses_and_its_output_is_kept_apart(tmp_path: Path) -> None:
    """The output may quote a secret, so it is no part of the reason."""
    with pytest.raises(CheckRefused) as caught:
        run(tmp_path, "print('canary'); raise SystemExit(3)")
    assert "ended with status 3" in str(caught.value)
    assert caught.value.output == "canary"
    assert "canary" not in repr(caught.value)


def test_a_command_that_is_not_there_could_not_say_anything(tmp_path: Path) -> None:
    """An error, not a refusal: the same content is tried again."""
    with pytest.raises(CheckErrored, match=r"'/no/such/program' cannot be started: No such file or directory"):
        check(tmp_path, Check(command=("/no/such/program",)), {"a": b""})


def test_a_command_that_takes_too_long_is_killed_and_could_not_say_anything(tmp_path: Path) -> None:
    """However long it would have taken."""
    with pytest.raises(CheckErrored, match=r"did not end within 0\.2 s"):
        run(tmp_path, "import time; time.sleep(600)", timeout=0.2)


@pytest.mark.parametrize("start_new_session", [False, True])
def test_what_a_command_leaves_in_the_background_is_not_waited_for(tmp_path: Path, start_new_session: bool) -> None:
    """Though it holds the output open, and in a session of its own is not even killed with the command."""
    leave = f"import subprocess; subprocess.Popen(['sleep', '5'], start_new_session={start_new_session})"
    run(tmp_path, leave, timeout=4)
    with pytest.raises(CheckErrored, match=r"did not end within 1 s"):
        run(tmp_path, f"{leave}; import time; time.sleep(600)", timeout=1)
    with pytest.raises(CheckRefused) as caught:
        run(tmp_path, f"{leave}; print('canary', flush=True); raise SystemExit(1)", timeout=4)
    assert caught.value.output == "canary"


def test_only_the_last_lines_of_a_long_output_are_kept(tmp_path: Path) -> None:
    """And only whole ones."""
    with pytest.raises(CheckRefused) as caught:
        run(tmp_path, "for line in range(100_000): print('line', line)\nraise SystemExit(1)")
    lines = caught.value.output.splitlines()
    assert lines[-1] == "line 99999"
    assert lines == [f"line {number}" for number in range(100_000 - len(lines), 100_000)]
    assert 4000 < len(caught.value.output) <= OUTPUT_LIMIT


def test_a_command_that_dies_of_a_signal_could_not_say_anything(tmp_path: Path) -> None:
    """The OOM killer has no opinion on configuration."""
    with pytest.raises(CheckErrored, match="killed by signal 9"):
        run(tmp_path, "import os; os.kill(os.getpid(), 9)")


def test_a_set_that_names_its_published_self_is_refused(tmp_path: Path) -> None:
    """The command would read the old set there; told by file and line, not by content."""
    content = f"x canary\ninclude {tmp_path}/live/conf.d/*.conf;\n".encode()
    with pytest.raises(CheckRefused, match=r"\(nginx.conf, line 2\).*write {{ generation }}") as caught:
        run(tmp_path, "", {"nginx.conf": content, "conf.d/a.conf": b"\xff"})
    assert "canary" not in str(caught.value)


def test_the_published_path_is_also_known_as_the_target_sees_it(tmp_path: Path) -> None:
    """The target's mount may have another name."""
    with pytest.raises(CheckRefused, match="published path"):
        run(tmp_path, "", {"a": b"/mnt/x/a"}, target_path="/mnt/x")
    run(tmp_path, "", {"a": b"/mnt/x/a"})


def test_a_set_may_name_its_own_generation(tmp_path: Path) -> None:
    """That is the mend."""
    run(tmp_path, "", {"a": f"{tmp_path}/live/..7/b".encode(), "b": b""})


@pytest.fixture
def pairs(tmp_path: Path) -> tuple[bytes, bytes, bytes, bytes]:
    """Two certificates, each followed by its key."""
    authority = Authority(tmp_path / "authority")
    one, other = authority.issue("one"), authority.issue("other")
    return one[0].read_bytes(), one[1].read_bytes(), other[0].read_bytes(), other[1].read_bytes()


Pairs = tuple[bytes, bytes, bytes, bytes]


def keypair(tmp_path: Path, files: Files) -> None:
    check(tmp_path, Check(builtin=("keypair",)), files)


def test_pairs_that_belong_together_pass(tmp_path: Path, pairs: Pairs) -> None:
    """By stem, in one file, or the only ones there are; an authority's certificate needs no key."""
    cert, key, cert2, key2 = pairs
    keypair(tmp_path / "1", {"tls.crt": cert + cert2, "tls.key": key, "ca.crt": cert2, "conf": b"x"})
    keypair(tmp_path / "2", {"both.pem": cert + key})
    keypair(tmp_path / "3", {"certificate": cert, "secret": key})
    keypair(tmp_path / "4", {"a/tls.crt": cert, "a/tls.key": key, "b/tls.crt": cert2, "b/tls.key": key2})
    keypair(tmp_path / "5", {"fullchain.pem": cert, "chain.pem": cert2, "privkey.pem": key})
    keypair(tmp_path / "6", {"both.pem": key2 + cert2, "tls.crt": cert, "tls.key": key})


def test_a_key_of_another_certificate_is_refused_with_both_names(tmp_path: Path, pairs: Pairs) -> None:
    """The stem decides, so that two swapped keys do not pass."""
    cert, key, cert2, key2 = pairs
    mismatch = "the private key is not the certificate's"
    with pytest.raises(CheckRefused, match=f"tls.key and tls.crt: {mismatch}"):
        keypair(tmp_path / "1", {"tls.crt": cert, "tls.key": key2})
    with pytest.raises(CheckRefused, match=f"a.key and a.crt: {mismatch}"):
        keypair(tmp_path / "2", {"a.crt": cert, "a.key": key2, "b.crt": cert2, "b.key": key})
    with pytest.raises(CheckRefused, match=mismatch):
        keypair(tmp_path / "3", {"both.pem": cert + key2})
    with pytest.raises(CheckRefused, match=mismatch):
        keypair(tmp_path / "4", {"tls.crt": cert2 + cert, "tls.key": key})
    with pytest.raises(CheckRefused, match=r"x.pem or y.pem"):
        keypair(tmp_path / "5", {"x.pem": cert, "y.pem": cert, "z.pem": key2})


def test_what_is_missing_is_told(tmp_path: Path, pairs: Pairs) -> None:
    """An empty secret is the usual reason."""
    cert, key, _, key2 = pairs
    with pytest.raises(CheckRefused, match="no private key in PEM form"):
        keypair(tmp_path / "1", {"tls.crt": cert, "tls.key": b""})
    with pytest.raises(CheckRefused, match="no certificate in PEM form"):
        keypair(tmp_path / "2", {"tls.key": key})
    with pytest.raises(CheckRefused, match="neither a certificate nor a private key"):
        keypair(tmp_path / "3", {"a": b""})
    with pytest.raises(CheckRefused, match="no certificate for other"):
        keypair(tmp_path / "4", {"tls.crt": cert, "tls.key": key, "other": key2})


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_an_encrypted_key_is_refused_without_asking_for_its_password(tmp_path: Path, pairs: Pairs, form: PrivateFormat) -> None:
    """Nobody sits at the terminal of a sidecar."""
    plain = serialization.load_pem_private_key(pairs[1], None)
    assert plain.private_bytes(Encoding.PEM, form, NoEncryption())
    key = plain.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"password"))
    with pytest.raises(CheckRefused, match=r"keypair: tls.key is encrypted"):
        keypair(tmp_path, {"tls.crt": pairs[0], "tls.key": key})


def test_damaged_pem_is_refused(tmp_path: Path, pairs: Pairs) -> None:
    """And nothing of it is quoted."""
    with pytest.raises(CheckRefused, match=r"tls.key and tls.crt: ") as caught:
        keypair(tmp_path, {"tls.crt": pairs[0][:-200] + b"canary", "tls.key": pairs[1]})
    assert "canary" not in str(caught.value)
    assert caught.value.__context__ is None


def test_builtin_checks_come_before_the_command(tmp_path: Path) -> None:
    """They cost nothing and know better what is wrong."""
    with pytest.raises(CheckRefused, match="keypair"):
        check(tmp_path, Check(builtin=("keypair",), command=("/no/such/program",)), {"a": b""})


def test_a_certificate_out_of_date_is_refused_with_the_day(tmp_path: Path) -> None:
    """It would be served, and every client would go away."""
    expired, key = (path.read_bytes() for path in Authority(tmp_path / "authority").issue("old", days=-2))
    with pytest.raises(CheckRefused, match=r"keypair: tls.crt: the certificate was valid until \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"):
        keypair(tmp_path / "1", {"tls.crt": expired, "tls.key": key})
    with pytest.raises(CheckRefused, match=r"both.pem: the certificate was valid until"):
        keypair(tmp_path / "2", {"both.pem": expired + key})


def test_a_certificate_of_the_future_is_refused_with_the_day(tmp_path: Path, pairs: Pairs) -> None:
    """A clock that lags says so too."""
    validity = certificate_validity(pairs[0])
    the_set = staged(tmp_path, {"tls.crt": pairs[0], "tls.key": pairs[1]})
    for edge in (validity.begins, validity.ends):
        check_keypair(*the_set, edge)
    with pytest.raises(CheckRefused, match=r"tls.crt: the certificate is not valid before .* UTC; is the clock right\?"):
        check_keypair(*the_set, validity.begins - 1)
    with pytest.raises(CheckRefused, match=r"tls.crt: the certificate was valid until"):
        check_keypair(*the_set, validity.ends + 1)


def test_of_a_chain_the_leaf_counts_and_of_others_nothing(tmp_path: Path, pairs: Pairs) -> None:
    """An old authority beside it is for the client to judge, as is one that has no key here."""
    old = Authority(tmp_path / "authority").issue("old", days=-2)[0].read_bytes()
    keypair(tmp_path / "1", {"tls.crt": pairs[0] + old, "tls.key": pairs[1], "ca.crt": old})
    keypair(tmp_path / "2", {"fullchain.pem": pairs[0] + old, "chain.pem": old, "privkey.pem": pairs[1]})
