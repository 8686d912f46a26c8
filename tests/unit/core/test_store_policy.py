"""The least an account needs, as docs/security.md says it, is what the code asks servers for."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SOURCES = ROOT / "services" / "core" / "src" / "hdgan" / "core"
REQUEST = re.compile(
    r"\bclient\.(?!get_paginator)([a-z][a-z_0-9]*)\(|get_paginator\(\s*\"([a-z_0-9]+)\""
)
LOCAL = {"close"}
# https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html
ACTION = {
    "abort_multipart_upload": "s3:AbortMultipartUpload",
    "complete_multipart_upload": "s3:PutObject",
    "create_multipart_upload": "s3:PutObject",
    "delete_object": "s3:DeleteObject",
    "get_object": "s3:GetObject",
    "head_object": "s3:GetObject",
    "list_multipart_uploads": "s3:ListBucketMultipartUploads",
    "list_objects_v2": "s3:ListBucket",
    "list_parts": "s3:ListMultipartUploadParts",
    "put_object": "s3:PutObject",
    "upload_part": "s3:PutObject",
}


def requests_made() -> set[str]:
    """Names of boto3's methods in the sources."""
    texts = [path.read_text() for path in (*SOURCES.glob("s3_*.py"), SOURCES / "store_s3.py")]
    found = {one or other for text in texts for one, other in REQUEST.findall(text)}
    return found - LOCAL


def test_the_policy_allows_what_is_asked_for_and_nothing_else() -> None:
    page = (ROOT / "docs" / "security.md").read_text()
    text = re.search(r"```json\n(.*?)```", page, re.DOTALL)
    assert text is not None
    allowed: set[str] = set()
    for statement in json.loads(text[1])["Statement"]:
        actions = statement["Action"]
        allowed |= {actions} if isinstance(actions, str) else set(actions)
    made = requests_made()
    assert made <= set(ACTION), "say which right these need, here and in docs/security.md"
    assert allowed == {ACTION[name] for name in made}
    assert len(made) > 8, "they were looked for where they are"
