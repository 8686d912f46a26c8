"""Puts files into a bucket, which it makes if there is none: for the quick start, where no other
program for S3 is needed. Server and credentials are those of AWS_ENDPOINT_URL and so on.

    python k8s/quickstart/upload.py s3://bucket/prefix/ FILE...
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from urllib.parse import urlsplit

import boto3
from botocore.exceptions import BotoCoreError, ClientError


def upload(target: str, files: list[Path]) -> None:
    """SystemExit when it fails."""
    parts = urlsplit(target)
    prefix = parts.path.strip("/")
    if parts.scheme != "s3" or not parts.netloc:
        raise SystemExit(f"{target} is not s3://bucket/prefix/")
    s3 = boto3.client("s3")
    try:
        known = [one["Name"] for one in s3.list_buckets()["Buckets"]]
        if parts.netloc not in known:
            s3.create_bucket(Bucket=parts.netloc)
        for file in files:
            key = "/".join(filter(None, (prefix, file.name)))
            s3.upload_file(str(file), parts.netloc, key)
            print(f"s3://{parts.netloc}/{key}")
    except (BotoCoreError, ClientError, OSError) as error:
        raise SystemExit(f"cannot upload to {target}: {error}") from None


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Put files into a bucket.")
    parser.add_argument("target", help="s3://bucket/prefix/")
    parser.add_argument("file", type=Path, nargs="+")
    options = parser.parse_args(arguments)
    upload(options.target, options.file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
