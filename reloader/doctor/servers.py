"""Whether the servers answer: their name, their port, their certificate, their clock, and the token."""

import datetime as dt
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from reloader import sources
from reloader.doctor.checks import Check, each, failed, ok, skipped, warning
from reloader.doctor.finding import Evidence, Finding, Mend
from reloader.doctor.mends import command, configuration, words
from reloader.doctor.patient import Patient
from reloader.plan import BackendPlan, Consul, Pipeline, Vault
from reloader.written import Secret

Server = Vault | Consul

DEADLINE = 10.0
"""How many seconds a server has for one answer, and the resolver for a name."""
LARGEST_SKEW = 30.0
"""How many seconds the clocks may be apart."""
SOON = 3600.0
"""How many seconds before its end a token is about to end, where nothing renews it."""
_HEALTH: Mapping[int, str] = {
    200: "it is active",
    429: "it is a standby, which passes requests on",
    472: "it is a standby for disaster recovery",
    473: "it is a performance standby",
}
"""What `sys/health` says of a server that is unsealed."""
_NOT_INITIALISED, _SEALED = 501, 503


@dataclass(frozen=True)
class Reached:
    """What came of one question that needs no token."""

    status: int = 0
    """Of the answer; 0 where there was none."""
    told: str = ""
    """Why not."""
    skew: float | None = None
    """By how many seconds the server's clock is ahead of ours."""
    date: str = ""
    resolved: tuple[str, ...] = ()
    error: Exception | None = None


def asked(patient: Patient) -> Iterator[tuple[Server, Pipeline]]:
    """Yield each server and identity that sources are read from, with a pipeline that configures it."""
    found: dict[BackendPlan, Pipeline] = {}
    for pipeline in patient.plan.pipelines:
        for source in pipeline.sources.values():
            found.setdefault(sources.make(source.kind, source.settings, pipeline.connections).backend, pipeline)
    return ((plan, pipeline) for plan, pipeline in found.items() if isinstance(plan, Vault | Consul))


def reached(patient: Patient, server: Server) -> Reached:
    """Return whether a server answers at all."""
    return patient.once(("reached", server.address, server.tls), lambda: _reached(patient, server))


def section(server: Server) -> str:
    """Return where a server is configured."""
    return "vault" if isinstance(server, Vault) else "consul"


def _reached(patient: Patient, server: Server) -> Reached:
    from reloader.backends.transport import explain  # noqa: PLC0415 - requests costs 7 MiB that files mode never needs

    resolved, why = _resolved(server.address)
    if why:
        return Reached(told=why, resolved=resolved)
    try:
        answer, at = _get(patient, server, "sys/health" if isinstance(server, Vault) else "status/leader")
    except Exception as error:  # noqa: BLE001 - requests' own, told by `explain`
        return Reached(told=explain(error, section(server))[1], resolved=resolved, error=error)  # type: ignore[arg-type]
    date = answer.headers.get("Date", "")
    return Reached(answer.status_code, "", _skew(date, at), date, resolved)


def _get(patient: Patient, server: Server, path: str, token: Secret | None = None) -> tuple[Any, float]:
    """Return the answer, and our wall clock in the middle of asking."""
    names = {"X-Vault-Token": token, "X-Vault-Namespace": server.namespace} if isinstance(server, Vault) else {"X-Consul-Token": token}
    headers = {name: value.reveal() if isinstance(value, Secret) else value for name, value in names.items() if value}
    session = patient.world.session(server.tls, timeout=DEADLINE)
    try:
        began = patient.world.clock.wall()
        answer = session.get(f"{server.address.rstrip('/')}/v1/{path}", headers=headers)
        return answer, (began + patient.world.clock.wall()) / 2
    finally:
        session.close()


