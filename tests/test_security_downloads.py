"""Downloads over https from a server that lies, and names that shall not become addresses or paths."""

import contextlib
import gzip
import hashlib
import http.server
import shutil
import ssl
import subprocess
import threading
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnjax import data
from nnjax.data import DataError, cache

GOOD = b"0123456789" * 20_000


class Liar(http.server.BaseHTTPRequestHandler):
    asked: ClassVar[list[str]] = []

    def do_GET(self):
        name = self.path.strip("/")
        type(self).asked.append(name)
        bodies = {
            "good": GOOD, "corrupt": GOOD[::-1], "short": GOOD[:1000], "endless": GOOD * 500,
            "zipped": gzip.compress(bytes(50_000_000)),
        }  # fmt: skip
        elsewhere = {
            "to-http": f"http://localhost:{self.server.server_port}/good",
            "to-file": "file:///etc/passwd",
            "to-ftp": "ftp://localhost/good",
            "round": "/round",
        }
        if name in elsewhere:
            self.send_response(302)
            self.send_header("Location", elsewhere[name])
        else:
            self.send_response(200)
            if name == "zipped":
                self.send_header("Content-Encoding", "gzip")
            if name == "long-name":
                self.send_header("Content-Disposition", "attachment; filename=../../outside")
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(bodies.get(name, GOOD if name == "long-name" else b""))

    def log_message(self, *args):
        pass


class QuietServer(http.server.ThreadingHTTPServer):
    def handle_error(self, request, address):  # clients that hang up are what is tested
        pass


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A local https server with a certificate of its own; gives its address and that certificate."""
    if not shutil.which("openssl"):
        pytest.skip("needs openssl to make a certificate")
    folder = tmp_path_factory.mktemp("certificate")
    made = [folder / "key.pem", folder / "certificate.pem"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:TRUE",
         "-keyout", made[0], "-out", made[1]],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made[1], made[0])
    with QuietServer(("127.0.0.1", 0), Liar) as running:
        running.socket = context.wrap_socket(running.socket, server_side=True)
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"https://localhost:{running.server_port}/", made[1]
        running.shutdown()
        thread.join()


@pytest.fixture
def trusted(server, monkeypatch):
    """The server's certificate counts as sound."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(server[1]))
    monkeypatch.setenv("NO_PROXY", "localhost")


def source(url, content=GOOD):
    return cache.SourceFile("mnist", "mnist/some.gz", len(content), hashlib.sha256(content).hexdigest(), url)


@pytest.mark.usefixtures("trusted")
def test_an_honest_server_is_believed(server, tmp_path):
    assert cache.read(source(server[0] + "good"), cache=tmp_path / "a") == GOOD
    assert cache.read(source(server[0] + "long-name"), cache=tmp_path / "b") == GOOD
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["some.gz", "some.gz"]


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("corrupt", "thrown away: its SHA-256"),
        ("short", "sent 1,000 of 200,000 bytes"),
        ("endless", "sent more than 200,000 bytes"),
        ("zipped", "sent it compressed"),
        ("to-http", "not https"),
        ("to-file", "not https"),
        ("to-ftp", "not https"),
        ("round", "TooManyRedirects"),
    ],
)
def test_a_server_that_lies_leaves_nothing(server, tmp_path, address, says):
    Liar.asked.clear()
    with pytest.raises(DataError, match=says) as error:
        cache.read(source(server[0] + address), cache=tmp_path)
    assert "\n" not in str(error.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert "good" not in Liar.asked


def test_a_certificate_that_nobody_signed_is_refused(server, tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "localhost")
    Liar.asked.clear()
    with pytest.raises(DataError, match="SSLError"):
        cache.read(source(server[0] + "good"), cache=tmp_path)
    assert not Liar.asked
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("url", ["file:///etc/passwd", "http://localhost:1/", "ftp://localhost/x", "/etc/passwd"])
def test_addresses_that_are_not_https_are_not_asked(tmp_path, url):
    with pytest.raises(DataError):
        cache.read(source(url), cache=tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@given(st.text(max_size=30))
@settings(max_examples=50, deadline=None)
def test_no_name_of_a_data_set_becomes_a_path(name):
    if name not in data.names():
        with pytest.raises(ValueError, match="unknown data set"):
            data.load(name, cache="/nonexistent")
