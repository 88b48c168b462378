"""TPC-H, made on the spot by DuckDB's extension `tpch`, from wheels and without a network.

The data are the same on every machine: the generator of TPC-H has fixed seeds. Prices and
quantities are decimals with two digits there and whole cents and units here; nothing ever
passes through a float.
"""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from shop.common.v1.address_pb2 import Address
from shop.common.v1.money_pb2 import Money
from shop.customers.v1.customers_pb2 import CreateCustomerRequest
from shop.inventory.v1.inventory_pb2 import UpsertProductRequest
from shop.orders.v1.orders_pb2 import OrderItem
from shopctl.errors import CommandError, ExitCode
from shopctl.replay.model import Expected, ExpectedOrder, Fate, Plan, PlannedOrder

if TYPE_CHECKING:
    import duckdb

MARGIN: Final = 10
"""Units of every product beyond what the orders need; they have to be there in the end."""

COUNTRY_CODES: Final[Mapping[str, str]] = {
    "ALGERIA": "DZ",
    "ARGENTINA": "AR",
    "BRAZIL": "BR",
    "CANADA": "CA",
    "CHINA": "CN",
    "EGYPT": "EG",
    "ETHIOPIA": "ET",
    "FRANCE": "FR",
    "GERMANY": "DE",
    "INDIA": "IN",
    "INDONESIA": "ID",
    "IRAN": "IR",
    "IRAQ": "IQ",
    "JAPAN": "JP",
    "JORDAN": "JO",
    "KENYA": "KE",
    "MOROCCO": "MA",
    "MOZAMBIQUE": "MZ",
    "PERU": "PE",
    "ROMANIA": "RO",
    "RUSSIA": "RU",
    "SAUDI ARABIA": "SA",
    "UNITED KINGDOM": "GB",
    "UNITED STATES": "US",
    "VIETNAM": "VN",
}
"""Name in the table `nation` -> ISO 3166-1 alpha-2 code."""

_ORDERS_PER_THOUSANDTH: Final = 1_500
"""Orders at scale factor 0.001."""

# `line` is what is ordered: a part once per order. The first part of an order that is to fall
# short becomes a product of its own, which nobody else orders and of which one unit is missing:
# exactly these orders are rejected, whatever the order in which they arrive.
_DERIVE: Final = """
CREATE OR REPLACE TEMP TABLE line AS
SELECT c.number, l.l_partkey AS partkey, part.p_name AS name,
       CAST(SUM(l.l_quantity) AS BIGINT) AS quantity,
       CAST(part.p_retailprice * 100 AS BIGINT) AS price,
       c.fate = 'short' AND l.l_partkey = MIN(l.l_partkey) OVER (PARTITION BY c.number) AS scarce,
       CASE WHEN scarce THEN format('{}{}-o{}', $prefix, l.l_partkey, c.orderkey)
            ELSE format('{}{}', $prefix, l.l_partkey) END AS sku
FROM chosen c
JOIN lineitem l ON l.l_orderkey = c.orderkey
JOIN part ON part.p_partkey = l.l_partkey
GROUP BY c.number, c.orderkey, c.fate, l.l_partkey, part.p_name, part.p_retailprice;

CREATE OR REPLACE TEMP TABLE product AS
SELECT sku, name, price,
       CAST(SUM(quantity) + CASE WHEN scarce THEN -1 ELSE $margin END AS BIGINT) AS on_hand
FROM line GROUP BY sku, name, price, scarce;
"""

_BUYERS: Final = """
SELECT DISTINCT c_custkey, c_name, c_address, n_name
FROM chosen JOIN orders ON o_orderkey = orderkey JOIN customer ON c_custkey = o_custkey
JOIN nation ON n_nationkey = c_nationkey
ORDER BY c_custkey
"""

_ORDERS: Final = """
SELECT number, o_custkey, fate FROM chosen JOIN orders ON o_orderkey = orderkey
ORDER BY number
"""

