"""The database: durable, private, one transaction at a time."""

from __future__ import annotations

import sqlite3
import stat
import threading
from pathlib import Path

import pytest

from llamactl import database as module
from llamactl.database import Database
from llamactl.errors import ConfigError


def count(database: Database) -> int:
    return int(database.read("SELECT count(*) FROM verified")[0][0])


def insert(database: Database, path: str) -> None:
    with database.write() as cursor:
        cursor.execute("INSERT INTO verified VALUES (?, 'oid', 1, 2, 3)", (path,))


def test_a_failed_transaction_changes_nothing(database: Database) -> None:
    with pytest.raises(sqlite3.IntegrityError), database.write() as cursor:
        cursor.execute("INSERT INTO verified VALUES ('a', 'oid', 1, 2, 3)")
        cursor.execute("INSERT INTO verified VALUES ('a', 'oid', 1, 2, 3)")
    assert count(database) == 0
    insert(database, "a")
    assert count(database) == 1


def test_content_is_there_after_it_was_opened_again(tmp_path: Path) -> None:
    database = Database(tmp_path / "deep" / "llamactl.db")
    database.open()
    insert(database, "a")
    database.close()
    database.open()
    assert count(database) == 1
    database.close()


def test_the_file_is_for_its_owner_only(database: Database) -> None:
    insert(database, "a")
    for file in database.path.parent.glob("llamactl.db*"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_many_threads_write_at_once(database: Database) -> None:
    def work(number: int) -> None:
        for step in range(25):
            insert(database, f"{number}-{step}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count(database) == 200


def test_a_database_of_a_newer_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "llamactl.db"
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version={len(module.MIGRATIONS) + 1}")
    connection.close()
    with pytest.raises(ConfigError, match="newer llamactl"):
        Database(path).open()


def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "llamactl.db"
    path.write_bytes(b"this is not a database, but somebody's text" * 100)
    with pytest.raises(ConfigError, match="cannot be used"):
        Database(path).open()
    assert path.read_bytes().startswith(b"this is not a database")


def test_a_migration_that_fails_leaves_the_version_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(tmp_path / "llamactl.db")
    database.open()
    insert(database, "a")
    database.close()
    broken = (*module.MIGRATIONS, "CREATE TABLE extra (a TEXT); CREATE TABLE extra (a TEXT)")
    monkeypatch.setattr(module, "MIGRATIONS", broken)
    with pytest.raises(ConfigError):
        Database(database.path).open()
    monkeypatch.undo()
    database.open()
    assert count(database) == 1
    database.close()
