"""What the environment may say to a service."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pytest

from accord_runtime.settings import Addresses, Settings, targets
from services import topology
from services.topology import MAX_OFFSET, MIN_OFFSET


def settings_from(
    name: str, addresses: Callable[[int], Addresses], environment: Mapping[str, str]
) -> Settings:
    """Of a service that has an identity."""
    return Settings.from_environment(name, addresses, {"MESH_IDENTITY": ".", **environment})


def test_nothing_needs_to_be_set(tmp_path: Path) -> None:
    """Without variables a service is on its usual port, with a file and the local broker."""
    settings = settings_from("orders", topology.addresses, {"MESH_HOME": str(tmp_path)})
    assert settings.address == "127.0.0.1:9051"
    assert settings.database == f"sqlite:///{tmp_path}/orders.db"
    assert settings.broker == ["tls://127.0.0.1:4222"]
    assert settings.broker_token is None
    assert settings.mail_server == "127.0.0.1:9061"
    assert settings.peers["payments"] == "127.0.0.1:9052"
    assert settings_from("orders", topology.addresses, {}).home == Path(".mesh")


def test_a_service_without_an_address_is_refused() -> None:
    """A name that is not among the addresses is named with those that are, unless it is told."""
    with pytest.raises(ValueError, match="no address is known of 'desk', only of depot"):
        settings_from("desk", lambda offset: Addresses({"depot": "10.0.0.1:1"}), {})
    told = {"MESH_LISTEN": "10.0.0.1:2"}
    settings = settings_from("desk", lambda offset: Addresses({}), told)
    assert settings.address == "10.0.0.1:2"
    assert settings.broker == ["tls://127.0.0.1:4222"]


def test_a_relative_home_gives_an_absolute_database() -> None:
    """The URL of the database does not depend on where the process is later."""
    settings = settings_from("orders", topology.addresses, {"MESH_HOME": "state"})
    assert settings.database == f"sqlite:///{Path.cwd()}/state/orders.db"


def test_an_offset_moves_everything() -> None:
    """Service, broker, mail server and peers move together; an override wins."""
    environment = {"MESH_PORT_OFFSET": "100", "MESH_TARGETS": "payments=10.0.0.1:1"}
    settings = settings_from("orders", topology.addresses, environment)
    assert settings.address == "127.0.0.1:9151"
    assert settings.broker == ["tls://127.0.0.1:4322"]
    assert settings.mail_server == "127.0.0.1:9161"
    assert settings.peers["inventory"] == "127.0.0.1:9153"
    assert settings.peers["payments"] == "10.0.0.1:1"


def test_what_is_set_is_used(tmp_path: Path) -> None:
    """Every variable replaces its default; the broker's token comes from its file otherwise."""
    environment = {
        "MESH_HOME": str(tmp_path),
        "MESH_LISTEN": "0.0.0.0:1",
        "MESH_HEALTH": "0.0.0.0:2",
        "DATABASE_URL": "postgresql://db/shop",
        "NATS_URL": "nats://broker:1",
        "SMTP_ADDRESS": "mail:25",
        "LOG_FORMAT": "text",
    }
    settings = settings_from("orders", topology.addresses, environment)
    assert (settings.address, settings.health_address) == ("0.0.0.0:1", "0.0.0.0:2")
    assert settings.database == "postgresql://db/shop"
    assert settings.broker == ["nats://broker:1"]
    assert settings.mail_server == "mail:25"
    assert settings.log_format == "text"
    (tmp_path / "nats.token").write_text("secret\n")
    assert settings.broker_token == "secret"
    environment["NATS_TOKEN"] = "other"
    given = settings_from("orders", topology.addresses, environment)
    assert given.broker_token == "other"
    assert "other" not in repr(given)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MESH_PORT_OFFSET", "many"),
        ("MESH_PORT_OFFSET", "-1"),
        ("MESH_PORT_OFFSET", "1.5"),
        ("MESH_PORT_OFFSET", str(MIN_OFFSET - 1)),
        ("MESH_PORT_OFFSET", str(MAX_OFFSET + 1)),
        ("LOG_FORMAT", "xml"),
        ("MESH_TARGETS", "payments"),
        ("MESH_TARGETS", "=10.0.0.1:1"),
        ("MESH_TARGETS", "payments=10.0.0.1:1,10.0.0.2:1"),
        ("NATS_URL", "nats://a:4222,b:4222"),
        ("NATS_URL", "nats://"),
        ("NATS_URL", "http://a:4222"),
        ("NATS_REPLICAS", "2"),
        ("NATS_REPLICAS", "many"),
        ("MAIL_QUEUE", "mine"),
        ("MAX_BACKLOG", "0"),
        ("MAX_BACKLOG", "-1"),
        ("MAX_BACKLOG", "many"),
    ],
)
def test_what_cannot_be_used_is_refused(variable: str, value: str) -> None:
    """A value that makes no sense is an error that names it, before anything is started."""
    with pytest.raises(ValueError, match=rf"{variable}|port offset"):
        settings_from("orders", topology.addresses, {variable: value})