_LINES: Final = "SELECT number, sku, quantity, price FROM line ORDER BY number, sku"

_PRODUCTS: Final = "SELECT sku, name, price, on_hand FROM product ORDER BY sku"

# The expectations go back to the source tables and share no sum with the plan.
_EXPECTED_ORDERS: Final = """
SELECT c.number, c.fate,
       CAST(SUM(l.l_quantity * p.p_retailprice * 100) AS BIGINT) AS total,
       CAST(SUM(l.l_quantity) AS BIGINT) AS units
FROM chosen c JOIN lineitem l ON l.l_orderkey = c.orderkey
JOIN part p ON p.p_partkey = l.l_partkey
GROUP BY c.number, c.fate
"""

_EXPECTED_TOTALS: Final = """
WITH priced AS (
    SELECT c.fate, l.l_quantity AS units, l.l_quantity * p.p_retailprice * 100 AS cents
    FROM chosen c JOIN lineitem l ON l.l_orderkey = c.orderkey
    JOIN part p ON p.p_partkey = l.l_partkey
)
SELECT CAST(SUM(cents) AS BIGINT),
       CAST(COALESCE(SUM(cents) FILTER (fate = 'good'), 0) AS BIGINT),
       CAST(COALESCE(SUM(units) FILTER (fate = 'good'), 0) AS BIGINT)
FROM priced
"""

_EXPECTED_REMAINING: Final = """
SELECT product.sku, CAST(product.on_hand - COALESCE(SUM(line.quantity), 0) AS BIGINT)
FROM product LEFT JOIN (line JOIN chosen ON chosen.number = line.number AND chosen.fate = 'good')
    ON line.sku = product.sku
GROUP BY product.sku, product.on_hand
"""

_EXPECTED_ENDING: Final = "SELECT fate, COUNT(*) FROM chosen GROUP BY fate"


