"""Ports for the children of several stacks on one machine: the preferred one for the first."""

import socket
import sys

import pytest

from loradrop.catalog.errors import CatalogUnavailable
from loradrop.worker.fleet.ports import reserved_port
from testkit.servers import free_port

LOOPBACK = "127.0.0.1"


def test_the_preferred_port_is_taken_where_it_is_free() -> None:
    preferred = free_port()
    with reserved_port(LOOPBACK, preferred) as port:
        assert port == preferred


def test_where_a_server_listens_another_port_is_taken() -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        taken = server.getsockname()[1]
        with reserved_port(LOOPBACK, taken) as port:
            assert port != taken
            assert port >= 1024, "it needs no privileges"


def test_a_port_whose_connections_have_just_ended_is_free() -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        preferred = server.getsockname()[1]
        with socket.create_connection((LOOPBACK, preferred)) as client:
            accepted, _ = server.accept()
            accepted.close()  # the side that closes first keeps the port for a minute
            assert client.recv(1) == b""
    with reserved_port(LOOPBACK, preferred) as port:
        assert port == preferred


@pytest.mark.skipif(sys.platform != "linux", reason="ports are reserved on Linux only")
def test_a_reserved_port_is_no_other_servers_until_the_end_though_none_listens_yet() -> None:
    preferred = free_port()
    with reserved_port(LOOPBACK, preferred), reserved_port(LOOPBACK, preferred) as other:
        assert other != preferred
    with reserved_port(LOOPBACK, preferred) as again:
        assert again == preferred


def test_a_server_can_listen_on_the_port_that_was_reserved_for_it() -> None:
    with reserved_port(LOOPBACK, free_port()) as port, socket.create_server((LOOPBACK, port)):
        pass


def test_a_host_without_a_port_is_an_error_with_its_name() -> None:
    with pytest.raises(CatalogUnavailable), reserved_port("203.0.113.1", 8001):
        pytest.fail("it is no address of this machine")