def test_an_empty_variable_is_none() -> None:
    """A variable that is set to nothing is as one that is not set."""
    names = ("MESH_PORT_OFFSET", "LOG_FORMAT", "MESH_HOME", "DATABASE_URL", "MESH_TARGETS")
    settings = settings_from(
        "orders", topology.addresses, {**dict.fromkeys(names, ""), "MESH_IDENTITY": "."}
    )
    assert settings == Settings("orders", topology.addresses(), identity=Path("."))


def test_a_broker_may_have_several_seeds(tmp_path: Path) -> None:
    """They are separated by commas; a bad one is named without its password."""
    environment = {"NATS_URL": "nats://a:1, tls://me:secret@b,", "NATS_REPLICAS": "3"}
    settings = settings_from("orders", topology.addresses, environment)
    assert settings.broker == ["nats://a:1", "tls://me:secret@b"]
    assert settings.nats_replicas == 3
    with pytest.raises(ValueError, match="NATS_URL: 'b' is not") as caught:
        settings_from("orders", topology.addresses, {"NATS_URL": "me:secret@b"})
    assert "secret" not in str(caught.value)


def test_a_target_may_have_several_addresses() -> None:
    """The commas of `ipv4:` and `ipv6:` belong to the address."""
    text = "orders=ipv4:10.0.0.1:1,10.0.0.2:1, 10.0.0.3:1,payments=ipv6:[::1]:1,[::1]:2,a=b:1"
    assert targets(text) == {
        "orders": "ipv4:10.0.0.1:1,10.0.0.2:1,10.0.0.3:1",
        "payments": "ipv6:[::1]:1,[::1]:2",
        "a": "b:1",
    }


def test_certificates_are_those_of_the_service_in_the_home_unless_it_is_told(
    tmp_path: Path,
) -> None:
    """The usual folder, another one, or none for loopback alone."""
    usual = tmp_path / "certs" / "orders"
    usual.mkdir(parents=True)
    home = {"MESH_HOME": str(tmp_path)}
    read = partial(Settings.from_environment, "orders", topology.addresses)
    assert read(home).identity == usual
    assert read(home).revoked == tmp_path / "certs" / "revoked.txt"
    assert read({"MESH_IDENTITY": str(tmp_path)}).identity == tmp_path
    assert read({**home, "MESH_ROUTES": "routes.json"}).routes == "routes.json"
    assert read({**home, "MESH_CONTROL_PLANE": "unix:ads"}).control_plane == "unix:ads"
    assert read({**home, "MESH_INSECURE": "1"}).identity is None
    assert read({**home, "MESH_INSECURE": "1"}).broker == ["nats://127.0.0.1:4222"]
    own, named = read(home), read({**home, "NATS_URL": "tls://me:secret@elsewhere"})
    assert own.own_broker
    assert own.broker_by_certificate
    assert not named.broker_by_certificate
    assert read({**home, "DATABASE_URL": "postgresql://{service}@db"}).database.endswith(
        "orders@db"
    )
    assert read({**home, "MESH_INSECURE": "1", "MESH_LISTEN": "[::1]:1"}).revoked is None


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({}, "no identity: there is no folder .mesh/certs/orders.*MESH_INSECURE=1"),
        ({"MESH_IDENTITY": "nowhere"}, "there is no folder nowhere"),
        ({"MESH_INSECURE": "yes"}, "expected 1 or nothing"),
        ({"MESH_INSECURE": "1", "MESH_ROUTES": "r.json"}, "without TLS nobody obeys"),
        ({"MESH_INSECURE": "1", "MESH_CONTROL_PLANE": "unix:x"}, "without TLS nobody obeys"),
        ({"MESH_INSECURE": "1", "MESH_LISTEN": "0.0.0.0:1"}, "loopback only"),
        ({"MESH_INSECURE": "1", "MESH_LISTEN": "orders.internal:1"}, "loopback only"),
    ],
)
def test_a_service_does_not_start_open_to_everybody(
    environment: dict[str, str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an identity, and without a word that none is wanted, it is refused in one line."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=says):
        Settings.from_environment("orders", topology.addresses, environment)
