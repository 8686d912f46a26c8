"""No secret gets out: not by what is printed, logged, stored or served, nor by what processes are
called with, whatever goes wrong. The secrets are canaries, searched for in every byte."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import boto3
import pytest

from support import canaries, fake_services
from support.prometheus import free_port
from support.runs import write_run
from support.s3_server import new_bucket, point_aws_at, running_s3

# A stage that says every secret in every way a library could.
LEAKY = """
import hdgan.core.held_signals
import logging, os, sys, threading, urllib.request, warnings
from pathlib import Path
import boto3
from hdgan.core.stage import Stage, main
from support.canaries import ALL, BEARER, PROXY
from support.fake_services import CONFIGS, FOLDER_VARIABLE, STAGE_VERSIONS

def leak(ctx):
    said = " ".join(os.environ.get(name, "") for name in SECRETS)
    boto3.set_stream_logger("", logging.DEBUG)  # with what goes over the wire
    ctx.store.get(next(iter(ctx.store.list("work/"))))
    ctx.log(f"signed with {said}", hints=[{"proxy": PROXY}])
    ctx.progress(1, 2, f"tiles of {said}")
    warnings.warn(said)
    print("said", said)
    os.write(2, f"a native library: {said}\\n".encode())
    thread = threading.Thread(target=lambda: (_ for _ in ()).throw(OSError(said)))
    thread.start()
    thread.join()
    seen = Path(os.environ[FOLDER_VARIABLE]) / "seen"
    seen.mkdir()
    for page in ("metrics", "progress"):
        port = os.environ["HDGAN_METRICS_PORT"]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}") as answer:
            (seen / page).write_bytes(answer.read())
    (seen / "arguments").write_bytes(
        b"\\n".join(read(path) for path in Path("/proc").glob("[0-9]*/cmdline"))
    )
    try:
        raise ConnectionError(f"via {PROXY} as Bearer {BEARER}")
    except ConnectionError as error:
        raise RuntimeError(f"no answer for {said}") from error

def read(path):
    try:
        return path.read_bytes()
    except OSError:
        return b""

SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HTTPS_PROXY")
main(Stage("tiler", STAGE_VERSIONS["tiler"], CONFIGS["tiler"], leak))
"""

BUG_OF_THE_COMMAND = """
import os, sys
from hdgan.core import cli, doctor

def examine(*arguments):
    raise RuntimeError("signed with " + os.environ["AWS_SECRET_ACCESS_KEY"])

