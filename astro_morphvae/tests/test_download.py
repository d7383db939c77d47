"""The download core: order, patience, politeness, and a cache that holds no failure."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astro_morphvae.tests.survey_server import FAILURES, Answer, SurveyServer

pytest.importorskip("requests")

from astro_morphvae._download import (
    Cache,
    Downloader,
    InvalidReply,
    Request,
    default_cache_directory,
)
from astro_morphvae._download._http import HttpClient
from astro_morphvae._download._pace import Pace, backoff_delay, parse_retry_after


def page_of(params):
    return f"page {params['n']} ".encode() * 400


@pytest.fixture
def server():
    with SurveyServer() as server:
        server.route("/page", page_of)
        yield server


@pytest.fixture
def downloader(tmp_path):
    return make_downloader(tmp_path)


def make_downloader(tmp_path, **keywords):
    given = {"cache": tmp_path / "cache", "backoff": 0.01, "timeout": 5.0, "progress": False}
    return Downloader(**{**given, **keywords})


def pages(server, numbers):
    return [Request(server.url + "/page", {"n": n}) for n in numbers]


def check_page(content, request):
    if content != page_of(dict(request.params)):
        raise InvalidReply("invalid-file", "not the page", retry=True)
    return len(content)


def files_of(folder):
    return [path for path in Path(folder).rglob("*") if path.is_file()]


@pytest.mark.parametrize("ordered", [False, True])
def test_every_request_is_answered_in_its_place(server, downloader, ordered):
    numbers = [n % 37 for n in range(100)]
    requests = pages(server, numbers)
    seen = {}
    for index, reply in downloader.stream(requests, ordered=ordered):
        seen[index] = reply.content
    if ordered:
        assert list(seen) == list(range(100))
    assert [seen[i] for i in range(100)] == [page_of({"n": n}) for n in numbers]
    # Requests that are the same are sent once, and connections are used again.
    assert len(server.requests) == 37
    assert server.connections <= 8


def test_second_run_asks_for_what_is_missing_only(server, tmp_path, downloader):
    first = downloader.fetch(pages(server, range(10)), check_page)
    assert {reply.attempts for reply in first} == {1}
    second = make_downloader(tmp_path).fetch(pages(server, range(15)), check_page)
    assert [reply.from_cache for reply in second] == [True] * 10 + [False] * 5
    assert [reply.content for reply in second[:10]] == [reply.content for reply in first]
    assert second[0].path.read_bytes() == second[0].content
    assert sum(server.delivered().values()) == 15


def test_random_failures_are_overcome_and_never_kept(server, tmp_path):
    server.failure_rate = 0.3
    downloader = make_downloader(tmp_path, retries=12, timeout=0.4)
    replies = downloader.fetch(pages(server, range(60)), check_page)
    assert {reply.status for reply in replies} == {"ok"}
    assert {reply.value for reply in replies} <= {len(page_of({"n": n})) for n in range(60)}
    stored = files_of(tmp_path)
    assert len(stored) == 60
    assert {path.read_bytes() for path in stored} == {page_of({"n": n}) for n in range(60)}
    assert max(server.delivered().values()) == 1


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        ("429", "server-error: HTTP 429"),
        ("500", "server-error: HTTP 500"),
        ("503", "server-error: HTTP 503"),
        ("empty", "invalid-file: not the page"),
        ("page", "invalid-file: not the page"),
        ("truncated", "invalid-file: not the page"),
        ("dropped", "connection-error"),
        ("reset", "connection-error"),
        ("drip", "timeout"),
    ],
)
def test_failure_that_persists_becomes_a_status(server, tmp_path, failure, status):
    server.failures = [failure] * 2
    downloader = make_downloader(tmp_path, retries=1, timeout=0.3)
    (reply,) = downloader.fetch(pages(server, [3]), check_page)
    assert reply.reason.startswith(status)
    assert "(2 attempts)" in reply.reason
    assert (reply.ok, reply.content, reply.path, reply.attempts) == (False, None, None, 2)
    assert files_of(tmp_path) == []
    (reply,) = downloader.fetch(pages(server, [3]), check_page)
    assert reply.ok


def test_status_is_what_happened_most_often(server, tmp_path):
    server.failures = ["500", "500", "reset"]
    downloader = make_downloader(tmp_path, retries=2)
    (reply,) = downloader.fetch(pages(server, [3]), http_errors={500: "off-footprint"})
    assert reply.reason == "off-footprint: HTTP 500 Internal Server Error (3 attempts)"


def test_every_failure_of_the_server_is_tested():
    marks = test_failure_that_persists_becomes_a_status.pytestmark
    assert {case[0] for mark in marks for case in mark.args[1]} == set(FAILURES)


def test_reply_that_asking_again_cannot_help_is_asked_for_once(server, downloader):
    def refuse(content, request):
        raise InvalidReply("off-footprint", "nothing there")

    (reply,) = downloader.fetch(pages(server, [1]), refuse)
    assert (reply.reason, reply.attempts) == ("off-footprint: nothing there", 1)
    (reply,) = downloader.fetch([Request(server.url + "/nowhere")])
    assert (reply.reason, reply.attempts) == ("refused: HTTP 404 Not Found", 1)
    (reply,) = downloader.fetch(
        [Request(server.url + "/nowhere")], http_errors={404: "off-footprint"}
    )
    assert reply.status == "off-footprint"


def test_error_in_a_check_is_no_status(server, downloader):
    def broken(content, request):
        raise ZeroDivisionError("in the check")

    with pytest.raises(ZeroDivisionError, match="in the check"):
        downloader.fetch(pages(server, range(20)), broken)


def test_damaged_file_of_the_cache_is_fetched_again(server, downloader):
    (reply,) = downloader.fetch(pages(server, [5]), check_page)
    reply.path.write_bytes(b"half a pa")
    (reply,) = downloader.fetch(pages(server, [5]), check_page)
    assert (reply.from_cache, reply.path.read_bytes()) == (False, page_of({"n": 5}))


def test_stricter_check_does_not_meet_older_files(server, downloader):
    def lenient(content, request):
        return None

    def strict(content, request):
        return None

    lenient.version, strict.version = "1", "2"
    downloader.fetch(pages(server, [1]), lenient)
    (reply,) = downloader.fetch(pages(server, [1]), strict)
    assert not reply.from_cache


def test_without_cache_nothing_is_written(server, tmp_path):
    downloader = make_downloader(tmp_path, cache=False)
    for _ in range(2):
        (reply,) = downloader.fetch(pages(server, [1]), check_page)
        assert (reply.path, reply.from_cache) == (None, False)
    assert files_of(tmp_path) == []


def test_default_cache_lies_under_that_of_astropy(tmp_path):
    from astropy.config.paths import set_temp_cache

    with set_temp_cache(tmp_path):
        assert tmp_path in default_cache_directory().parents
        assert Downloader(cache=True).cache.directory == default_cache_directory()


def test_names_of_files_never_come_from_the_server(server, downloader, tmp_path):
    headers = {"Content-Disposition": 'attachment; filename="../../evil"'}
    server.route("/evil", lambda params: Answer(b"evil", headers=headers))
    (reply,) = downloader.fetch([Request(server.url + "/evil")])
    assert files_of(tmp_path) == [reply.path]
    assert reply.path.name == reply.request.key()


def redirect(target):
    return lambda params: Answer(b"", code=302, headers={"Location": target})


def test_redirect_is_followed_on_the_same_host_only(server, downloader):
    server.route("/here", redirect("/page?n=7"))
    server.route("/away", redirect(server.url.replace("127.0.0.1", "localhost") + "/page?n=7"))
    server.route("/other-port", redirect("http://127.0.0.1:1/page?n=7"))
    server.route("/file", redirect("file:///etc/hostname"))
    server.route("/loop", redirect("/loop"))
    paths = ["/here", "/away", "/other-port", "/file", "/loop"]
    replies = downloader.fetch([Request(server.url + path) for path in paths])
    assert replies[0].content == page_of({"n": 7})
    assert [reply.status for reply in replies[1:]] == ["refused"] * 4
    assert "redirect to http://localhost" in replies[1].detail
    assert {reply.attempts for reply in replies[1:]} == {1}


@pytest.mark.parametrize(
    "target", ["http://127.0.0.1:999999/", "http://[bad/", "http://127.0.0.1:b/"]
)
def test_redirect_that_is_no_address_is_refused(server, downloader, target):
    server.route("/broken", redirect(target))
    requests = [Request(server.url + "/broken"), *pages(server, [1])]
    broken, page = downloader.fetch(requests, lambda content, request: None)
    assert broken.reason.startswith("refused: not understood: ")
    assert broken.attempts == 1
    assert page.ok


def test_refusals_in_a_row_do_not_end_a_download(server, downloader):
    server.route("/away", redirect("http://localhost:1/"))
    requests = [Request(server.url + "/away", {"n": n}) for n in range(60)]
    replies = downloader.fetch([*requests, *pages(server, [1])])
    assert {reply.reason for reply in replies[:60]} == {"refused: redirect to http://localhost:1"}
    assert {reply.attempts for reply in replies} == {1}
    assert replies[60].ok


@pytest.fixture
def dripping_server():
    """Return the address of a server that sends a byte every 20 ms, for ever."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()
    beginnings = {
        b"/headers": b"HTTP/1.1 200 OK\r\nX-Long: ",
        b"/chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;",
    }

    def drip():
        while not over.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                path = connection.recv(2**16).split()[1]
                try:
                    connection.sendall(beginnings[path])
                    while not over.wait(0.02):
                        connection.sendall(b"a")
                except OSError:
                    continue

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    over.set()
    # Closing a socket does not wake the thread that waits for connections; one does.
    socket.create_connection(listener.getsockname()).close()
    thread.join()
    listener.close()


