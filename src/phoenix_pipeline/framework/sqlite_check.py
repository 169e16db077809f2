"""What is wrong with MLflow's SQLite file, told at once: MLflow itself retries for two minutes."""

import sqlite3
from contextlib import closing
from pathlib import Path

PATIENCE_S = 3.0
_MAGIC = b"SQLite format 3\x00"
_OWN_TABLES = {"experiments", "runs"}
_MOVE_AWAY = "move the file away (a new one is made)"


def sqlite_file(uri: str) -> Path | None:
    """Return the file of a ``sqlite:///`` address, ``~`` expanded; None for any other address."""
    path = uri.removeprefix("sqlite:///").partition("?")[0]
    if path == uri or path in ("", ":memory:"):
        return None
    return Path(path).expanduser()


def find_problem(file: Path) -> str | None:
    """Return why MLflow cannot use ``file``, with what to do about it; None when it can.

    A file that is not there is made.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.is_file() and (problem := _broken_header(file)):
            return problem
        with closing(sqlite3.connect(file, timeout=PATIENCE_S, isolation_level=None)) as database:
            problem = _foreign_tables(database)
            if problem is None:
                _try_writing(database)
            return problem
    except OSError as error:
        return f"{error.filename or file}: {error.strerror}; allow writing there"
    except sqlite3.OperationalError as error:
        return f"{error}; {_remedy(str(error))}"
    except sqlite3.DatabaseError as error:
        return f"it is damaged ({error}); {_MOVE_AWAY}"


def _broken_header(file: Path) -> str | None:
    """Tell a file of another kind, or one that ends early, by SQLite's first hundred bytes."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        header = stream.read(100)
    if not size:
        return None
    if not header.startswith(_MAGIC):
        return f"it is no SQLite database; {_MOVE_AWAY}"
    page = int.from_bytes(header[16:18], "big")
    pages = int.from_bytes(header[28:32], "big")
    is_current = len(header) == 100 and header[24:28] == header[92:96]
    expected = (65536 if page == 1 else page) * pages
    if len(header) < 100 or (is_current and size < expected):
        return f"it is truncated ({size} of {expected} bytes); {_MOVE_AWAY}"
    return None


def _foreign_tables(database: sqlite3.Connection) -> str | None:
    rows = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    tables = {name for (name,) in rows if not name.startswith("sqlite_")} - {"alembic_version"}
    if tables and not tables >= _OWN_TABLES:
        shown = ", ".join(sorted(tables)[:3])
        return f"it holds the tables of another program ({shown}); name another file"
    return None


def _try_writing(database: sqlite3.Connection) -> None:
    """Write and take it back; raises sqlite3.OperationalError when that is not possible."""
    database.execute("BEGIN IMMEDIATE")
    database.execute("CREATE TABLE phoenix_probe (x)")
    database.execute("ROLLBACK")


def _remedy(reason: str) -> str:
    if "locked" in reason:
        return f"another program has held it for {PATIENCE_S:.0f} s: end that, or start again later"
    if "full" in reason:
        return "free some space"
    return "allow writing to it and to its folder"
