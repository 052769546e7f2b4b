"""Keys: what opens, what does not, and what is left in the database."""

from __future__ import annotations

import dataclasses
import hashlib
import threading

import pytest

from llamactl.access.keys import Keys
from llamactl.config import Config
from llamactl.database import Database
from llamactl.errors import InvalidKey, InvalidRequest, KeyNotFound
from tests.access.conftest import Clock
from tests.conftest import ConfigFactory


def test_a_new_key_opens_inference_and_not_management(keys: Keys) -> None:
    record, secret = keys.create("notebook")
    principal = keys.authenticate(secret.reveal())
    assert principal.kind == "inference"
    assert not principal.is_management
    assert (principal.key_id, principal.name) == (record.id, "notebook")
    assert principal.may_use(1)
    assert principal.may_use(99)


def test_a_key_for_chosen_instances_opens_only_those(keys: Keys) -> None:
    record, secret = keys.create("two", "per_instance", [7, 3, 7])
    principal = keys.authenticate(secret.reveal())
    assert record.instance_ids == (3, 7)
    assert [number for number in range(10) if principal.may_use(number)] == [3, 7]


def test_the_management_key_of_the_file_opens_management(keys: Keys, config: Config) -> None:
    keys.list()
    value = (config.data_dir / "management.key").read_text().strip()
    assert keys.authenticate(value).is_management


def test_configured_management_keys_shut_out_the_key_of_the_file(
    keys: Keys, config: Config, database: Database, make_config: ConfigFactory
) -> None:
    keys.list()
    old = (config.data_dir / "management.key").read_text().strip()
    configured = make_config({"auth.management_keys": "a" * 32 + "," + "b" * 40})
    fresh = Keys(configured, database)
    assert fresh.authenticate("a" * 32).is_management
    assert fresh.authenticate("b" * 40).is_management
    with pytest.raises(InvalidKey):
        fresh.authenticate(old)


@pytest.mark.parametrize(
    "wrong", ["", " ", "llc", "llc_", "llc__", "llc_x_y", "Bearer", "é" * 40, "x" * 100_000, "\0"]
)
def test_what_is_no_key_is_refused(keys: Keys, wrong: str) -> None:
    keys.create("real")
    with pytest.raises(InvalidKey):
        keys.authenticate(wrong)


def test_a_key_with_one_character_changed_is_refused(keys: Keys) -> None:
    _, secret = keys.create("real")
    value = secret.reveal()
    for at in (0, 5, 20, len(value) - 2):
        changed = value[:at] + ("A" if value[at] != "A" else "B") + value[at + 1 :]
        with pytest.raises(InvalidKey):
            keys.authenticate(changed)


def test_a_key_expires_and_a_clock_set_back_does_not_revive_it(keys: Keys, clock: Clock) -> None:
    _, secret = keys.create("short", expires_at=clock.now + 10)
    keys.authenticate(secret.reveal())
    clock.now += 10
    with pytest.raises(InvalidKey, match="expired"):
        keys.authenticate(secret.reveal())
    clock.now -= 3600
    with pytest.raises(InvalidKey, match="expired"):
        keys.authenticate(secret.reveal())


def test_a_deleted_key_is_void_at_once_and_after_a_restart(
    keys: Keys, config: Config, database: Database
) -> None:
    told: list[int] = []
    keys.on_delete(told.append)
    record, secret = keys.create("gone")
    keys.delete(record.id)
    assert told == [record.id]
    for again in (keys, Keys(config, database)):
        with pytest.raises(InvalidKey):
            again.authenticate(secret.reveal())
        with pytest.raises(KeyNotFound):
            again.get(record.id)
        with pytest.raises(KeyNotFound):
            again.delete(record.id)
        assert again.list() == []


def test_keys_and_their_counts_survive_a_restart(
    keys: Keys, config: Config, database: Database, clock: Clock
) -> None:
    record, secret = keys.create("lasting", "per_instance", [4], clock.now + 5000)
    clock.now += 60
    keys.count(record.id, requests=2, tokens=30)
    keys.count(record.id, tokens=12)
    keys.flush()
    again = Keys(config, database, clock)
    found = again.get(record.id)
    assert found == dataclasses.replace(record, requests=2, tokens=42, last_used_at=clock.now)
    assert again.authenticate(secret.reveal()).may_use(4)


