"""Starting, stopping and configuring: what an operator meets."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import grpc
import pytest
import requests
from conftest import Process, Saker, binary, eventually, free_port, row, simple_collection
from pymilvus import MilvusClient, MilvusException


def run(*arguments: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run([binary(), *arguments], capture_output=True, text=True, timeout=60, **options)


class Server(Process):
    """`saker serve` with a configuration of the test's own."""

    def __init__(self, directory: Path, extra: str = "", data: str = "data", kms: str = "") -> None:
        directory.mkdir(exist_ok=True)
        self.port = free_port()
        self.config = directory / "saker.toml"
        self.config.write_text(
            f'[server]\nlisten = "127.0.0.1:{self.port}"\n[data]\ndir = "{data}"\n'
            f'[kms]\nplatform_key_file = "platform.key"\n{kms}\n{extra}\n'
        )
        super().__init__(["serve", "--config", str(self.config)], directory / "log")
        self.address = f"127.0.0.1:{self.port}"
        self.uri = f"http://{self.address}"

    def client(self, **options) -> MilvusClient:
        return MilvusClient(self.uri, dedicated=True, **options)


@pytest.fixture
def server(tmp_path):
    servers: list[Server] = []

    def make(*arguments, directory: str = "server", **options) -> Server:
        servers.append(Server(tmp_path / directory, *arguments, **options))
        return servers[-1]

    yield make
    for one in servers:
        one.stop()


def test_a_restart_keeps_everything(own_saker: Saker) -> None:
    client = own_saker.client()
    simple_collection(client, "books", rows=100)
    client.flush("books")
    client.insert("books", [row(key) for key in range(100, 120)])
    client.delete("books", ids=[5, 105])
    assert own_saker.stop() == 0
    own_saker.start()
    client = own_saker.client()
    eventually(lambda: client.query("books", filter="", output_fields=["count(*)"])[0]["count(*)"] == 118)
    assert client.get("books", ids=[5, 105]) == []
    assert client.search("books", data=[row(110)["vector"]], limit=1)[0][0]["id"] == 110


def test_the_key_server_goes_with_its_parent(own_saker: Saker) -> None:
    children = Path(f"/proc/{own_saker.process.pid}/task/{own_saker.process.pid}/children")
    pids = {
        int(pid)
        for task in Path(f"/proc/{own_saker.process.pid}/task").iterdir()
        for pid in (task / "children").read_text().split()
    }
    assert children.exists() and len(pids) == 1
    own_saker.process.send_signal(signal.SIGKILL)
    own_saker.process.wait(10)
    own_saker.process = None
    (child,) = pids
    eventually(lambda: not Path(f"/proc/{child}").exists(), seconds=15)


def test_free_ports(tmp_path) -> None:
    server = Process(
        ["dev", "--dir", str(tmp_path / "dev"), "--port", "0", "--kms-port", "0", "--console-port", "0"],
        tmp_path / "log",
    )
    words = dict(part.split("=", 1) for part in server.start().split()[1:])
    try:
        assert requests.get(f"{words['database']}/healthz", timeout=10).text == "OK"
        page = requests.get(words["console"], timeout=10)
        assert page.status_code == 200 and words["database"] in page.text and "file:platform" in page.text
        assert MilvusClient(words["database"], dedicated=True).list_databases() == ["default"]
    finally:
        assert server.stop() == 0


def test_a_taken_port(saker: Saker, tmp_path) -> None:
    for option in ("--port", "--console-port", "--kms-port"):
        ports = {"--port": "0", "--console-port": "0", "--kms-port": "0", option: str(saker.port)}
        outcome = run("dev", "--dir", str(tmp_path / "dev"), *(word for pair in ports.items() for word in pair))
        assert outcome.returncode == 1
        assert f"127.0.0.1:{saker.port}" in outcome.stderr and "another program has this port" in outcome.stderr


def test_two_servers_on_one_directory(server) -> None:
    first = server()
    first.start()
    simple_collection(first.client(), "books", rows=3)
    second = Server(first.config.parent, data="data")
    second.config.write_text(second.config.read_text())
    outcome = run("serve", "--config", str(second.config))
    assert outcome.returncode == 1 and str(first.process.pid) in outcome.stderr, outcome.stderr
    assert first.client().get("books", ids=[1])[0]["text"] == "row 1"


