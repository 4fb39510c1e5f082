"""Redis behind TLS: the certificate is verified, and its host."""

from pathlib import Path

import pytest

from loradrop.catalog.errors import CatalogUnavailable
from loradrop.catalog.store import Connection
from testkit.servers import ValkeyServer
from tests.catalog.round_trip import publish_and_read
from tests.catalog.tls import certificate, tls_in_front_of

pytestmark = pytest.mark.faults


async def test_with_tls_the_certificate_is_verified(
    redis_url: str, valkey_server: ValkeyServer, tmp_path: Path
) -> None:
    signed = certificate(tmp_path, host="127.0.0.1")
    async with tls_in_front_of(valkey_server.port, signed) as port:
        await publish_and_read(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={signed}")
        async with Connection(f"rediss://127.0.0.1:{port}/0") as trusting_nobody:
            with pytest.raises(CatalogUnavailable, match="ssl_ca_certs=FILE"):
                await trusting_nobody.ping()


async def test_with_tls_the_host_must_be_the_certificates(
    valkey_server: ValkeyServer, tmp_path: Path
) -> None:
    signed = certificate(tmp_path, host="redis.internal")
    async with (
        tls_in_front_of(valkey_server.port, signed) as port,
        Connection(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={signed}") as connection,
    ):
        with pytest.raises(CatalogUnavailable, match="is not trusted"):
            await connection.ping()
