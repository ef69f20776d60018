"""The operator's check on the staged set, before anybody can see it."""

import re
import ssl
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from reloader.fileset import Rendered, published_paths
from reloader.plan import Check
from reloader.world.children import Children

_SHOWN = 5
"""How many places a message names of the same mistake."""


class CheckRefused(Exception):
    """The check says no. The message shows no value; `output` is what the command wrote, which may quote what it was given."""

    def __init__(self, reason: str, output: str = "") -> None:
        super().__init__(reason)
        self.output = output


class CheckErrored(Exception):
    """The check could not say anything: it was not found, was killed, or took too long."""


class Checker:
    """Runs the built-in checks and then the command of one volume."""

    def __init__(self, check: Check, children: Children, *, target_path: str | None = None) -> None:
        self._check = check
        self._children = children
        self._target_path = target_path
        """Where the target mounts the volume, if elsewhere."""

    def check(self, staged: Path, rendered: Rendered) -> None:
        """Return if the set, which lies in its final directory `staged`, may be published.

        Raises:
            CheckRefused: it may not.
            CheckErrored: the check could not be made.

        """
        for name in self._check.builtin:
            _BUILTIN[name](staged, rendered)
        if self._check.command is not None:
            self._refuse_published_paths(staged, rendered)
            self._run(tuple(argument.replace("{staged}", str(staged)) for argument in self._check.command))

    def _refuse_published_paths(self, staged: Path, rendered: Rendered) -> None:
        """Refuse a set that names its published self: the command would follow that into the old set."""
        pattern = published_paths((str(staged.parent), self._target_path or str(staged.parent)), rendered)
        hits = [f"{name}, line {line}" for name, file in rendered.items() for line in _lines(pattern, file.data)]
        if hits:
            places = "; ".join(hits[:_SHOWN]) + (f"; and {len(hits) - _SHOWN} more" if len(hits) > _SHOWN else "")
            raise CheckRefused(
                f"the set names its own published path ({places}), so the check command would read the old set; "
                "write {{ generation }} in front of the file's name, or a relative path"
            )

    def _run(self, argv: tuple[str, ...]) -> None:
        try:
            ended = self._children.run(argv, timeout=self._check.timeout)
        except OSError as error:
            reason = f"check command {argv[0]!r} cannot be started: {error.strerror}; it runs in the sidecar's own container"
            raise CheckErrored(reason) from None
        if ended.status is None:
            raise CheckErrored(f"check command {argv[0]!r} did not end within {self._check.timeout:g} s and was killed")
        if ended.status < 0:
            raise CheckErrored(f"check command {argv[0]!r} was killed by signal {-ended.status}")
        if ended.status > 0:
            raise CheckRefused(f"check command {argv[0]!r} ended with status {ended.status}", ended.output)


def _lines(pattern: re.Pattern[str], data: bytes) -> Iterator[int]:
    text = data.decode("utf-8", errors="surrogateescape")
    return (text.count("\n", 0, found.start()) + 1 for found in pattern.finditer(text))


def _keypair(staged: Path, rendered: Rendered) -> None:
    """Refuse a private key that does not belong to its certificate.

    A key's certificate is in the file of the same stem (`tls.key`, `tls.crt`), else in the key's own file, else in one of the files that
    are no other key's. A certificate without a key (an authority's) is fine.
    """
    keys = [name for name, file in rendered.items() if _PRIVATE_KEY.search(file.data)]
    certificates = [name for name, file in rendered.items() if _CERTIFICATE in file.data]
    if not keys or not certificates:
        missing = "no private key" if certificates else "no certificate" if keys else "neither a certificate nor a private key"
        raise CheckRefused(f"keypair: {missing} in PEM form in the set")
    for key in keys:
        if _ENCRYPTED.search(rendered[key].data):
            raise CheckRefused(f"keypair: {key} is encrypted, so the target would need its password")
    pairs = {key: _by_name(key, certificates) for key in keys}
    left = [name for name in certificates if name not in pairs.values()]
    for key, certificate in pairs.items():
        _match(staged, key, [certificate] if certificate else left)


def _by_name(key: str, certificates: list[str]) -> str | None:
    stem = PurePosixPath(key).with_suffix("")
    named = (each for each in certificates if each != key and PurePosixPath(each).with_suffix("") == stem)
    return next(named, key if key in certificates else None)


def _match(staged: Path, key: str, candidates: list[str]) -> None:
    """Refuse a key that belongs to none of the candidates."""
    reasons = [_unfit(staged / certificate, staged / key) for certificate in candidates]
    if None in reasons:
        return
    if not candidates:
        raise CheckRefused(f"keypair: no certificate for {key}; give both the same stem, such as tls.crt and tls.key")
    raise CheckRefused(f"keypair: {key} and {' or '.join(candidates)}: {'; '.join(dict.fromkeys(filter(None, reasons)))}")


def _unfit(certificate: Path, key: Path) -> str | None:
    """Return why the two are no pair; None when they are."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # A password is given, so that nothing ever asks the terminal for one.
        context.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        if error.reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"):
            return "the private key is not the certificate's"
        return f"not what OpenSSL can read ({(error.reason or 'PEM').lower().replace('_', ' ')})"
    except OSError as error:
        raise CheckErrored(f"keypair: {key.name} or {certificate.name} cannot be read: {error.strerror}") from None
    return None


_PRIVATE_KEY = re.compile(rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----")
_ENCRYPTED = re.compile(rb"-----BEGIN ENCRYPTED PRIVATE KEY-----|^Proc-Type: 4,ENCRYPTED", re.MULTILINE)
_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"
_BUILTIN: Mapping[str, Callable[[Path, Rendered], None]] = {"keypair": _keypair}
