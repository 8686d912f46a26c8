"""How a server is reached: credentials that expire, clocks, regions, certificates, addresses."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from hdgan.core.errors import StoreError, StoreUnavailable
from hdgan.core.s3_connection import S3Connection, S3Server
from hdgan.core.store_s3 import S3Store
from support.prepared_answers import answers
from support.s3_server import (
    REGION,
    Keys,
    TestServer,
    forget_aws,
    point_aws_at,
)
from support.tls_front import TlsFront, tls_front


@contextlib.contextmanager
def store_by(connection: S3Connection, uri: str) -> Iterator[S3Store]:
    """A store that does not pause."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    server = S3Server(connection, sleep=lambda seconds: None)
    store = S3Store(bucket, prefix, server=server)
    try:
        yield store
    finally:
        store.close()


def write_secret(folder: Path, keys: Keys) -> None:
    """As a mounted Secret has them."""
    folder.mkdir(exist_ok=True)
    (folder / "AWS_ACCESS_KEY_ID").write_text(f"{keys.access}\n")
    (folder / "AWS_SECRET_ACCESS_KEY").write_text(f"{keys.secret}\n")
    if keys.token:
        (folder / "AWS_SESSION_TOKEN").write_text(keys.token)


def new_keys(server: TestServer, root: Keys) -> Keys:
    """Further ones of the server's user."""
    iam = TestServer(server.endpoint, root).client("iam")
    with contextlib.closing(iam):
        made = iam.create_access_key(UserName="tester")["AccessKey"]
        return Keys(made["AccessKeyId"], made["SecretAccessKey"])


def remove_keys(server: TestServer, root: Keys, keys: Keys) -> None:
    iam = TestServer(server.endpoint, root).client("iam")
    with contextlib.closing(iam):
        iam.delete_access_key(UserName="tester", AccessKeyId=keys.access)


ROOT = Keys("test", "test")
"""Of ministack."""


