"""What looks like a secret, or is one of this process's own, is taken out of text."""

from __future__ import annotations

import io
import sys
import traceback
from pathlib import Path

import pytest

from hdgan.core import redaction
from hdgan.core.redaction import (
    REDACTED,
    RedactedStream,
    guard_streams,
    redact,
    redact_values,
    remember,
)
from hdgan.core.s3_connection import S3Connection

KEY_ID = "AKIAQ3EXAMPLEQ3EXMPL"
JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJzeXN0ZW06c2EifQ.c2lnbmF0dXJl-_x"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"An error for key {KEY_ID}.", KEY_ID),
        ("Could not connect to http://alice:hunter2@store.test:9000/b", "hunter2"),
        ("via socks5h://alice:p@ss:w0rd@proxy.test", "w0rd"),
        ("https://ghp_s3cret@git.test/x", "ghp_s3cret"),
        ("https://s3.test/b/k?X-Amz-Date=1&X-Amz-Signature=0f1e2d&x-id=Get", "0f1e2d"),
        ("https://s3.test/b/k?X-Amz-Security-Token=IQoJb3%2F&X-Amz-Expires=5", "IQoJb3"),
        ("https://s3.test/b/k?AWSAccessKeyId=abcd&Signature=vjby%3D&Expires=1", "vjby"),
        (
            "Authorization: AWS4-HMAC-SHA256 Credential=abc/20260101/eu/s3/aws4_request, "
            "SignedHeaders=host, Signature=0f1e2d3c",
            "0f1e2d3c",
        ),
        ("{'Proxy-Authorization': 'Basic YWxpY2U6aHVudGVyMg=='}", "YWxpY2U6aHVudGVyMg"),
        ("headers=[('x-amz-security-token', 'IQoJb3JpZ2lu')]", "IQoJb3JpZ2lu"),
        ("authorization failed with Bearer 0123456789abcdef", "0123456789abcdef"),
        (f"token of the service account: {JWT}", JWT),
        ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG", "wJalrXUtnFEMI/K7MDENG"),
        ('{"SecretAccessKey": "wJalrXUtnFEMI/K7MDENG"}', "wJalrXUtnFEMI/K7MDENG"),
        ("    client-key-data: LS0tLS1CRUdJTg==", "LS0tLS1CRUdJTg"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\nowIB\n-----END RSA PRIVATE KEY-----", "owIB"),
    ],
)
def test_what_looks_like_a_secret_is_taken_out(text: str, secret: str) -> None:
    found = redact(text, {})
    assert secret not in found
    assert REDACTED in found
    assert redact(found, {}) == found, "redacted text is left as it is"


@pytest.mark.parametrize(
    "text",
    [
        "cannot read s3://bucket/prefix/artifacts/tiler/a@b: access denied at https://s3.test:9000",
        "file:///home/a/slides/x@y.svs: 16 tiles",
        "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN and the clock",
        "registry.test/hdgan-tiler@sha256:0123456789abcdef0123456789abcdef",
        "rerun: {tiler: token}; spec.tiler.tileSize: 3 is not allowed; must be at least 16",
        "selfsubjectaccessreviews.authorization.k8s.io is forbidden",
    ],
)
def test_what_people_need_stays(text: str) -> None:
    assert redact(text, {}) == text


def test_secrets_of_the_environment_are_known_by_their_value() -> None:
    environ = {
        "AWS_SECRET_ACCESS_KEY": "wJalr/XUtn+FEMI",
        "AWS_SESSION_TOKEN": "IQoJb3JpZ2luX2Vj",
        "DB_PASSWORD": "correct-horse-9",
        "HTTPS_PROXY": "http://alice:hun/ter%212@proxy.test:3128",
        "AWS_WEB_IDENTITY_TOKEN_FILE": "/var/run/secrets/token",
        "TOKENIZERS_PARALLELISM": "disabled9",
        "SHORT_SECRET": "tiles",
        "DEMO_SECRET": "quickstart",
    }
    text = (
        "wJalr/XUtn+FEMI wJalr%2FXUtn%2BFEMI IQoJb3JpZ2luX2Vj correct-horse-9 hun/ter%212 hun/ter!2"
    )
    assert set(redact(text, environ).split()) == {REDACTED}
    kept = "/var/run/secrets/token disabled9 tiles quickstart proxy.test:3128"
    assert redact(kept, environ) == kept


def test_a_secret_inside_another_leaves_nothing_of_it() -> None:
    environ = {"A_SECRET": "abcdefg1", "B_SECRET": "abcdefg1-and-more"}
    assert redact("abcdefg1-and-more", environ) == REDACTED


def test_what_was_read_from_a_file_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_remembered", set())
    assert redact("mounted-value-1", {}) == "mounted-value-1"
    remember("mounted-value-1", "short")
    assert redact("mounted-value-1 short", {}) == f"{REDACTED} short"


def test_credentials_in_files_are_remembered_when_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redaction, "_remembered", set())
    (tmp_path / "AWS_ACCESS_KEY_ID").write_text("mounted-key-id-1")
    (tmp_path / "AWS_SECRET_ACCESS_KEY").write_text("mounted/secret+1\n")
    (tmp_path / "AWS_SESSION_TOKEN").write_text("mounted-token-1")
    S3Connection(credentials=tmp_path).secrets()
    text = "mounted-key-id-1 mounted/secret+1 mounted-token-1"
    assert set(redact(text, {}).split()) == {REDACTED}


def test_documents_are_redacted_at_any_depth_and_keep_their_shape() -> None:
    document = {"a": [{"b": f"x {KEY_ID}"}, 3, None, True], "c": 1.5}
    assert redact_values(document, {}) == {"a": [{"b": f"x {REDACTED}"}, 3, None, True], "c": 1.5}


def test_a_stream_redacts_what_is_written_in_pieces() -> None:
    out = io.StringIO()
    stream = RedactedStream(out)
    for piece in ("Error: http://ali", "ce:hunter2", "@store.test", "\nnext ", "line"):
        stream.write(piece)
    assert out.getvalue() == f"Error: http://{REDACTED}@store.test\n"
    stream.flush()
    assert out.getvalue().endswith("\nnext line")


def test_a_private_key_of_many_lines_in_one_write_is_taken_out_whole() -> None:
    out = io.StringIO()
    RedactedStream(out).write("-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\n")
    assert out.getvalue() == f"{REDACTED}\n"


def test_a_traceback_on_stderr_shows_no_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")
    guard_streams()
    guard_streams()
    assert not isinstance(vars(sys.stderr)["_stream"], RedactedStream), "guarded once"
    try:
        raise ValueError("signed with wJalrXUtnFEMI")
    except ValueError:
        traceback.print_exc()
    assert capsys.readouterr().err.endswith(f"ValueError: signed with {REDACTED}\n")