def test_counts_are_shown_before_they_are_written(keys: Keys) -> None:
    record, _ = keys.create("busy")
    keys.count(record.id, requests=1)
    assert keys.get(record.id).requests == 1
    assert keys.get(record.id).last_used_at is not None


def test_trying_keys_writes_nothing(keys: Keys, database: Database) -> None:
    _, secret = keys.create("real")
    before = database.read("SELECT total_changes() AS n")[0]["n"]
    for _ in range(100):
        keys.authenticate(secret.reveal())
        with pytest.raises(InvalidKey):
            keys.authenticate(secret.reveal()[:-1])
        keys.flush_if_due()
    assert database.read("SELECT total_changes() AS n")[0]["n"] == before


def test_no_key_can_be_read_from_the_files(keys: Keys, config: Config, database: Database) -> None:
    _, secret = keys.create("hidden")
    database.read("PRAGMA wal_checkpoint")
    random_part = secret.reveal().split("_", 2)[2].encode()
    for file in config.data_dir.rglob("*"):
        if file.is_file():
            assert random_part not in file.read_bytes()
    assert "hidden" not in repr(secret)
    assert random_part.decode() not in repr(keys.list())


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("name", {"name": ""}),
        ("name", {"name": "  "}),
        ("name", {"name": "x" * 101}),
        ("name", {"name": "a\nb"}),
        ("permission_mode", {"name": "n", "permission_mode": "everything"}),
        ("instance_ids", {"name": "n", "permission_mode": "per_instance"}),
        ("expires_at", {"name": "n", "expires_at": 999_999.0}),
        ("expires_at", {"name": "n", "expires_at": float("nan")}),
        ("expires_at", {"name": "n", "expires_at": float("inf")}),
    ],
)
def test_a_bad_field_is_named(keys: Keys, field: str, arguments: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        keys.create(**arguments)  # type: ignore[arg-type]  # wrong values are the point
    assert caught.value.field == field
    assert keys.list() == []


def test_many_threads_count_every_request_once(keys: Keys) -> None:
    record, secret = keys.create("crowd")

    def work() -> None:
        for _ in range(50):
            principal = keys.authenticate(secret.reveal())
            assert principal.key_id is not None
            keys.count(principal.key_id, requests=1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert keys.get(record.id).requests == 400


def test_what_is_stored_is_a_plain_digest_of_256_random_bits(
    keys: Keys, database: Database
) -> None:
    record, secret = keys.create("digest")
    row = database.read("SELECT digest FROM keys WHERE id = ?", (record.id,))[0]
    assert row["digest"] == hashlib.sha256(secret.reveal().encode()).digest()
    assert len(secret.reveal().split("_", 2)[2]) == 43


def test_counts_reach_the_database_now_and_then(
    keys: Keys, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, _ = keys.create("lazy")
    keys.count(record.id, requests=1, tokens=5)

    def stored() -> int:
        return int(database.read("SELECT tokens FROM keys WHERE id = ?", (record.id,))[0]["tokens"])

    keys.flush_if_due()
    assert stored() == 0
    monkeypatch.setattr("llamactl.access.keys.FLUSH_SECONDS", 0.0)
    keys.flush_if_due()
    assert stored() == 5


def test_a_database_that_cannot_be_written_fails_no_request_and_loses_no_count(
    keys: Keys,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    record, secret = keys.create("unlucky")
    keys.count(record.id, requests=1)
    monkeypatch.setattr("llamactl.access.keys.FLUSH_SECONDS", 0.0)
    database.read("PRAGMA query_only = ON")
    keys.flush_if_due()
    assert "could not be written" in caplog.text
    assert keys.authenticate(secret.reveal()).key_id == record.id
    database.read("PRAGMA query_only = OFF")
    keys.flush_if_due()
    rows = database.read("SELECT requests FROM keys WHERE id = ?", (record.id,))
    assert rows[0]["requests"] == 1


def test_a_stop_before_the_start_writes_nothing(config: Config, database: Database) -> None:
    Keys(config, database).stop()
    assert not (config.data_dir / "management.key").exists()