@pytest.mark.parametrize(
    ("path", "detail"),
    [("/headers", "no reply in 0.3 s"), ("/chunks", "too slow in the middle of a reply")],
)
def test_line_without_an_end_is_given_up(dripping_server, tmp_path, path, detail):
    downloader = make_downloader(tmp_path, timeout=0.3, retries=0)
    (reply,) = downloader.fetch([Request(dripping_server + path)])
    assert reply.reason.startswith(f"timeout: {detail}")


@pytest.mark.parametrize("announced", [True, False])
def test_body_that_is_too_large_is_refused(server, tmp_path, announced):
    headers = {} if announced else {"Content-Length": None, "Connection": "close"}
    server.route("/large", lambda params: Answer(b"x" * 5000, headers=headers))
    downloader = make_downloader(tmp_path, max_bytes=4000)
    (reply,) = downloader.fetch([Request(server.url + "/large")])
    assert (reply.status, reply.attempts) == ("refused", 1)
    assert "5000" in reply.detail if announced else "4000" in reply.detail


def test_certificates_are_verified(server, monkeypatch):
    from requests.adapters import HTTPAdapter

    seen = []

    def send(self, request, **keywords):
        seen.append(keywords["verify"])
        raise OSError("not sent")

    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    secure = Request(server.url.replace("http:", "https:") + "/page")
    downloader = Downloader(cache=False, retries=0, progress=False)
    (reply,) = downloader.fetch([secure])
    assert reply.reason.startswith("refused: TLS")
    monkeypatch.setattr(HTTPAdapter, "send", send)
    downloader.fetch([secure])
    assert seen == [True]


