"""An S3 server in this process, for the tests of several rooms."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The address of an empty bucket on a server of this process; this process and its children find it by environment."""
    pytest.importorskip("s3fs")
    moto = pytest.importorskip("moto.server")
    import logging

    import fsspec

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # one line per request
    bucket = f"ostraka-{uuid.uuid4().hex}"  # the server forgets nothing as long as the process lives
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    patch = pytest.MonkeyPatch()
    patch.setenv("AWS_ACCESS_KEY_ID", "test")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    patch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir(bucket)
    yield f"s3://{bucket}"
    fsspec.filesystem("s3").clear_instance_cache()
    patch.undo()
    server.stop()