class Tpch:
    """TPC-H in memory. Use it in a `with` block.

    Args:
        scale_factor: size; 0.01 has 15,000 orders and takes a fifth of a second, 1 has 1.5
            million.

    Raises:
        CommandError: DuckDB or its extension is not installed.
    """

    def __init__(self, scale_factor: float = 0.01) -> None:
        self._database = _connect()
        self._database.execute(f"CALL dbgen(sf = {scale_factor:f})")
        self._database.execute("CREATE TEMP TABLE chosen(number INT, orderkey BIGINT, fate TEXT)")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._database.close()

    def draw(self, count: int, *, declined: float, short: float, seed: int, run: str) -> Plan:
        """Draws orders at random and plans them.

        The same arguments draw the same orders, except that `run` is part of the SKUs and
        e-mail addresses.

        Args:
            count: how many orders, at least 1.
            declined: share of orders whose card is declined, in percent, rounded to whole orders.
            short: share of orders that lack stock, likewise.
            seed: of the draw.
            run: unique name of the run: letters and digits, at most 32.

        Raises:
            CommandError: there are fewer orders than asked for, or the shares exceed 100 %.
        """
        self._choose(count, _fates(count, declined, short), random.Random(seed))
        parameters = {"prefix": sku_prefix(run), "margin": MARGIN}
        for statement in filter(str.strip, _DERIVE.split(";")):
            used = {name: value for name, value in parameters.items() if f"${name}" in statement}
            self._database.execute(statement, used)
        lines: dict[int, list[OrderItem]] = {}
        for number, sku, quantity, price in self._rows(_LINES):
            line = OrderItem(sku=sku, quantity=quantity, unit_price=_cents(price))
            lines.setdefault(number, []).append(line)
        return Plan(
            run=run,
            buyers={
                key: CreateCustomerRequest(
                    name=name,
                    email=f"customer{key}.{run}@example.com",
                    # TPC-H knows no cities; the nation stands in.
                    address=Address(
                        name=name,
                        line1=street,
                        city=nation.title(),
                        country_code=COUNTRY_CODES[nation],
                    ),
                )
                for key, name, street, nation in self._rows(_BUYERS)
            },
            products=[
                UpsertProductRequest(sku=sku, name=name, price=_cents(price), on_hand=on_hand)
                for sku, name, price, on_hand in self._rows(_PRODUCTS)
            ],
            orders=[
                PlannedOrder(number, custkey, Fate(fate), lines[number])
                for number, custkey, fate in self._rows(_ORDERS)
            ],
        )

    def expected(self) -> Expected:
        """What the books must say in the end about the orders that were drawn last."""
        [(total, captured, shipped)] = self._rows(_EXPECTED_TOTALS)
        return Expected(
            orders={
                number: ExpectedOrder(
                    fate=Fate(fate),
                    total=cents,
                    captured=cents if fate == Fate.GOOD else 0,
                    shipped=units if fate == Fate.GOOD else 0,
                )
                for number, fate, cents, units in self._rows(_EXPECTED_ORDERS)
            },
            ending=dict.fromkeys(Fate, 0)
            | {Fate(fate): number for fate, number in self._rows(_EXPECTED_ENDING)},
            total=total,
            captured=captured,
            shipped=shipped,
            remaining=dict(self._rows(_EXPECTED_REMAINING)),
        )

    def _choose(self, count: int, fates: list[Fate], source: random.Random) -> None:
        keys = [key for (key,) in self._rows("SELECT o_orderkey FROM orders ORDER BY o_orderkey")]
        if count > len(keys):
            needed = -(-count // _ORDERS_PER_THOUSANDTH) / 1000
            raise CommandError(
                f"there are only {len(keys)} orders at this scale factor; for {count} orders "
                f"use --scale-factor {needed:g} or more",
                ExitCode.USAGE,
            )
        source.shuffle(fates)
        self._database.execute("DELETE FROM chosen")
        self._database.execute(
            "INSERT INTO chosen SELECT unnest($numbers), unnest($keys), unnest($fates)",
            {
                "numbers": list(range(1, count + 1)),
                "keys": source.sample(keys, count),
                "fates": [fate.value for fate in fates],
            },
        )

    def _rows(self, query: str) -> list[Any]:
        return self._database.execute(query).fetchall()


def sku_prefix(run: str) -> str:
    """What all SKUs of a run begin with, and no others."""
    return f"tpch-{run}-"


def _cents(amount: int) -> Money:
    return Money(minor_units=amount, currency_code="USD")


def _fates(count: int, declined: float, short: float) -> list[Fate]:
    if declined + short > 100:
        raise CommandError(
            "--declined and --short-stock make more than 100 % together", ExitCode.USAGE
        )
    numbers = [round(count * percent / 100) for percent in (declined, short)]
    numbers[1] = min(numbers[1], count - numbers[0])  # two halves may both have been rounded up
    unlucky = [Fate.DECLINED] * numbers[0] + [Fate.SHORT] * numbers[1]
    return unlucky + [Fate.GOOD] * (count - len(unlucky))


def _connect() -> "duckdb.DuckDBPyConnection":
    try:
        import duckdb
        import duckdb_extension_tpch
    except ImportError as error:
        raise CommandError(
            f"{error.name} is not installed; run: pip install 'accord-shop[replay]'"
        ) from None
    folder = Path(duckdb_extension_tpch.__file__).parent / "extensions" / f"v{duckdb.__version__}"
    extension = folder / "tpch.duckdb_extension"
    if not extension.exists():
        raise CommandError(
            f"duckdb-extension-tpch does not match duckdb {duckdb.__version__}; run: "
            "pip install 'accord-shop[replay]'"
        )
    # Whatever is missing must be an error here and not a download.
    database = duckdb.connect(
        ":memory:",
        config={"autoinstall_known_extensions": False, "autoload_known_extensions": False},
    )
    database.load_extension(str(extension))
    return database
