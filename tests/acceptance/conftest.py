import os
import shutil
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def programs():
    if os.environ.get("KARST_TEST_SELF") != "kafka" and not os.path.exists(harness.KARST):
        pytest.exit(f"no {harness.KARST}: build first (scripts/test does)", returncode=1)


@pytest.fixture(scope="module")
def folder():
    path = harness.new_folder()
    yield path
    shutil.rmtree(path, ignore_errors=True)


def fresh(path, **options):
    cluster = harness.new_cluster(path, **options)
    os.makedirs(path, exist_ok=True)
    return cluster


@pytest.fixture(scope="module")
def karst(folder):
    """A constellation of the module's own: it starts in a fraction of a second."""
    cluster = fresh(os.path.join(folder, "k"))
    cluster.start()
    yield cluster
    cluster.close()


@pytest.fixture
def own_folder():
    path = harness.new_folder()
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def own_karst(own_folder):
    """Not started yet; of this test alone."""
    cluster = harness.Karst(own_folder)
    yield cluster
    cluster.close()


@pytest.fixture(scope="session")
def kafka():
    path = harness.new_folder()
    cluster = harness.Kafka(path)
    cluster.start()
    yield cluster
    cluster.close()
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def pair(karst, kafka):
    return harness.Pair(karst, kafka)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failed test shows the constellation's last log lines."""
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        values = [v.ours if isinstance(v, harness.Pair) else v for v in getattr(item, "funcargs", {}).values()]
        for cluster in {id(v): v for v in values}.values():
            if isinstance(cluster, harness.Karst):
                report.sections.append((f"log of {cluster.data}", cluster.log()))
