"""Storing by DICOMweb: in a real Orthanc, and with servers that fail in every way."""

import http.server
import json
import ssl
import subprocess
import threading

import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient

from heartseg_jax.errors import UserError
from heartseg_jax.export import store
from heartseg_jax.export.dicom_seg import write_segmentation
from heartseg_jax.export.dicom_sr import write_report
from heartseg_jax.export.registry import Options
from heartseg_jax.export.rtstruct import write_rtstruct
from heartseg_jax.export.store import PASSWORD, TOKEN, USER, checked, send
from tests.dicom_writer import SERIES
from tests.export.orthanc import free_port, running
from tests.programs import needed

SECRET = "geheim-7741903"
STRANGE = b'{"00081199": {"vr": "LO", "Value": ["x"]}}'
FAILED_XML = (
    b'<?xml version="1.0"?><NativeDicomModel><DicomAttribute tag="00081198" vr="SQ" keyword="FailedSOPSequence">'
    b'<Item number="1"><DicomAttribute tag="00081197" vr="US" keyword="FailureReason"><Value number="1">272</Value>'
    b"</DicomAttribute></Item></DicomAttribute></NativeDicomModel>"
)


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch, tmp_path):
    """Nobody's own credentials and proxies are used, and nobody waits."""
    for name in (TOKEN, USER, PASSWORD, "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "netrc").write_text("")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setattr(store, "WAITS_S", (0.0, 0.0))


@pytest.fixture(scope="module")
def objects(case_of, tmp_path_factory):
    """The three objects of a study."""
    case, folder = case_of("oblique7-3mm"), tmp_path_factory.mktemp("objects")
    for write in (write_segmentation, write_report, write_rtstruct):
        write(case.prediction, case.measurements, folder, Options())
    return [folder / name for name in ("segmentation.dcm", "report.dcm", "rtstruct.dcm")]


# A real archive


@pytest.mark.system
def test_orthanc_gives_back_what_was_stored(case_of, objects, tmp_path):
    case, seen = case_of("oblique7-3mm"), []
    images = sorted((case.folder / "study").iterdir())
    with running(tmp_path) as url:
        send(url, [*images, *objects], lambda *done: seen.append(done))
        assert seen[-1] == (len(images) + 3, len(images) + 3)
        send(url, objects)  # again: it is the same object

        client = DICOMwebClient(url)
        study = "1.2.826.0.1.3680043.8.498.2"
        listed = {
            found["00080060"]["Value"][0]: found["0020000E"]["Value"][0] for found in client.search_for_series(study)
        }
        assert sorted(listed) == ["CT", "RTSTRUCT", "SEG", "SR"]
        assert listed["CT"] == SERIES
        for path in objects:
            sent = pydicom.dcmread(path)
            assert listed[sent.Modality] == sent.SeriesInstanceUID
            (back,) = client.retrieve_series(study, sent.SeriesInstanceUID)
            assert back == sent, "every element, the pixels among them"


@pytest.mark.system
def test_orthanc_with_passwords(objects, tmp_path, monkeypatch, capfd):
    with running(tmp_path, {"ana": SECRET}) as url:
        with pytest.raises(UserError, match=r"401.*HEARTSEG_STORE_USER.*netrc.*0 of 1"):
            send(url, objects[1:2])
        monkeypatch.setenv(USER, "ana")
        monkeypatch.setenv(PASSWORD, "wrong")
        with pytest.raises(UserError, match=r"does not accept the credentials \(401\)") as error:
            send(url, objects[1:2])
        assert "wrong" not in str(error.value)
        monkeypatch.setenv(PASSWORD, SECRET)
        send(url, objects[1:2])
        monkeypatch.delenv(USER)
        monkeypatch.delenv(PASSWORD)
        (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login ana password {SECRET}\n")
        send(url, objects[2:])
        assert len(DICOMwebClient(url).search_for_instances()) == 2  # by ~/.netrc, too
    captured = capfd.readouterr()
    assert SECRET not in captured.out + captured.err


# URLs


@pytest.mark.parametrize(
    ("url", "root"),
    [
        ("https://pacs.example.org/dicom-web", "https://pacs.example.org/dicom-web"),
        ("http://localhost:8042/dicom-web/studies/", "http://localhost:8042/dicom-web"),
        (" https://pacs.example.org ", "https://pacs.example.org"),
    ],
)
def test_the_root_of_a_service_is_understood(url, root):
    assert checked(url) == root


@pytest.mark.parametrize(
    "url",
    [
        f"https://ana:{SECRET}@pacs.example.org/dicom-web",
        f"https://{SECRET}@pacs.example.org",
        f"https://pacs.example.org/dicom-web?token={SECRET}",
        f"https://pacs.example.org/#{SECRET}",
        f"https://ana:{SECRET}",
        f"https://[{SECRET}/",
        f"pacs/{SECRET}",
        "ftp://pacs.example.org",
        "",
    ],
)
def test_other_urls_are_refused_and_not_repeated(url):
    with pytest.raises(UserError, match="--store") as error:
        checked(url)
    assert SECRET not in str(error.value)


# Servers that fail


@pytest.fixture
def server():
    """A server that gives the answers of its list `script` in turn: (status, headers, body), or None to hang up."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.server.asked.append(self.headers)
            answer = self.server.script.pop(0)
            if answer is None:
                self.connection.close()
                return
            status, headers, body = answer
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST

        def log_message(self, *_):
            pass

    found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.script, found.asked, found.url = [], [], f"http://127.0.0.1:{found.server_port}/dicom-web"
    thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield found
    found.shutdown()
    found.server_close()


def answer(status, uid="", failed=None, warning=None, kind="application/dicom+json"):
    """A STOW-RS answer in the DICOM JSON model."""
    item = {"00081155": {"vr": "UI", "Value": [uid]}}
    if failed is not None:
        body = {"00081198": {"vr": "SQ", "Value": [item | {"00081197": {"vr": "US", "Value": [failed]}}]}}
    else:
        extra = {} if warning is None else {"00081196": {"vr": "US", "Value": [warning]}}
        body = {"00081199": {"vr": "SQ", "Value": [item | extra]}}
    return status, {"Content-Type": kind}, json.dumps(body).encode()


def plain(status, **headers):
    return status, headers, b""


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (plain(401), r"401.*HEARTSEG_STORE_USER"),
        (plain(403), r"403"),
        (plain(404), r"/studies.*404.*/dicom-web"),
        (plain(405), r"405.*/dicom-web"),
        (plain(301, Location="https://127.0.0.1/dicom-web/studies"), "redirect"),
    ],
)
def test_what_concerns_all_objects_ends_the_sending(server, objects, reply, words):
    server.script = [reply]
    with pytest.raises(UserError, match=words + r".*0 of 3") as error:
        send(server.url, objects)
    assert len(server.asked) == 1
    assert "\n" not in str(error.value)


def uid_of(path):
    return pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID


@pytest.mark.parametrize("kind", ["application/dicom+json", "application/dicom+json; charset=utf-8"])
@pytest.mark.parametrize("status", [200, 202, 409])
def test_an_object_that_is_refused_does_not_stop_the_others(server, objects, status, kind):
    uids = [uid_of(path) for path in objects]
    server.script = [answer(200, uids[0], kind=kind), answer(status, uids[1], 0xA900, kind=kind), answer(200, uids[2])]
    with pytest.raises(UserError, match=r"2 of 3 objects; report.dcm.*SOP class.*A900"):
        send(server.url, objects)
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (plain(413), "413"),
        (plain(400), "400"),
        (plain(202), "202"),
        ((200, {"Content-Type": "text/html"}, b"<html>Log in</html>"), "no DICOMweb service"),
        (answer(200, "1.2.3"), "no DICOMweb service"),
        ((200, {"Content-Type": "text/plain"}, b"please log in"), "no DICOMweb service"),
        ((200, {"Content-Type": "application/json"}, b'{"ok": true}'), "no DICOMweb service"),
        ((200, {"Content-Type": "application/dicom+json"}, b'{"ok": true}'), "no DICOMweb service"),
        ((200, {"Content-Type": "application/dicom+json"}, b"[]"), "no DICOMweb service"),
        ((200, {"Content-Type": "application/dicom+json"}, b"{}"), "no DICOMweb service"),
        ((200, {"Content-Type": "application/dicom+json"}, STRANGE), "no DICOMweb service"),
        ((200, {"Content-Type": "application/dicom+xml"}, FAILED_XML), "0110"),
    ],
)
def test_an_answer_that_does_not_say_stored_is_a_failure(server, objects, reply, words):
    server.script = [reply]
    with pytest.raises(UserError, match=rf"0 of 1 objects; report.dcm.*{words}"):
        send(server.url, objects[1:2])


def test_a_warning_of_the_archive_is_passed_on(server, objects, capsys):
    server.script = [answer(202, uid_of(objects[1]), warning=0xB000)]
    send(server.url, objects[1:2])
    assert "B000" in capsys.readouterr().err


@pytest.mark.parametrize("status", [200, 202, 409])
def test_what_the_archive_has_already_is_stored(server, objects, capsys, status):
    server.script = [answer(status, uid_of(objects[1]), 0x0111)]
    send(server.url, objects[1:2])
    assert "already" in capsys.readouterr().err


def test_an_empty_success_is_a_success(server, objects):
    server.script = [plain(200)]
    send(server.url, objects[1:2])


def test_a_busy_archive_and_a_broken_connection_are_tried_again(server, objects):
    server.script = [plain(503), None, answer(200, uid_of(objects[0]))]
    send(server.url, objects[:1])
    lengths = {headers["Content-Length"] for headers in server.asked}
    assert len(server.asked) == 3
    assert len(lengths) == 1
    assert int(lengths.pop()) > objects[0].stat().st_size, "whole at each try"


def test_it_is_not_tried_for_ever(server, objects):
    server.script = [plain(503)] * 9
    with pytest.raises(UserError, match=r"503.*later"):
        send(server.url, objects[:1])
    assert len(server.asked) == 3


def test_nothing_that_listens(objects, caplog, capfd):
    with pytest.raises(UserError, match="connection refused"):
        send(f"http://127.0.0.1:{free_port()}/dicom-web", objects)
    assert caplog.text == "".join(capfd.readouterr()) == "", "libraries say nothing"


def test_https_where_http_is_spoken(server, objects):
    server.script = [plain(200)] * 3
    with pytest.raises(UserError, match="http://"):
        send(server.url.replace("http:", "https:"), objects)


@pytest.mark.system
def test_a_certificate_of_its_own(server, objects, tmp_path, monkeypatch):
    words = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    words += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", tmp_path / "key", "-out", tmp_path / "crt"]
    subprocess.run([needed("openssl"), *words], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "crt", tmp_path / "key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    url = server.url.replace("http:", "https:")
    server.script = [answer(200, uid_of(objects[1]))]
    with pytest.raises(UserError, match=r"certificate.*REQUESTS_CA_BUNDLE"):
        send(url, objects[1:2])
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "crt"))
    send(url, objects[1:2])
    assert server.script == []


def test_a_host_that_is_not_known(objects):
    with pytest.raises(UserError, match="host"):
        send("http://pacs.invalid/dicom-web", objects)


def test_a_file_that_is_no_dicom(server, tmp_path):
    (tmp_path / "x.dcm").write_text("no")
    with pytest.raises(UserError, match=r"x\.dcm"):
        send(server.url, [tmp_path / "x.dcm"])


# Credentials


def test_a_token_goes_before_an_entry_in_netrc(server, objects, monkeypatch, tmp_path, capfd):
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login ana password {SECRET}\n")
    monkeypatch.setenv(TOKEN, SECRET)
    server.script = [answer(200, uid_of(objects[1]))]
    send(server.url, objects[1:2])
    assert server.asked[0]["Authorization"] == f"Bearer {SECRET}"
    captured = capfd.readouterr()
    assert SECRET not in captured.out + captured.err


def test_half_of_the_credentials_is_refused(server, objects, monkeypatch):
    monkeypatch.setenv(USER, "ana")
    with pytest.raises(UserError, match="HEARTSEG_STORE_PASSWORD"):
        send(server.url, objects)
    assert server.asked == []


def test_a_user_and_password_outside_ascii(server, objects, monkeypatch):
    monkeypatch.setenv(USER, "Zoë")
    monkeypatch.setenv(PASSWORD, "contraseña")
    server.script = [answer(200, uid_of(objects[1]))]
    send(server.url, objects[1:2])
    assert server.asked[0]["Authorization"] == "Basic Wm/Dqzpjb250cmFzZcOxYQ=="