def test_a_directory_of_another_cluster(server, tmp_path) -> None:
    first = server(directory="first")
    first.start()
    simple_collection(first.client(), "books", rows=3)
    first.stop()
    second = server(directory="second")
    second.start()
    second.stop()
    # The data of the first under the platform key of the second.
    shutil.rmtree(tmp_path / "second" / "data")
    shutil.copytree(tmp_path / "first" / "data", tmp_path / "second" / "data")
    outcome = run("serve", "--config", str(second.config))
    assert outcome.returncode == 1 and "another" in outcome.stderr, outcome.stderr
    # Parts of the second within the first.
    first.start()
    first.stop()
    assert first.process is None


def test_configuration_mistakes(tmp_path) -> None:
    path = tmp_path / "saker.toml"
    for text, part in [
        ("", "data"),
        ('[data]\ndir = "d"\n', "kms.platform_key_file"),
        ('[data]\ndir = "d"\n[kms]\nplatform_key_file = "k"\ngrace = 3\n', "grace"),
        ('[data]\ndir = "d"\n[kms]\nplatform_key_file = "k"\n[tls]\ncertificate = "c"\nkey = "k"\n', "tls.certificate"),
    ]:
        path.write_text(text)
        outcome = run("serve", "--config", str(path))
        assert outcome.returncode == 1 and part in outcome.stderr, outcome.stderr
    assert run("serve", "--config", str(tmp_path / "nothing.toml")).returncode == 1
    assert run("serve").returncode == 2
    assert run("--help").returncode == 0


def test_authentication(server) -> None:
    one = server("[auth]\nenabled = true")
    one.start()
    for options in ({}, {"token": "root:wrong"}, {"user": "nobody", "password": "Milvus"}):
        with pytest.raises(MilvusException):
            one.client(timeout=5, **options)
    channel = grpc.insecure_channel(one.address)
    from pymilvus.grpc_gen import milvus_pb2, milvus_pb2_grpc  # noqa: PLC0415

    with pytest.raises(grpc.RpcError) as refusal:
        milvus_pb2_grpc.MilvusServiceStub(channel).ListDatabases(milvus_pb2.ListDatabasesRequest())
    assert refusal.value.code() == grpc.StatusCode.UNAUTHENTICATED
    metrics = requests.get(f"{one.uri}/metrics", timeout=10).text
    assert 'saker_grpc_refused_total{rpc="ListDatabases",status="16"} 1' in metrics

    root = one.client(token="root:Milvus")
    simple_collection(root, "books", rows=3)
    root.create_user("ann", "secret-1")
    assert sorted(root.list_users()) == ["ann", "root"]
    ann = one.client(user="ann", password="secret-1")
    assert ann.get("books", ids=[1])[0]["text"] == "row 1"
    with pytest.raises(MilvusException, match="only root"):
        ann.create_user("eve", "secret-2")
    with pytest.raises(MilvusException):
        ann.update_password("ann", "wrong-old", "secret-3")
    ann.update_password("ann", "secret-1", "secret-3")
    with pytest.raises(MilvusException):
        one.client(user="ann", password="secret-1", timeout=5)
    one.client(user="ann", password="secret-3").list_databases()
    root.drop_user("ann")
    with pytest.raises(MilvusException):
        one.client(user="ann", password="secret-3", timeout=5)
    root.update_password("root", "Milvus", "changed-1")
    one.stop()
    one.start()
    with pytest.raises(MilvusException):
        one.client(token="root:Milvus", timeout=5)
    one.client(token="root:changed-1").list_databases()

    keys = f"{one.uri}/v2/cmek/keys"
    assert requests.get(keys, timeout=10).status_code == 401
    assert requests.get(keys, timeout=10, headers={"Authorization": "Bearer root:wrong"}).status_code == 401
    assert requests.get(keys, timeout=10, headers={"Authorization": "Bearer root:changed-1"}).json()["code"] == 0
    assert requests.get(f"{one.uri}/healthz", timeout=10).status_code == 200
    assert "changed-1" not in one.log_text()