def test_server_that_cannot_be_reached_is_given_up(tmp_path):
    with SurveyServer() as server:
        pass
    downloader = make_downloader(tmp_path, max_connections=4, retries=1)
    replies = downloader.fetch(pages(server, range(300)))
    assert {reply.status for reply in replies} == {"connection-error"}
    # The rest is not tried.
    assert sum(reply.attempts for reply in replies) < 100
    assert "no answer to" in replies[-1].detail
    assert "last: Failed to establish a new connection" in replies[-1].detail


def test_server_that_wants_to_be_left_alone_is_left_alone(server, tmp_path):
    server.retry_after = "3600"
    server.failures = ["503"] * 50
    downloader = make_downloader(tmp_path, max_connections=2)
    replies = downloader.fetch(pages(server, range(50)))
    assert {reply.status for reply in replies} == {"server-error"}
    assert "asks to wait 3600 s" in replies[-1].detail
    assert len(server.requests) <= 5 + 2


def test_one_row_that_is_to_be_left_alone_does_not_end_a_download(server, tmp_path):
    headers = {"Retry-After": "3600"}
    server.route("/busy", lambda params: Answer(b"", code=503, headers=headers))
    busy = [Request(server.url + "/busy", {"n": n}) for n in range(4)]
    requests = [*busy, *pages(server, [1]), *busy, *pages(server, range(2, 30))]
    replies = make_downloader(tmp_path, max_connections=1).fetch(requests)
    assert [reply.ok for reply in replies] == [request not in busy for request in requests]
    assert {reply.attempts for reply in replies if not reply.ok} == {1}
    assert "asks to wait 3600 s" in replies[0].detail


