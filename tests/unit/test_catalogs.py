"""The catalog in force, and runs that keep the runner they were accepted under."""

from agp_agent.catalog import Catalogs
from support.agent_parts import catalog_of


def test_who_subscribed_is_told_of_every_new_catalog() -> None:
    """Each by an event of its own."""
    catalogs = Catalogs(catalog_of())
    one, other = catalogs.subscribe(), catalogs.subscribe()
    new = catalog_of(extra={})
    catalogs.replace(new)
    assert catalogs.current is new
    assert one.is_set()
    one.clear()
    assert other.is_set()
    assert not one.is_set()


def test_a_run_keeps_its_runner_until_it_ends() -> None:
    """Changed or gone from the catalog; a run of an earlier agent gets today's."""
    catalogs = Catalogs(catalog_of(extra={"memory": "64MiB"}))
    old = catalogs.current.runners["extra"]
    catalogs.keep("kept", old)
    catalogs.replace(catalog_of(extra={"memory": "32MiB"}))
    assert catalogs.runner_of("kept", "extra") is old
    assert catalogs.runner_of("another", "extra") is catalogs.current.runners["extra"]
    catalogs.replace(catalog_of())
    assert catalogs.runner_of("kept", "extra") is old
    assert catalogs.runner_of("another", "extra") is None
    catalogs.forget("kept")
    catalogs.forget("kept")
    assert catalogs.runner_of("kept", "extra") is None
