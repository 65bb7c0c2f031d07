"""Fixtures of the deployment tests.

They run against any inventory whose groups are ``clickhouse_hosts`` and ``collector_hosts``::

    pytest tests/deploy --ansible-inventory inventory/several/hosts.yml -m 'not test_network and not disruptive'

The inventory's user is root, or ``ansible_become`` is set in it: some of what is looked at is nobody else's to read.
Tests marked ``test_network`` need the private network of the test hosts, those marked ``disruptive`` break things.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

import pytest
from testinfra.host import Host

from deploy import site


def _inventory(config: pytest.Config) -> str:
    inventory = config.getoption("ansible_inventory")
    if not inventory:
        raise pytest.UsageError("the deployment tests need --ansible-inventory; make test-deploy gives it")
    return str(inventory)


@pytest.fixture(scope="session")
def collectors(request: pytest.FixtureRequest) -> list[Host]:
    """All collector hosts."""
    return site.hosts(_inventory(request.config), "collector_hosts")


@pytest.fixture(scope="session")
def clickhouse(request: pytest.FixtureRequest) -> Host:
    """The ClickHouse host."""
    return site.hosts(_inventory(request.config), "clickhouse_hosts")[0]


@pytest.fixture(scope="session")
def network(request: pytest.FixtureRequest) -> Host:
    """The guest that holds the private network and the exchange."""
    return site.hosts(_inventory(request.config), "test_network")[0]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes ``collector`` runs once per collector host."""
    if "collector" in metafunc.fixturenames:
        found = site.hosts(_inventory(metafunc.config), "collector_hosts")
        metafunc.parametrize("collector", found, ids=[site.name(host) for host in found], scope="session")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Show the journals of the hosts a failed test looked at."""
    report = yield
    if report.when == "call" and report.failed:
        shown: dict[str, Host] = {}
        for value in getattr(item, "funcargs", {}).values():
            for host in value if isinstance(value, list) else [value]:
                if isinstance(host, Host):
                    shown[site.name(host)] = host
        lines = os.environ.get("MEXC_TEST_JOURNAL_LINES", "40")
        for host_name, host in shown.items():
            command = f"journalctl --no-pager -n {lines} -u 'mexc-*' -u 'tor@*' -u clickhouse-server -u 'test-*'"
            try:
                said = host.run(command).stdout
            except RuntimeError as error:  # how testinfra says that there is no way in
                said = f"not reached: {error}"
            report.sections.append((f"journal of {host_name}", said))
    return report
