"""Programs for Node, in a folder where they find the packages that are locked for tests."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from tools.offline_packages import NODE_MODULES, fill_node

NODE: Final = Path(sys.executable).parent / "node"
SECONDS: Final = 300.0
"""That a program may take."""


def lay_out(folder: Path, *files: Path) -> None:
    """Put copies of files into a folder, beside the packages."""
    fill_node()
    (folder / "node_modules").symlink_to(NODE_MODULES)
    for file in files:
        shutil.copy(file, folder)


async def run(folder: Path, *command: str, given: bytes = b"") -> str:
    """What a program and its arguments write, if it ends well."""
    process = await asyncio.create_subprocess_exec(
        NODE,
        *command,
        cwd=folder,
        env={**os.environ, "NODE_PATH": str(NODE_MODULES)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(SECONDS):
            out, complaints = await process.communicate(given)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, (out + complaints).decode()
    return out.decode()


async def asked(folder: Path, script: str, given: Any) -> Any:  # JSON
    """JSON in, JSON out."""
    return json.loads(await run(folder, script, given=json.dumps(given).encode()))