def _resolved(address: str) -> tuple[tuple[str, ...], str]:
    """Return the addresses of a host name, or why there are none; the resolver itself cannot be told to hurry."""
    host, port = _host_and_port(address)
    answer: list[Any] = []
    thread = threading.Thread(target=_look_up, args=(host, port, answer.append), daemon=True)
    thread.start()
    thread.join(DEADLINE)
    if not answer:
        return (), f"the name {host} was not resolved within {DEADLINE:.0f} s; look at the DNS servers in /etc/resolv.conf"
    if isinstance(answer[0], OSError):
        return (), f"the name {host} does not resolve ({answer[0].strerror})"
    return tuple(sorted({str(found[4][0]) for found in answer[0]})), ""


def _look_up(host: str, port: int, tell: Callable[[Any], None]) -> None:
    try:
        tell(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except (OSError, UnicodeError) as error:
        tell(error if isinstance(error, OSError) else OSError(0, "no host name"))


def _host_and_port(address: str) -> tuple[str, int]:
    parts = urlsplit(address)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _skew(date: str, wall: float) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp() - wall
    except ValueError:
        return None


def _reachable(patient: Patient) -> Iterator[Finding]:
    return each((_reach_one(patient, server, pipeline) for server, pipeline in asked(patient)), "no source reads from a server")


def _reach_one(patient: Patient, server: Server, pipeline: Pipeline) -> Finding:
    found = reached(patient, server)
    host, port = _host_and_port(server.address)
    seen = [Evidence(f"resolver: {host}", ", ".join(found.resolved))] if found.resolved else []
    if found.told:
        seen.append(Evidence(f"{host}:{port}", found.told))
        return failed(found.told, server.address, evidence=seen, mends=_mends_of(patient, server, pipeline, found))
    seen.append(Evidence("GET /v1/sys/health" if isinstance(server, Vault) else "GET /v1/status/leader", f"status {found.status}"))
    if isinstance(server, Vault) and found.status in (_NOT_INITIALISED, _SEALED):
        what, mend = ("sealed", "operator unseal") if found.status == _SEALED else ("not initialised", "operator init")
        mends = [command(f"bao {mend} -address={server.address}", "a shell of whoever runs the server; `vault` for HashiCorp's")]
        return failed(f"the server is {what}", server.address, evidence=seen, mends=mends)
    return ok(_HEALTH.get(found.status, "it answers") if isinstance(server, Vault) else "it answers", server.address, evidence=seen)


def _mends_of(patient: Patient, server: Server, pipeline: Pipeline, found: Reached) -> Iterator[Mend]:
    name, innermost = section(server), _innermost(found.error)
    host, port = _host_and_port(server.address)
    if isinstance(innermost, ssl.SSLCertVerificationError):
        yield from _certificate_mends(patient, server, pipeline, innermost)
    elif isinstance(innermost, ssl.SSLError) and "CERTIFICATE_REQUIRED" in str(innermost.reason):
        yield configuration(patient, pipeline, {name: {"tls": {"cert_file": "/etc/tls/tls.crt", "key_file": "/etc/tls/tls.key"}}})
    elif isinstance(innermost, ssl.SSLError):
        yield configuration(patient, pipeline, {name: {"address": server.address.replace("https://", "http://", 1)}})
    elif found.resolved and _speaks_tls(host, port) and server.address.startswith("http://"):
        yield configuration(patient, pipeline, {name: {"address": server.address.replace("http://", "https://", 1)}})
    elif not found.resolved:
        yield configuration(patient, pipeline, {name: {"address": f"{urlsplit(server.address).scheme}://NAME.NAMESPACE.svc:{port}"}})
    else:
        yield words(
            f"Start the server that is to listen on {host}:{port}, or let {name}.address name where it listens; see NetworkPolicies too."
        )


def _certificate_mends(patient: Patient, server: Server, pipeline: Pipeline, error: ssl.SSLCertVerificationError) -> Iterator[Mend]:
    name = section(server)
    if "ostname mismatch" in error.verify_message or "IP address mismatch" in error.verify_message:
        for known in _names_of(server):
            yield configuration(patient, pipeline, {name: {"tls": {"server_name": known}}})
    elif "expired" in error.verify_message or "not yet valid" in error.verify_message:
        yield words("Renew the server's certificate, or set the clock of this machine.")
    else:
        yield configuration(patient, pipeline, {name: {"tls": {"ca_file": "/etc/tls/ca.crt"}}})
        yield words("Put the certificate of the authority that signed the server's there; a ConfigMap or a Secret holds it in a Pod.")


def _names_of(server: Server) -> list[str]:
    """Return the names in a server's certificate, whoever signed it: they are shown to a person and not trusted."""
    from cryptography import x509  # noqa: PLC0415

    try:
        pem = ssl.get_server_certificate(_host_and_port(server.address), timeout=DEADLINE)
        found = x509.load_pem_x509_certificate(pem.encode()).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (OSError, ValueError, x509.ExtensionNotFound):
        return []
    return [str(name) for name in found.value.get_values_for_type(x509.DNSName) if not name.startswith("*")]


def _speaks_tls(host: str, port: int) -> bool:
    try:
        ssl.get_server_certificate((host, port), timeout=DEADLINE)
    except (OSError, ValueError):
        return False
    return True


def _innermost(error: BaseException | None) -> BaseException | None:
    while error is not None and (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return error


def _clock(patient: Patient) -> Iterator[Finding]:
    found = {server.address: reached(patient, server) for server, _ in asked(patient)}
    return each((_clock_of(address, one) for address, one in found.items()), "no source reads from a server")


def _clock_of(address: str, found: Reached) -> Finding:
    if found.skew is None:
        return skipped(f"the server did not tell its time ({found.told or 'no Date'})", address)
    seen = [Evidence("Date of its answer", f"{found.date}, {found.skew:+.0f} s from our clock")]
    if abs(found.skew) <= LARGEST_SKEW:
        return ok(f"{found.skew:+.0f} s", address, evidence=seen)
    behind = "ours is behind, or its is ahead" if found.skew > 0 else "ours is ahead, or its is behind"
    told = (
        f"the clocks are {abs(found.skew):.0f} s apart ({behind}): certificates count as not yet or no longer valid, logins with a JWT "
        "are refused, and the ages of what was kept over a restart are wrong"
    )
    return warning(told, address, evidence=seen, mends=[command("chronyc makestep", "a shell on the node whose clock is wrong, as root")])


def _token(patient: Patient) -> Iterator[Finding]:
    return each((_token_of(patient, server, pipeline) for server, pipeline in asked(patient)), "no source reads from a server")


def _token_of(patient: Patient, server: Server, pipeline: Pipeline) -> Finding:
    if reached(patient, server).told:
        return skipped("the server is not reached", server.address)
    text, where = _given(server)
    if text is None:
        return skipped(where, server.address)
    if text == Secret(""):
        return failed(f"{where} holds no token", server.address, mends=_another(patient, server, pipeline, {}))
    try:
        answer, _ = _get(patient, server, "auth/token/lookup-self" if isinstance(server, Vault) else "acl/token/self", text)
    except OSError as error:  # as all of requests' own are
        return skipped(f"the server was not asked ({type(error).__name__})", server.address)
    told = _body(answer)
    if isinstance(server, Vault):
        return _vault_token(patient, server, pipeline, answer.status_code, told)
    return _consul_token(patient, server, pipeline, answer.status_code, told)


def _body(answer: Any) -> Mapping[str, Any]:
    """Return the body, empty where it is no JSON object."""
    try:
        body = answer.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _given(server: Server) -> tuple[Secret | None, str]:
    """Return the token that is given, empty where its place holds none, and its place; None and why where none is given."""
    auth: Any = server.auth if isinstance(server, Vault) else server
    if isinstance(server, Vault) and server.auth.method != "token":
        return None, f"a login by {server.auth.method} makes it; `source.read` tells whether that works"
    if auth.token is not None:
        return auth.token, f"{section(server)} token"
    if auth.token_file is None:
        return None, "no token is given"
    try:
        text = Path(auth.token_file).read_text(encoding="utf-8", errors="replace").strip()
    except OSError as error:
        return Secret(""), f"{auth.token_file} ({error.strerror})"
    return Secret(text if text.isascii() and text.isprintable() and " " not in text else ""), auth.token_file


def _vault_token(patient: Patient, server: Vault, pipeline: Pipeline, status: int, body: Mapping[str, Any]) -> Finding:
    seen = [Evidence("GET /v1/auth/token/lookup-self", f"status {status}")]
    if status != 200:  # noqa: PLR2004 - HTTP's OK
        told = "the token ended, was revoked or is another server's; or it lacks the policy `default` and may not look itself up"
        return failed(told, server.address, evidence=seen, mends=_another(patient, server, pipeline, {}))
    data: Any = body.get("data") if isinstance(body.get("data"), dict) else {}
    left, life = float(data.get("ttl") or 0), float(data.get("creation_ttl") or 0)
    seen.append(
        Evidence("auth/token/lookup-self", f"ttl {left:.0f} s of {life:.0f} s, renewable: {str(bool(data.get('renewable'))).lower()}")
    )
    if life and not data.get("renewable") and left < SOON:
        told = f"the token ends in {dt.timedelta(seconds=round(left))} and cannot be renewed"
        return warning(told, server.address, evidence=seen, mends=_another(patient, server, pipeline, data))
    return ok(f"valid for {dt.timedelta(seconds=round(left))}" if life else "valid, and never ends", server.address, evidence=seen)


def _consul_token(patient: Patient, server: Consul, pipeline: Pipeline, status: int, body: Mapping[str, Any]) -> Finding:
    seen = [Evidence("GET /v1/acl/token/self", f"status {status}")]
    if status == 401:  # noqa: PLR2004 - ACLs are disabled
        return ok("the server asks for none (its ACLs are disabled)", server.address, evidence=seen)
    if status != 200:  # noqa: PLR2004
        return failed("the server does not know the token", server.address, evidence=seen, mends=_another(patient, server, pipeline, {}))
    ends = _ends(body.get("ExpirationTime"))
    left = None if ends is None else ends - patient.world.clock.wall()
    if left is not None and left < SOON:
        told = f"the token ends in {dt.timedelta(seconds=round(left))}"
        return warning(told, server.address, evidence=seen, mends=_another(patient, server, pipeline, body))
    return ok("valid" if left is None else f"valid for {dt.timedelta(seconds=round(left))}", server.address, evidence=seen)


def _ends(written: object) -> float | None:
    try:
        return dt.datetime.fromisoformat(str(written)[:19] + "+00:00").timestamp() if written else None
    except ValueError:
        return None


def _another(patient: Patient, server: Server, pipeline: Pipeline, told: Mapping[str, Any]) -> Iterator[Mend]:
    """Yield how another token is made, with the policies of the old one where the server told them."""
    file = (server.auth.token_file if isinstance(server, Vault) else server.token_file) or None
    if file is None:
        file = f"/run/secrets/{pipeline.name}/token"
        keys = {"auth": {"token": None, "token_file": file}} if isinstance(server, Vault) else {"token": None, "token_file": file}
        yield configuration(patient, pipeline, {section(server): keys})
    where = "a shell of whoever may make tokens; into the file that the Pod mounts"
    if isinstance(server, Vault):
        policies = [str(each) for each in told.get("policies") or () if each != "default"] or [pipeline.name]
        options = " ".join(f"-policy={policy}" for policy in policies)
        yield command(f"bao token create -address={server.address} {options} -period=24h -field=token > {file}", where)
    else:
        names = [str(each.get("Name")) for each in told.get("Policies") or () if isinstance(each, dict)] or [pipeline.name]
        options = " ".join(f"-policy-name={name}" for name in names)
        yield command(f"consul acl token create -http-addr={server.address} {options} | awk '/^SecretID/ {{print $2}}' > {file}", where)


CHECKS = (
    Check("server.reachable", "the servers answer: name, port, certificate, seal", _reachable),
    Check("server.clock", "their clocks agree with ours", _clock),
    Check("server.token", "the token that is given is valid, and does not end soon", _token),
)
