"""Sends DICOM objects to an archive by DICOMweb (STOW-RS), by dicomweb-client. Credentials come from the environment.

`HEARTSEG_STORE_TOKEN` (a bearer token), or `HEARTSEG_STORE_USER` and `HEARTSEG_STORE_PASSWORD`, else the host's entry
in `~/.netrc` (or the file that `NETRC` names). `REQUESTS_CA_BUNDLE` is the file of a hospital's own authority.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import pydicom
import requests
from dicomweb_client.api import DICOMwebClient
from pydicom import Dataset
from requests.auth import HTTPBasicAuth
from requests.utils import get_netrc_auth

from heartseg_jax.errors import UserError
from heartseg_jax.export.segments import quietly
from heartseg_jax.progress import Progress, say

TOKEN, USER, PASSWORD = "HEARTSEG_STORE_TOKEN", "HEARTSEG_STORE_USER", "HEARTSEG_STORE_PASSWORD"
HOW = f"set {USER} and {PASSWORD}, or {TOKEN}, or give the host an entry in ~/.netrc"
TIMEOUT_S = (10.0, 300.0)
"""To connect, and for each answer: an archive checks and stores an object before it answers."""
WAITS_S = (1.0, 4.0)
"""Before each further try where an archive is busy or a connection breaks. An object may be stored twice: it is one."""
BUSY = (408, 425, 429, 502, 503, 504)
LOOPBACK = ("localhost", "127.0.0.1")
REASONS = {
    0x0110: "it could not be processed",
    0x0122: "its SOP class is not supported",
    0x0124: "it may not be stored by this account",
    0xC122: "its transfer syntax is not supported",
}
"""Of FailureReason (PS3.18, table I.2-2); those with a family are in `_reason`."""

DUPLICATE = "0111"
"""FailureReason where an object of this UID is in the archive already."""


class _Refused(Exception):
    """One object was not stored; others may be."""


class _Token(requests.auth.AuthBase):
    """Sends a bearer token; as authentication, not as a header, which an entry in ~/.netrc would replace."""

    def __init__(self, token: str):
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def checked(url: str) -> str:
    """Return the root of a DICOMweb service, such as 'https://pacs.example.org/dicom-web', without a final slash.

    Raises:
      UserError: it is none, or holds a user, password, query or fragment; these are never repeated.
    """
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        raise UserError("--store is not a URL; give the archive's root, such as https://host/dicom-web") from None
    if "@" in url:
        raise UserError(f"--store must not hold a user or password: {HOW}")
    if parts.query or parts.fragment:
        raise UserError("--store must not have a query (?...) or fragment (#...); give only the archive's root")
    if parts.scheme not in ("http", "https") or not re.fullmatch(r"[A-Za-z0-9._-]+", parts.hostname or ""):
        raise UserError("--store must be http://HOST[:PORT]/PATH or https://..., such as https://host/dicom-web")
    path = re.sub(r"(/studies)?/*$", "", parts.path)
    return f"{parts.scheme}://{parts.hostname}{f':{port}' if port else ''}{path}"


def send(url: str, files: Sequence[Path], progress: Progress | None = None) -> None:
    """Store DICOM files in an archive, one request per file.

    Args:
      url: the root of its DICOMweb service, see `checked`.
      files: in this order; what comes first is referred to by what follows.
      progress: called with (files done, files in all).

    Raises:
      UserError: the URL cannot be used, the archive cannot be reached or does not let us in, or it did not store
        all files; the message says which, and how many it has stored.
    """
    url = checked(url)
    session = requests.Session()
    session.auth = _credentials(url)
    session.max_redirects = 0  # a POST that is redirected becomes a GET, and would seem to succeed
    answers: list[requests.Response] = []
    client = DICOMwebClient(
        url,
        session,
        headers={"Accept": "application/dicom+json"},
        callback=lambda response, *_, **__: answers.append(response),
        chunk_size=2**31,  # whole: many archives take no chunks, and a generator of chunks cannot be sent again
        timeout=TIMEOUT_S,
    )
    client.set_http_retry_params(retry=False)
    failures: list[str] = []
    with session:
        for done, file in enumerate(files, 1):
            try:
                _store(client, answers, url, file)
            except _Refused as refused:
                failures.append(f"{file.name}: {refused}")
            except UserError as error:
                stored = done - 1 - len(failures)
                raise UserError(f"{error} ({stored} of {len(files)} objects are stored)") from None
            if progress:
                progress(done, len(files))
    if failures:
        more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        raise UserError(
            f"{url} has stored {len(files) - len(failures)} of {len(files)} objects; {failures[0]}{more}; the files "
            "are complete where they are: send them by another way, or ask who runs the archive"
        )


def _credentials(url: str) -> requests.auth.AuthBase | None:
    """Return what authenticates us; None leaves it to `requests`, which looks into ~/.netrc."""
    token, user, password = (os.environ.get(name, "") for name in (TOKEN, USER, PASSWORD))
    if bool(user) != bool(password):
        raise UserError(f"{USER} and {PASSWORD} must both be set, and only one is")
    if not (token or user or get_netrc_auth(url)):
        return None
    if url.startswith("http://") and urlsplit(url).hostname not in LOOPBACK:
        say(f"the credentials for {url} are sent unencrypted: use https where the archive has it")
    if token:
        return _Token(token)
    return HTTPBasicAuth(user.encode(), password.encode()) if user else None


def _store(client: DICOMwebClient, answers: list[requests.Response], url: str, file: Path) -> None:
    """Send one file, with further tries where they may help."""
    try:
        with quietly():
            dataset = pydicom.dcmread(file)
    except (OSError, pydicom.errors.InvalidDicomError) as error:
        raise UserError(f"{file.name} cannot be read as DICOM ({type(error).__name__}), so it was not sent") from None
    for wait in (*WAITS_S, None):
        answers.clear()
        try:
            with quietly():
                found = client.store_instances([dataset])
        except requests.HTTPError:
            if _is_there(_answer(answers[-1]), str(dataset.SOPInstanceUID), file):
                return
            if answers[-1].status_code not in BUSY or wait is None:
                raise _refusal(url, answers[-1], str(dataset.SOPInstanceUID)) from None
        except requests.RequestException as error:
            if wait is None or not _may_pass(error):
                raise UserError(_unreachable(url, error)) from None
        except (ValueError, KeyError, TypeError, AttributeError):  # the library cannot read the answer
            found = Dataset()
            break
        else:
            break
        time.sleep(wait)
    _judge(answers[-1], found if len(found) else _answer(answers[-1]), str(dataset.SOPInstanceUID), file)


def _judge(response: requests.Response, answer: Dataset, uid: str, file: Path) -> None:
    """Raise _Refused unless an answer of success (200, or 202 with exceptions) says that the object is stored.

    It says so by the object's UID in ReferencedSOPSequence, or by 200 with nothing at all, as some archives answer.
    """
    if _is_there(answer, uid, file):
        return
    _raise_failed(answer, uid)
    stored = [item for item in _items(answer, "ReferencedSOPSequence") if item.get("ReferencedSOPInstanceUID") == uid]
    if stored and stored[0].get("WarningReason"):
        say(f"{file.name} was stored with a warning of the archive (WarningReason {_code(stored[0], 'WarningReason')})")
    elif not stored and response.status_code != 200:
        raise _Refused(f"the archive answers {response.status_code} and does not say that it is stored")
    elif not stored and response.content.strip():
        raise _Refused("what answers does not say that it is stored: it may be no DICOMweb service")


def _items(answer: Dataset, sequence: str) -> list[Dataset]:
    """Return the items of a sequence; none where something else has its tag."""
    found = answer.get(sequence)
    return [item for item in found if isinstance(item, Dataset)] if isinstance(found, pydicom.Sequence) else []


def _code(item: Dataset, name: str) -> str:
    """Return a reason's code in hexadecimal; 0000 where none is stated."""
    value = item.get(name)
    return f"{value if isinstance(value, int) else 0:04X}"