doctor.examine = examine
cli.main()
"""


class Chatty(BaseHTTPRequestHandler):
    """An S3 server that refuses everything and says all it has heard, as debugging proxies do."""

    code = "SignatureDoesNotMatch"

    def _refuse(self) -> None:
        heard = json.dumps(dict(self.headers.items()))
        body = (
            f"<Error><Code>{self.code}</Code><Message>{heard}</Message>"
            f"<AWSAccessKeyId>{canaries.KEY_ID}</AWSAccessKeyId>"
            f"<StringToSign>{canaries.SECRET}</StringToSign></Error>"
        ).encode()
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(403 if self.code != "ExpiredToken" else 400)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else body)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _refuse  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        pass


class Expired(Chatty):
    code = "ExpiredToken"


@pytest.fixture(scope="module")
def refusing() -> Iterator[dict[str, str]]:
    """Endpoints of servers that refuse, by how."""
    servers = {
        name: ThreadingHTTPServer(("127.0.0.1", 0), kind)
        for name, kind in (("chatty", Chatty), ("expired", Expired))
    }
    threads = [Thread(target=one.serve_forever, daemon=True) for one in servers.values()]
    for thread in threads:
        thread.start()
    yield {name: f"http://127.0.0.1:{one.server_address[1]}" for name, one in servers.items()}
    for one in servers.values():
        one.shutdown()
        one.server_close()


@dataclass(frozen=True)
class Attempt:
    """What is typed, with what in the environment, and how it ends."""

    name: str
    code: int
    arguments: tuple[str, ...]
    environ: dict[str, str]
    program: tuple[str, ...] = ("-m", "hdgan.core.cli")
    says: str = ""


def secrets_environ(endpoint: str) -> dict[str, str]:
    """The environment with the canaries in it."""
    keep = {n: v for n, v in os.environ.items() if not n.startswith(("HDGAN_", "JOB_", "AWS_"))}
    for name in ("HTTP_PROXY", "ALL_PROXY", "NO_PROXY", "HTTPS_PROXY"):
        keep.pop(name, None)
        keep.pop(name.lower(), None)
    return keep | {
        "AWS_ACCESS_KEY_ID": canaries.KEY_ID,
        "AWS_SECRET_ACCESS_KEY": canaries.SECRET,
        "AWS_SESSION_TOKEN": canaries.SESSION_TOKEN,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "2",
        "AWS_CONFIG_FILE": "/nonexistent/config",
        "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent/credentials",
        "HTTPS_PROXY": canaries.PROXY,
    }


def typed(attempt: Attempt, folder: Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, *attempt.program, *attempt.arguments],
        cwd=folder,
        env=attempt.environ,
        capture_output=True,
        timeout=300,
        check=False,
    )


def objects_of(bucket: str, endpoint: str) -> dict[str, bytes]:
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
    found = {}
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for entry in page.get("Contents", []):
            answer = client.get_object(Bucket=bucket, Key=entry["Key"])
            found[f"s3://{bucket}/{entry['Key']}"] = answer["Body"].read()
    client.close()
    return found


def test_a_stage_that_says_every_secret_in_every_way_lets_none_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes = fake_services.install(tmp_path)
    (tmp_path / "hdgan" / "tiler" / "__main__.py").write_text(LEAKY)
    write_run(tmp_path)
    with running_s3() as endpoint:
        point_aws_at(endpoint, monkeypatch)
        bucket = new_bucket(endpoint)
        environ = secrets_environ(endpoint) | fakes
        environ["HDGAN_METRICS_PORT"] = str(free_port())
        environ["HDGAN_TERMINATION_LOG"] = str(tmp_path / "last-words")
        store = f"s3://{bucket}/store"
        run = Attempt("run", 70, ("run", "run.yaml", "--store", store), environ)
        status = Attempt("status", 0, ("status", "run.yaml", "--store", store, "--json"), environ)
        ended, told = typed(run, tmp_path), typed(status, tmp_path)
        written = canaries.files_below(tmp_path) | objects_of(bucket, endpoint)
    assert (ended.returncode, told.returncode) == (run.code, status.code), (
        ended.stderr + told.stderr
    )
    written |= {"stdout": ended.stdout, "stderr": ended.stderr, "status": told.stdout + told.stderr}

    # All of it was said, and is there without its secrets.
    log = (tmp_path / "scratch/logs/small/tiler.log").read_text()
    for words in (
        "signed with [redacted]",
        "UserWarning: [redacted]",
        "said [redacted]",
        "a native library: [redacted]",
        "OSError: [redacted]",
        "ConnectionError: via http://[redacted]@127.0.0.1:1 as Bearer [redacted]",
        "RuntimeError: no answer for [redacted]",
        "CanonicalRequest",
        "x-amz-security-token:[redacted]",
    ):
        assert words in log, words
    assert b"hdgan_stage_info" in written[str(tmp_path / "seen/metrics")]
    assert b"hdgan.tiler" in written[str(tmp_path / "seen/arguments")]
    assert b"no answer for [redacted]" in written[str(tmp_path / "last-words")]
    assert b"no answer for [redacted]" in written[f"s3://{bucket}/store/runs/small/status.json"]
    # So does the report, written by a process that knows all of them.
    assert b"no answer for [redacted]" in written[f"s3://{bucket}/store/reports/small/report.html"]
    assert canaries.leaks(written) == []


def test_what_goes_wrong_with_a_store_lets_no_secret_out(
    tmp_path: Path, refusing: dict[str, str]
) -> None:
    write_run(tmp_path)
    store = "s3://bucket/store"
    run = ("run", "run.yaml", "--store", store)
    doctor = ("doctor", "--json", "--store")
    away = "http://127.0.0.1:1"
    password = canaries.ENDPOINT_PASSWORD
    in_store = f"s3://{canaries.KEY_ID}:{password}@bucket/store"
    token = tmp_path.with_name(f"{tmp_path.name}-token")
    token.write_text(canaries.WEB_TOKEN)
    web_identity = {
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(token),
        "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/hdgan",
        "AWS_ENDPOINT_URL_STS": refusing["chatty"],
    }

    def environ(endpoint: str, **more: str) -> dict[str, str]:
        return secrets_environ(endpoint) | more

    by_token = environ(refusing["chatty"], **web_identity)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        del by_token[name]
    attempts = (
        Attempt("refused", 64, run, environ(refusing["chatty"]), says="SignatureDoesNotMatch"),
        Attempt("expired", 69, run, environ(refusing["expired"]), says="expired"),
        Attempt(
            "unreachable",
            69,
            run,
            environ(f"http://bob:{password}@127.0.0.1:1"),
            says="no usable answer at http://127.0.0.1:1",
        ),
        Attempt("no URL", 64, run, environ(f"http://bob:{password}@[::1"), says="is not a URL"),
        Attempt("proxy", 69, run, environ("https://store.test"), says="no usable answer"),
        Attempt(
            "broken proxy",
            69,
            run,
            environ(away.replace("http", "https"), HTTPS_PROXY=f"http://al:{password}@[::1"),
        ),
        Attempt("web identity", 64, run, by_token),
        Attempt("in the store", 64, ("run", "run.yaml", "--store", in_store), environ(away)),
        Attempt("doctor", 1, (*doctor, in_store), environ(away), says="carries credentials"),
        Attempt("check", 64, ("dataset", "check", store), environ(refusing["chatty"])),
        Attempt(
            "bug",
            1,
            ("doctor",),
            environ(away),
            ("-c", BUG_OF_THE_COMMAND),
            "signed with [redacted]",
        ),
    )
    with ThreadPoolExecutor(len(attempts)) as pool:
        ends = list(pool.map(lambda one: typed(one, tmp_path), attempts))
    written = canaries.files_below(tmp_path)
    for attempt, ended in zip(attempts, ends, strict=True):
        said = ended.stdout + ended.stderr
        assert ended.returncode == attempt.code, (attempt.name, said)
        assert attempt.says in said.decode(), (attempt.name, said)
        written[attempt.name] = said
    assert canaries.leaks(written) == []


def test_canaries_are_found_where_they_are() -> None:
    for text in (
        canaries.SECRET,
        canaries.PROXY,
        json.dumps({"a": canaries.SESSION_TOKEN}),
    ):
        assert canaries.leaks({"x": f"some {text} text".encode()})
    assert canaries.leaks({canaries.KEY_ID: b""})