def test_credentials_that_were_replaced_in_their_files_are_read_again(
    ministack: TestServer, ministack_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_aws(monkeypatch)
    old, new = new_keys(ministack, ROOT), new_keys(ministack, ROOT)
    write_secret(tmp_path / "secret", old)
    connection = S3Connection(ministack.endpoint, REGION, tmp_path / "secret")
    with store_by(connection, ministack_uri) as store:
        store.put("x", b"1")
        remove_keys(ministack, ROOT, old)
        with pytest.raises(StoreError, match=r"credentials are refused .*InvalidAccessKeyId"):
            store.get("x")
        write_secret(tmp_path / "secret", new)
        assert store.get("x") == b"1"
        info = store.head("x")  # whose refusals have no body that would say why
        assert info is not None
    remove_keys(ministack, ROOT, new)


def test_so_are_those_of_a_profile(
    ministack: TestServer, ministack_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_profile(keys: Keys) -> None:
        (tmp_path / "credentials").write_text(
            f"[work]\naws_access_key_id={keys.access}\naws_secret_access_key={keys.secret}\n"
        )

    forget_aws(monkeypatch)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "work")
    write_profile(Keys("AKIAFORMER0000000000", "former"))
    with store_by(S3Connection(ministack.endpoint, REGION), ministack_uri) as store:
        with pytest.raises(StoreError, match="credentials are refused"):
            store.head("x")
        write_profile(ministack.keys)
        assert store.head("x") is None


def test_expired_credentials_are_named_and_renewed_ones_taken(
    ministack_uri: str, ministack: TestServer, tmp_path: Path
) -> None:
    """The server's part is played: that of tokens that expire in 15 minutes at the earliest."""
    write_secret(tmp_path / "secret", Keys(ministack.keys.access, ministack.keys.secret))
    connection = S3Connection(ministack.endpoint, REGION, tmp_path / "secret")
    with store_by(connection, ministack_uri) as store:
        expired(store)
        with pytest.raises(StoreUnavailable, match=r"have expired .*ExpiredToken.*renew") as caught:
            store.put("x", b"1")
        assert "clock" not in str(caught.value)
        keys = new_keys(ministack, ROOT)
        write_secret(tmp_path / "secret", keys)
        store.put("x", b"1")
        assert store.get("x") == b"1"
    remove_keys(ministack, ROOT, keys)


def expired(store: S3Store) -> None:
    """Have requests of the client that the store has now answered as after expiry."""

    def refuse(model: Any, **_: object) -> None:
        error = {"Error": {"Code": "ExpiredToken", "Message": "secret"}}
        raise ClientError(error, model.name)

    store.server.client.meta.events.register("before-call.s3", refuse)


@pytest.mark.parametrize(("ahead", "says"), [(3600, "ahead of"), (-3600, "behind")])
def test_a_wrong_clock_is_named_and_by_how_much(
    ahead: int, says: str, ministack_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = datetime.now(UTC)
    wrong = true + timedelta(seconds=ahead)

    def now(remove_tzinfo: bool = True) -> datetime:
        return wrong.replace(tzinfo=None) if remove_tzinfo else wrong

    monkeypatch.setattr("botocore.auth.get_current_datetime", now)
    monkeypatch.setattr("hdgan.core.s3_errors._now", lambda: wrong)
    with store_by(S3Connection(), ministack_uri) as store:
        uses: list[Callable[[], object]] = [
            lambda: store.put("x", b"1"),
            lambda: store.head("x"),
        ]
        for use in uses:
            with pytest.raises(StoreUnavailable) as caught:
                use()
            told = re.search(
                rf"clock of this machine is wrong: (\d+) seconds {says}", str(caught.value)
            )
            assert told is not None
            assert abs(int(told[1]) - 3600) < 60
            assert "set it" in str(caught.value)


REDIRECT = b"<?xml version='1.0'?><Error><Code>%s</Code><Message>m</Message>%s</Error>"


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (b"AuthorizationHeaderMalformed", b"<Region>eu-central-1</Region>"),
        (b"PermanentRedirect", b"<Region>eu-central-1</Region>"),
    ],
)
def test_a_wrong_region_is_named_with_the_right_one(
    code: bytes, told: bytes, s3_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store_by(S3Connection(), s3_uri) as store:
        answers(store, "PutObject", *[(301, REDIRECT % (code, told))] * 3)
        with pytest.raises(
            StoreError, match=r"asked for in region us-east-1 .*eu-central-1"
        ) as caught:
            store.put("x", b"1")
        assert "set AWS_REGION=eu-central-1" in str(caught.value)
        assert caught.value.exit_code == 64


def test_the_region_is_taken_from_where_it_is_given(
    s3_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def region(connection: S3Connection) -> str:
        with store_by(connection, s3_uri) as store:
            return str(store.server.client.meta.region_name)

    assert region(S3Connection(region="ap-south-1")) == "ap-south-1"
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-2")
    assert region(S3Connection()) == "eu-west-1"
    monkeypatch.delenv("AWS_REGION")
    assert region(S3Connection()) == "eu-west-2"
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    (tmp_path / "config").write_text("[default]\nregion=eu-west-3\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    assert region(S3Connection()) == "eu-west-3"
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent/config")
    assert region(S3Connection()) == "us-east-1"


def test_paths_name_the_bucket_unless_it_is_amazon_or_the_profile_says_otherwise(
    s3_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def url(connection: S3Connection) -> str:
        seen: list[str] = []

        class Seen(Exception):
            pass

        def note(request: Any, **_: object) -> None:
            seen.append(request.url)
            raise Seen

        with store_by(connection, "s3://bucket/p") as store:
            store.server.client.meta.events.register("before-send.s3", note)
            with pytest.raises(Seen):
                store.get("x")
        return seen[0]

    assert url(S3Connection("http://minio:9000")) == "http://minio:9000/bucket/p/x"
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    assert url(S3Connection()) == "https://bucket.s3.amazonaws.com/p/x"
    config = tmp_path / "config"
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    config.write_text("[default]\nendpoint_url=http://minio:9000\n")
    assert url(S3Connection()) == "http://minio:9000/bucket/p/x"
    config.write_text(
        "[default]\nservices=here\n[services here]\ns3 =\n  endpoint_url=http://minio:9000\n"
    )
    assert url(S3Connection()) == "http://minio:9000/bucket/p/x"
    config.write_text(
        "[default]\nendpoint_url=http://minio:9000\ns3 =\n  addressing_style=virtual\n"
    )
    assert url(S3Connection()) == "http://bucket.minio:9000/p/x"


def test_session_tokens_are_sent(
    ministack: TestServer, ministack_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sts = ministack.client("sts")
    with contextlib.closing(sts):
        given = sts.get_session_token()["Credentials"]
    keys = Keys(given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"])
    point_aws_at(ministack.endpoint, monkeypatch, keys)
    with store_by(S3Connection(), ministack_uri) as store:
        store.put("x", b"1")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "another")
    with store_by(S3Connection(), ministack_uri) as store, pytest.raises(StoreError):
        store.get("x")
    forget_aws(monkeypatch)
    write_secret(tmp_path / "secret", keys)
    connection = S3Connection(ministack.endpoint, REGION, tmp_path / "secret")
    with store_by(connection, ministack_uri) as store:
        assert store.get("x") == b"1"


TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Federated": "arn:aws:iam::000000000000:oidc-provider/issuer"},
            "Action": "sts:AssumeRoleWithWebIdentity",
        }
    ],
}
OBJECTS = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}],
}