def certificate(directory: Path, name: str, issuer: str | None = None) -> tuple[Path, Path]:
    """A key and a certificate for 127.0.0.1, by openssl."""
    key, request, signed = (directory / f"{name}.{kind}" for kind in ("key", "csr", "pem"))
    subject = ["-subj", f"/CN={name}"]
    extensions = directory / f"{name}.ext"
    authority = "TRUE" if issuer is None else "FALSE"
    extensions.write_text(f"subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:{authority}\n")
    call = ["openssl", "req", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(request), *subject]
    subprocess.run(call, check=True, capture_output=True)
    sign = ["openssl", "x509", "-req", "-in", str(request), "-days", "2", "-extfile", str(extensions), "-out", str(signed)]
    if issuer is None:
        sign += ["-signkey", str(key)]
    else:
        sign += ["-CA", str(directory / f"{issuer}.pem"), "-CAkey", str(directory / f"{issuer}.key"), "-CAcreateserial"]
    subprocess.run(sign, check=True, capture_output=True)
    return signed, key


def test_tls(server, tmp_path) -> None:
    authority, _ = certificate(tmp_path, "authority")
    cert, key = certificate(tmp_path, "server", "authority")
    one = server(f'[tls]\ncertificate = "{cert}"\nkey = "{key}"')
    one.start()
    client = MilvusClient(f"https://{one.address}", dedicated=True, secure=True, server_pem_path=str(authority))
    simple_collection(client, "books", rows=3)
    assert client.get("books", ids=[1])[0]["text"] == "row 1"
    assert requests.get(f"https://{one.address}/healthz", verify=authority, timeout=10).text == "OK"
    with pytest.raises(MilvusException):
        MilvusClient(one.uri, dedicated=True, timeout=3)
    outcome = run("key", "list", "--url", f"https://{one.address}", "--ca", str(authority))
    assert outcome.returncode == 0 and "file:platform" in outcome.stdout, outcome.stderr


def test_tls_with_client_certificates(server, tmp_path) -> None:
    authority, _ = certificate(tmp_path, "authority")
    cert, key = certificate(tmp_path, "server", "authority")
    client_cert, client_key = certificate(tmp_path, "client", "authority")
    one = server(f'[tls]\ncertificate = "{cert}"\nkey = "{key}"\nclient_ca = "{authority}"')
    one.start()
    options = {"secure": True, "dedicated": True}
    client = MilvusClient(
        f"https://{one.address}",
        ca_pem_path=str(authority),
        client_pem_path=str(client_cert),
        client_key_path=str(client_key),
        **options,
    )
    assert client.list_databases() == ["default"]
    with pytest.raises(MilvusException):
        MilvusClient(f"https://{one.address}", server_pem_path=str(authority), timeout=3, **options)


def test_metrics_and_keys(saker: Saker, name: str) -> None:
    client = saker.client()
    simple_collection(client, name, rows=7)
    client.search(name, data=[row(1)["vector"]], limit=1)
    text = requests.get(f"{saker.uri}/metrics", timeout=10).text
    assert 'saker_rpc_total{code="0",rpc="Insert"}' in text and 'saker_rpc_seconds_bucket{rpc="Search"' in text
    assert 'saker_key_usable{key="file:platform",state="active"} 1' in text
    assert "saker_key_probes_total" in text and "saker_process_resident_bytes" in text
    assert name not in text
    for path in ("/nothing", "/v2/vectordb/collections/list"):
        answer = requests.post(f"{saker.uri}{path}", timeout=10)
        assert answer.status_code == 404 and answer.json()["code"] == 404
    outcome = run("key", "check", "--url", saker.uri, "--json")
    assert '"file:platform"' in outcome.stdout
    assert run("key", "list", "--url", "http://127.0.0.1:1").returncode == 1


def test_logs_hold_no_rows(own_saker: Saker) -> None:
    client = own_saker.client()
    simple_collection(client, "books")
    secret = "canary-7f3a9c"
    client.insert("books", [{**row(1), "text": secret}])
    client.query("books", filter=f'text == "{secret}"')
    with pytest.raises(MilvusException) as refusal:
        client.query("books", filter=f'text === "{secret}"')
    assert secret not in refusal.value.message
    assert own_saker.stop() == 0
    assert secret not in own_saker.log_text()
    for path in own_saker.directory.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path


def test_a_stop_is_quick_and_clean(own_saker: Saker) -> None:
    assert os.path.exists(own_saker.directory / "aws-credentials")
    own_saker.client().list_databases()
    begun = time.monotonic()
    assert own_saker.stop() == 0
    assert time.monotonic() - begun < 30
