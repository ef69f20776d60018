"""A target that reloads when it is asked to by an HTTP request."""

from collections.abc import Iterator, Mapping
from typing import Literal

from reloader.plan import Tls, Verify
from reloader.targets import _probes
from reloader.targets._requests import Asked
from reloader.world import World
from reloader.written import Duration, Secret, Status, Url, plain


@plain
class Settings:
    """What is requested, and which answer means that it reloaded."""

    url: Url
    method: Literal["POST", "PUT", "PATCH", "GET", "DELETE"] = "POST"
    headers: Mapping[str, Secret] | None = None
    status: Status = 200
    timeout: Duration = 30.0
    tls: Tls = Tls()

    def mistakes(self) -> Iterator[tuple[str, str]]:
        """Yield what is wrong between the keys."""
        if self.timeout <= 0:
            yield "timeout", "expected a duration longer than 0s"
        yield from self.tls.mistakes(self.url)


class Target(Asked):
    """Reloads by a request."""

    def __init__(self, settings: Settings, verify: Verify, world: World) -> None:
        ask = _probes.http(
            world,
            settings.url,
            key="target.url",
            method=settings.method,
            headers=settings.headers,
            tls=settings.tls,
            status=settings.status,
        )
        super().__init__(ask, settings.timeout, verify, world)