def test_a_role_is_assumed_with_a_token_from_a_file(
    ministack: TestServer,
    s3_endpoint: str,
    s3_uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the variables that Kubernetes sets for a service account with a role."""
    session = boto3.session.Session()
    iam = session.client("iam", endpoint_url=s3_endpoint, region_name=REGION)
    with contextlib.closing(iam):
        role = iam.create_role(RoleName="pod", AssumeRolePolicyDocument=json.dumps(TRUST))["Role"]
    forget_aws(monkeypatch)
    (tmp_path / "token").write_text("a.web.token")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", s3_endpoint)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_endpoint)
    monkeypatch.setenv("AWS_ROLE_ARN", role["Arn"])
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    with store_by(S3Connection(), s3_uri) as store:
        store.put("x", b"1")
        assert store.get("x") == b"1"
        assert store.server.client._get_credentials().method == "assume-role-with-web-identity"
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", ministack.endpoint)
    with (
        store_by(S3Connection(), s3_uri) as store,
        pytest.raises(StoreError, match=r"no credentials for the role.*_TOKEN_FILE"),
    ):
        store.get("x")


def test_an_authority_that_is_not_known_is_told_from_a_server_that_is_away(
    tls: TlsFront, tls_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_CA_BUNDLE")
    with (
        store_by(S3Connection(), tls_uri) as store,
        pytest.raises(
            StoreError, match=r"certificate of the server .* is not trusted; .*AWS_CA_BUNDLE"
        ) as caught,
    ):
        store.get("x")
    assert caught.value.exit_code == 64
    with store_by(S3Connection(ca_file=tls.authority), tls_uri) as store:
        store.put("x", b"1")
        assert store.get("x") == b"1"


@pytest.mark.parametrize("mode", ["when_supported", "when_required"])
@pytest.mark.parametrize("told_by", ["connection", "variables", "profile"])
def test_checksums_come_behind_the_body_over_tls_where_asked_for(
    mode: str,
    told_by: str,
    moto: TestServer,
    moto_uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connection = S3Connection()
    if told_by == "connection":
        connection = S3Connection(checksums=mode)  # type: ignore[arg-type]
    elif told_by == "variables":
        monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", mode)
        monkeypatch.setenv("AWS_RESPONSE_CHECKSUM_VALIDATION", mode)
    else:
        (tmp_path / "config").write_text(f"[default]\nrequest_checksum_calculation={mode}\n")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    with tls_front(moto.endpoint, tmp_path, keep=True) as front:
        monkeypatch.setenv("AWS_ENDPOINT_URL", front.endpoint)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(front.authority))
        with store_by(connection, moto_uri) as store:
            store.put("x", b"the body")
            assert store.get("x") == b"the body"
        sent = b"".join(front.sent).lower()
    if mode == "when_supported":
        assert b"x-amz-trailer: x-amz-checksum-crc32\r\n" in sent
        assert re.search(rb"8\r\nthe body\r\n0\r\nx-amz-checksum-crc32:[a-z0-9+/=]{8}\r\n", sent)
        assert b"x-amz-content-sha256: streaming-unsigned-payload-trailer" in sent
    else:
        assert b"x-amz-checksum" not in sent
        # Then the server holds the body to the SHA-256 that is signed.
        assert re.search(rb"x-amz-content-sha256: [0-9a-f]{64}\r\n", sent)


def test_without_tls_nothing_comes_behind_the_body(
    s3_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, str]] = []

    def note(request: Any, **_: object) -> None:
        seen.append({name.lower(): str(value) for name, value in request.headers.items()})

    with store_by(S3Connection(checksums="when_supported"), s3_uri) as store:
        store.server.client.meta.events.register("before-send.s3.PutObject", note)
        store.put("x", b"1")
    assert "x-amz-checksum-crc32" in seen[0]
    assert "x-amz-trailer" not in seen[0]


def test_a_setting_that_is_none_is_told(s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "sometimes")
    with store_by(S3Connection(), s3_uri) as store, pytest.raises(StoreError, match=r"AWS_\*"):
        store.get("x")
    monkeypatch.delenv("AWS_REQUEST_CHECKSUM_CALCULATION")
    with (
        store_by(S3Connection(endpoint="minio:9000"), s3_uri) as store,
        pytest.raises(StoreError, match="not a URL such as https"),
    ):
        store.get("x")


def test_attempts_are_as_many_as_aws_tools_are_told(
    s3_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    pauses: list[float] = []
    server = S3Server(S3Connection("http://127.0.0.1:9"), sleep=pauses.append)
    store = S3Store("bucket", server=server)
    with pytest.raises(StoreUnavailable):
        store.get("x")
    assert len(pauses) == 1
    store.close()
