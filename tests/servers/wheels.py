"""What other people's Python packages hold besides Python, unpacked into the cache of this user: nothing is installed, none of it runs.

They come by pip, from the index that this machine's pip uses.
"""

import sys
import tempfile
import zipfile
from pathlib import Path

from tests.servers import UnavailableError
from tests.servers.debian import cache, cache_locked, run


def unpacked_of(requirement: str, folder: str) -> Path:
    """Return the folder that is called `folder` in the wheel of a `requirement` such as `name==1.0`.

    Raises:
        UnavailableError: pip cannot have the wheel, or it holds no such folder.

    """
    root = cache() / f"wheel-{requirement}-{folder.replace('/', '-')}"
    with cache_locked():
        if not root.exists():
            _fetch(requirement, folder, root)
    return root / folder


def _fetch(requirement: str, folder: str, root: Path) -> None:
    with tempfile.TemporaryDirectory(dir=root.parent, prefix="..wheel-") as work:
        # A wheel of one platform on every one: what is wanted of it is text. No source is built, since that would run code of the package.
        options = ("--no-deps", "--only-binary=:all:", "--platform=manylinux_2_28_x86_64", "--timeout=20", "--quiet")
        run(sys.executable, "-m", "pip", "download", *options, f"--dest={work}", requirement, timeout=100)
        [wheel] = Path(work).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(f"{work}/root", [name for name in archive.namelist() if name.startswith(f"{folder}/")])
        staged = Path(work) / "root"
        if not (staged / folder).exists():
            raise UnavailableError(f"the wheel of {requirement} holds no {folder}")
        staged.rename(root)