def _is_there(answer: Dataset, uid: str, file: Path) -> bool:
    """Return whether the archive refuses an object only because it has it, as after a try whose answer was lost."""
    failed = [item for item in _items(answer, "FailedSOPSequence") if item.get("ReferencedSOPInstanceUID") == uid]
    there = bool(failed) and all(_code(item, "FailureReason") == DUPLICATE for item in failed)
    if there:
        say(f"{file.name} is in the archive already")
    return there


def _answer(response: requests.Response) -> Dataset:
    """Return the body of an answer in JSON, or an empty dataset: the library takes no parameters of the media type."""
    try:
        with quietly():
            return Dataset.from_json(response.json())
    except Exception:  # whatever the archive says that is no DICOM
        return Dataset()


def _raise_failed(answer: Dataset, uid: str) -> None:
    for item in _items(answer, "FailedSOPSequence"):
        if item.get("ReferencedSOPInstanceUID", uid) == uid:
            raise _Refused(f"the archive refused it: {_reason(int(_code(item, 'FailureReason'), 16))}")


def _reason(code: int) -> str:
    if code in REASONS:
        words = REASONS[code]
    elif code >> 8 == 0xA7:
        words = "the archive is out of resources"
    elif code >> 8 == 0xA9:
        words = "it does not match its SOP class"
    elif code >> 12 == 0xC:
        words = "the archive cannot understand it"
    else:
        words = "no reason that is known"
    return f"{words} (FailureReason {code:04X})"