def test_one_wish_to_wait_holds_every_request(server, tmp_path, monkeypatch):
    held = []
    monkeypatch.setattr(Pace, "hold", lambda self, seconds: held.append(seconds))
    server.retry_after = "0"
    server.failures = ["429", "503"]
    replies = make_downloader(tmp_path).fetch(pages(server, range(5)), check_page)
    assert all(reply.ok for reply in replies)
    assert held == [0.0, 0.0]


def test_pace():
    pace = Pace(requests_per_second=0.01)
    assert pace.reserve() == 0.0
    assert 0 < pace.reserve() <= 100
    pace = Pace()
    assert [pace.reserve() for _ in range(5)] == [0.0] * 5
    pace.hold(50.0)
    pace.hold(1.0)
    assert 1.0 < pace.reserve() <= 50.0


def test_backoff_doubles_within_bounds():
    delays = [[backoff_delay(attempt, 0.5) for _ in range(200)] for attempt in (1, 2, 3, 30)]
    for drawn, longest in zip(delays, (0.5, 1.0, 2.0, 60.0), strict=True):
        assert longest / 2 <= min(drawn) < max(drawn) <= longest
        assert len(set(drawn)) > 100


def test_retry_after():
    now = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
    assert parse_retry_after("120", now) == 120.0
    assert parse_retry_after("Sun, 01 Mar 2026 12:01:30 GMT", now) == 90.0
    assert parse_retry_after("Sun, 01 Mar 2026 11:00:00 GMT", now) == 0.0
    endless = "1 Jan 99999999999999999999 00:00:00 GMT"
    for text in (None, "", "soon", "-5", "1e9", "٣", endless):
        assert parse_retry_after(text, now) is None


def test_date_to_wait_for_is_waited_for(server, tmp_path):
    server.retry_after = "Wed, 21 Oct 2015 07:28:00 GMT"
    server.failures = ["503"]
    (reply,) = make_downloader(tmp_path).fetch(pages(server, [1]), check_page)
    assert (reply.status, reply.attempts) == ("ok", 2)


def test_stream_runs_ahead_by_a_window_only(server, tmp_path):
    downloader = make_downloader(tmp_path, max_connections=2)
    stream = downloader.stream(pages(server, range(200)), ordered=True, window=10)
    for _ in range(5):
        next(stream)
    time.sleep(0.2)  # whatever could be fetched by now is
    assert len(server.requests) <= 5 + 10
    stream.close()
    time.sleep(0.1)
    assert len(server.requests) <= 5 + 10 + 2


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_interrupt_goes_through_and_keeps_what_came(server, tmp_path):
    requests = pages(server, range(12))
    server.route("/slow", lambda params: Answer(b"x" * 10**6, manner="drip"))
    requests += [Request(server.url + "/slow", {"n": n}) for n in range(12)]
    downloader = make_downloader(tmp_path, max_connections=4, timeout=600.0)

    def interrupt():
        while len(server.requests) < 16:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        downloader.fetch(requests, None)
    assert len(files_of(tmp_path)) == 12
    replies = downloader.fetch(requests[:12])
    assert all(reply.from_cache for reply in replies)