def _refusal(url: str, response: requests.Response, uid: str) -> Exception:
    """Return what an answer of 400 and above means: of the archive, or of this object only."""
    code = response.status_code
    if code == 401:
        given = "does not accept the credentials" if "Authorization" in response.request.headers else "asks who you are"
        return UserError(f"{url} {given} (401); {HOW}")
    if code == 403:
        return UserError(f"{url} does not let this account store (403); ask who runs the archive for that right")
    if code in (404, 405, 501):
        fix = "give the root of its DICOMweb service, such as https://host:8042/dicom-web for Orthanc"
        return UserError(f"{url}/studies is no place to store ({code}); {fix}")
    if code in BUSY:
        return UserError(f"{url} is busy or behind a gateway that cannot reach it ({code}); try again later")
    try:
        _raise_failed(_answer(response), uid)
    except _Refused as refused:
        return refused
    return _Refused("it is larger than the archive takes (413)" if code == 413 else f"the archive answers {code}")


def _may_pass(error: requests.RequestException) -> bool:
    """Return whether another try may help: not where nothing listens, or the certificate is not trusted."""
    if isinstance(error, requests.exceptions.SSLError | requests.exceptions.ProxyError):
        return False
    text = str(error)
    broken = isinstance(error, requests.ConnectionError) and "refused" not in text and "resolve" not in text
    return broken or isinstance(error, requests.Timeout | requests.exceptions.ChunkedEncodingError)


def _unreachable(url: str, error: requests.RequestException) -> str:
    """Return why there was no answer. The library's own texts are not repeated: they hold what was sent."""
    text = str(error)
    if isinstance(error, requests.TooManyRedirects):
        return f"{url} sends us elsewhere (a redirect); give the URL that it leads to, often https instead of http"
    if isinstance(error, requests.exceptions.SSLError):
        if "WRONG_VERSION_NUMBER" in text or "RECORD_LAYER" in text or "record layer" in text:
            return f"{url} does not speak TLS; use http:// if that is meant"
        return f"the certificate of {url} is not trusted; set REQUESTS_CA_BUNDLE to its authority's certificate"
    if isinstance(error, requests.exceptions.ProxyError):
        return f"the proxy for {url} does not answer; set NO_PROXY for the archive's host, or correct HTTPS_PROXY"
    if isinstance(error, requests.Timeout):
        return f"{url} does not answer in time; check that the archive runs, and try again"
    if "refused" in text:
        return f"nothing listens at {url} (connection refused); check the port, and that the archive runs"
    if "resolve" in text or "Name or service" in text:
        return f"the host of {url} is not known; check its name"
    return f"the connection to {url} breaks off ({type(error).__name__}); check port, http or https, and network"