TWO = """
import sys
from astro_morphvae._download import Downloader, Request
requests = [Request(sys.argv[1] + "/page", {"n": n}) for n in range(80)]
replies = Downloader(cache=sys.argv[2], progress=False).fetch(requests)
sys.exit(0 if all(reply.ok for reply in replies) else 1)
"""


def test_two_processes_share_a_cache(server, tmp_path):
    command = [sys.executable, "-c", TWO, server.url, str(tmp_path / "cache")]
    processes = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    stored = files_of(tmp_path)
    assert {path.read_bytes() for path in stored} == {page_of({"n": n}) for n in range(80)}
    assert len(stored) == 80


def test_what_killed_processes_left_is_swept_away(server, tmp_path, downloader):
    folder = tmp_path / "cache" / "ab"
    folder.mkdir(parents=True)
    for name, age in ((".old.1.part", 7200), (".new.2.part", 0)):
        (folder / name).write_bytes(b"half")
        os.utime(folder / name, (time.time() - age,) * 2)
    downloader.fetch(pages(server, [1]))
    assert [path.name for path in folder.iterdir()] == [".new.2.part"]


def test_clear_removes_replies_and_nothing_else(tmp_path):
    cache = Cache(tmp_path)
    cache.store("ab" * 32, b"x")
    (tmp_path / "notes.txt").write_text("mine")
    cache.clear()
    assert files_of(tmp_path) == [tmp_path / "notes.txt"]
    assert cache.read("ab" * 32) is None


def test_progress_is_shown_on_request_only(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    make_downloader(tmp_path, progress=True, description="Survey").fetch(pages(server, range(3)))
    assert "Survey: 100%" in capsys.readouterr().err
    make_downloader(tmp_path).fetch(pages(server, range(3)))
    assert capsys.readouterr().err == ""


params_of = st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8)), max_size=5)


@given(params_of, st.randoms())
def test_key_is_that_of_the_request_however_written(params, rng):
    shuffled = list(params)
    rng.shuffle(shuffled)
    request = Request("https://example.org/a", params)
    assert request.key() == Request("HTTPS://EXAMPLE.org:443/a#there", shuffled).key()
    assert request.key() == Request(request.full_url, label="same").key()
    assert request.key() != Request("https://example.org/b", params).key()
    assert request.key() != Request("https://example.org/a", [*params, ("z", "1")]).key()
    assert request.key() != request.key("2")


@pytest.mark.parametrize("url", ["ftp://example.org/a", "example.org", "https://", "file:///etc"])
def test_address_that_is_none_is_named(url):
    with pytest.raises(ValueError, match="url: expected an http or https address"):
        Request(url)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_connections", 0),
        ("max_connections", 2.5),
        ("retries", -1),
        ("timeout", 0),
        ("timeout", float("inf")),
        ("backoff", -1.0),
        ("max_bytes", 0),
        ("requests_per_second", 0),
    ],
)
def test_wrong_setting_is_named(name, value):
    with pytest.raises(ValueError, match=f"{name}: expected"):
        Downloader(**{name: value})


def test_what_is_no_request_is_named(downloader):
    with pytest.raises(TypeError, match="requests: entry 1 is str"):
        downloader.fetch([Request("http://127.0.0.1/"), "http://127.0.0.1/"])


def test_no_requests_no_replies(downloader):
    assert downloader.fetch([]) == []


def test_missing_requests_package_is_explained(monkeypatch):
    monkeypatch.setitem(sys.modules, "requests", None)
    with pytest.raises(ImportError, match=r"Fetching files needs the package 'requests'"):
        HttpClient(max_connections=1, timeout=1, max_bytes=1)
