"""What may be wrong with an installation: a list of small checks, each of which looks and changes nothing.

A check returns what it found, and raises a `KasparroError` that says what is wrong and what to do.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

import httpx
import sqlalchemy as sa

from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.ports import holder, is_free
from kasparro_pipeline.services import services
from kasparro_pipeline.settings import Settings
from kasparro_pipeline.sources.drops import find_drops
from kasparro_pipeline.stack import Stack
from kasparro_pipeline.warehouse.cluster import MINIMUM_FREE_BYTES, require_free_space
from kasparro_pipeline.warehouse.database import check_server, create_engine, database_url, embedded, read_url
from kasparro_pipeline.warehouse.migrate import revisions

if TYPE_CHECKING:
    from kasparro_pipeline.components import ApiSource

MAX_SKEW = timedelta(seconds=5)
STUCK_AFTER = timedelta(hours=6)
"""A run that is under way for longer is taken for dead."""
WAITING_AFTER = timedelta(minutes=10)
"""A session that waits longer for a lock, or sits in a transaction, is in somebody's way."""
QUARANTINE_PERCENT = 5
"""Of a source's records of the last week, so many may be in quarantine."""


class NotLookedAtError(Exception):
    """A check has nothing to look at; the message says why."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check has found."""

    check: str
    ok: bool | None
    """None: it had nothing to look at."""
    detail: str
    """What is there, or what is wrong and what to do."""


class Patient:
    """The installation that is looked at."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @cached_property
    def engine(self) -> sa.Engine:
        """On the database.

        Raises:
            KasparroError: it is not there.
        """
        if self.settings.database_url is None and not embedded(self.settings).is_running():
            raise KasparroError("the embedded database does not run; start it: kasparro up")
        url = database_url(self.settings)
        check_server(url)
        return create_engine(url)

    @cached_property
    def vendors(self) -> list[ApiSource]:
        """The API sources that are defined."""
        from kasparro_pipeline.components import ApiSource  # noqa: PLC0415 - Dagster takes seconds to import
        from kasparro_pipeline.definitions import defs  # noqa: PLC0415

        tree = defs().component_tree
        return list(tree.get_all_components(ApiSource)) if tree else []

    def rows(self, query: str, **values: object) -> list[sa.Row[Any]]:
        """What `query` finds.

        Raises:
            NotLookedAtError: there is no database, or it has no such table.
        """
        try:
            with self.engine.connect() as connection:
                return list(connection.execute(sa.text(query), values))
        except KasparroError:
            raise NotLookedAtError("no database") from None
        except sa.exc.ProgrammingError:
            raise NotLookedAtError("no tables") from None


def examine(settings: Settings) -> Iterator[Finding]:
    """Do every check, one after the other."""
    patient = Patient(settings)
    for check in CHECKS:
        name = check.__name__.lstrip("_").replace("_", " ")
        try:
            yield Finding(name, True, check(patient))
        except KasparroError as error:
            yield Finding(name, False, str(error))
        except NotLookedAtError as reason:
            yield Finding(name, None, f"not looked at: {reason}")
    if "engine" in vars(patient):
        patient.engine.dispose()


# -- the database -----------------------------------------------------------------------------------------------


def _database(patient: Patient) -> str:
    url = patient.engine.url
    ((version,),) = patient.rows("SHOW server_version")
    return f"PostgreSQL {version.split()[0]} at {url.host}:{url.port or 5432}/{url.database}"


def _migrations(patient: Patient) -> str:
    ((found,),) = patient.rows("SELECT version_num FROM kasparro.alembic_version")
    newest = revisions()[0]
    if found not in revisions():
        raise KasparroError(f"the tables are of a newer Kasparro ({found}, here is {newest}); install that one")
    if found != newest:
        raise KasparroError(f"the tables are at {found}, the newest is {newest}; `kasparro up` or `load` migrates them")
    return f"at {found}, the newest"


def _clock(patient: Patient) -> str:
    before = datetime.now(UTC)
    ((theirs,),) = patient.rows("SELECT clock_timestamp()")
    skew = max(before - theirs, theirs - datetime.now(UTC), timedelta(0))
    if skew > MAX_SKEW:
        raise KasparroError(f"this machine's clock and the database's are {skew} apart; let both follow NTP")
    return "as the database's"


def _sessions(patient: Patient) -> str:
    found = patient.rows(
        "SELECT pid, coalesce(nullif(application_name, ''), usename) AS who, state, pg_blocking_pids(pid) AS blockers "
        "FROM pg_stat_activity WHERE datname = current_database() AND state_change < now() - :after "
        "AND (wait_event_type = 'Lock' OR state LIKE 'idle in transaction%') ORDER BY state_change",
        after=WAITING_AFTER,
    )
    if found:
        told = [f"{r.who} (pid {r.pid}) {f'waits for {r.blockers}' if r.blockers else r.state}" for r in found]
        raise KasparroError(
            f"for more than {WAITING_AFTER}: {'; '.join(told)}; end what is in the way: "
            "SELECT pg_terminate_backend(PID)"
        )
    return "none waits or holds a lock for long"


def _replica(patient: Patient) -> str:
    if patient.settings.read_url is None:
        raise NotLookedAtError("KASPARRO_READ_URL is not set")
    ours = patient.rows(_FOLLOWING)[0].system_identifier
    engine = create_engine(read_url(patient.settings))
    where = f"the replica at {engine.url.host}:{engine.url.port or 5432}/{engine.url.database}"
    try:
        with engine.connect() as connection:
            theirs, is_replica, bytes_behind = connection.execute(sa.text(_FOLLOWING)).one()
    except sa.exc.OperationalError as error:
        reason = str(error.orig).strip().splitlines()[0]
        raise KasparroError(f"{where} does not answer: {reason}; start it, or unset KASPARRO_READ_URL") from None
    finally:
        engine.dispose()
    if not is_replica or theirs != ours:
        raise KasparroError(f"{where} does not follow this database; set KASPARRO_READ_URL to one that does")
    return f"{where} follows, {bytes_behind:,} bytes that it has received are not applied yet"


_FOLLOWING = (
    "SELECT system_identifier, pg_is_in_recovery(), "
    "coalesce(pg_wal_lsn_diff(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()), 0)::bigint "
    "FROM pg_control_system()"
)


# -- this machine -----------------------------------------------------------------------------------------------


def _disk(patient: Patient) -> str:
    home = patient.settings.home
    folder = next(path for path in (home, *home.parents) if path.exists())
    require_free_space(folder)
    return (
        f"{shutil.disk_usage(folder).free / 2**30:.1f} GB free at {folder}, {MINIMUM_FREE_BYTES / 2**30:.1f} are needed"
    )


def _drop_folder(patient: Patient) -> str:
    found = find_drops(patient.settings.drop_dir)
    closed = [str(drop.path) for drop in found if not os.access(drop.path, os.R_OK)]
    if closed:
        raise KasparroError(f"{len(closed)} drops cannot be read, such as {closed[0]}; let this user read them")
    return f"{len(found)} files in {patient.settings.drop_dir}"


def _services(patient: Patient) -> str:
    if not (patient.settings.home / "supervisord.conf").exists():
        raise NotLookedAtError("nothing was started here by `kasparro up`")
    down = [state for state in Stack(patient.settings).status() if state.state != "RUNNING"]
    if down:
        told = ", ".join(f"{state.name} is {state.state.lower()}" for state in down)
        raise KasparroError(f"{told}; start: kasparro up, or see why: kasparro logs {down[0].name}")
    return "all run"


def _ports(patient: Patient) -> str:
    states = {state.name: state for state in Stack(patient.settings).status()}
    for service in services(patient.settings):
        if service.port is None or states[service.name].pid is not None or is_free(service.port, patient.settings.host):
            continue
        process = holder(service.port)
        by = f" by {process.name()} (pid {process.pid})" if process else ""
        raise KasparroError(
            f"port {service.port} for the {service.name} is taken{by}; end that, or set {service.port_variable}"
        )
    return "free, or ours"


# -- vendors and readers ----------------------------------------------------------------------------------------


def _vendors(patient: Patient) -> str:
    silent = []
    for source in patient.vendors:
        address = source.address(patient.settings)
        try:
            httpx.get(address, timeout=10, trust_env=False)
        except httpx.HTTPError as error:
            silent.append(f"{source.source} at {address} ({error})")
    if silent:
        what = "start the simulator: kasparro up" if patient.settings.uses_simulator else "check network and addresses"
        raise KasparroError(f"no answer from {'; '.join(silent)}; {what}")
    return "all answer"


def _vendor_keys(patient: Patient) -> str:
    if patient.settings.vendors == "simulator":
        return "the simulator needs none"
    without = [
        f"KASPARRO_{source.source.upper()}_API_KEY"
        for source in patient.vendors
        if source.auth_header and not patient.settings.vendor_key(source.source)
    ]
    if without:
        raise KasparroError(f"{', '.join(without)} is not set; set it, or a vendor may refuse or slow down")
    return "set"


def _readers(patient: Patient) -> str:
    chosen = patient.settings
    if chosen.api_read == "open" or (chosen.api_read == "auto" and chosen.is_private):
        return "reading needs no key"
    ((keys,),) = patient.rows(
        "SELECT count(*) FROM kasparro.api_key WHERE revoked_at IS NULL AND coalesce(expires_at > now(), true)"
    )
    if not keys and not chosen.api_keys:
        raise KasparroError("reading needs a key, and there is none; make one: kasparro keys create NAME")
    return "reading needs a key, and there are some"


# -- the work ---------------------------------------------------------------------------------------------------


def _runs(patient: Patient) -> str:
    found = patient.rows(
        "SELECT run_id, pipeline_name, status FROM dagster.runs WHERE status IN "
        "('QUEUED', 'NOT_STARTED', 'STARTING', 'STARTED', 'CANCELING') "
        "AND update_timestamp < (now() - :after) AT TIME ZONE 'UTC' ORDER BY update_timestamp",
        after=STUCK_AFTER,
    )
    if found:
        first = found[0]
        raise KasparroError(
            f"{len(found)} runs are under way for more than {STUCK_AFTER}, such as {first.run_id} of "
            f"{first.pipeline_name} ({first.status.lower()}); end them in the Dagster UI (Terminate, Force)"
        )
    return "none is stuck"


def _sources(patient: Patient) -> str:
    found = patient.rows(
        "SELECT DISTINCT ON (source) source, status, error FROM kasparro.source_run ORDER BY source, started_at DESC"
    )
    failed = [f"{row.source} ({row.error})" for row in found if row.status == "failure"]
    if failed:
        raise KasparroError(f"the last run failed of {'; '.join(failed)}; mend that, then: kasparro load")
    return f"the last run of none of {len(found)} failed"


def _checks(patient: Patient) -> str:
    found = patient.rows(
        "SELECT asset_key, check_name, count(*) AS days, min(detail) AS detail FROM kasparro.failed_check "
        "WHERE severity = 'error' GROUP BY 1, 2 ORDER BY 1, 2"
    )
    if found:
        told = [f"{row.check_name} of {row.asset_key} ({row.detail})" for row in found]
        raise KasparroError(f"failed: {'; '.join(told)}; see the asset's checks in the Dagster UI")
    return "none failed"


def _quarantine(patient: Patient) -> str:
    ((held,),) = patient.rows("SELECT count(*) FROM kasparro.quarantine")
    found = patient.rows(
        "SELECT source, sum(quarantined) AS held, sum(records) AS records FROM kasparro.delivery "
        "WHERE parsed_at > now() - interval '7 days' GROUP BY source "
        "HAVING 100 * sum(quarantined) > :percent * sum(records) ORDER BY source",
        percent=QUARANTINE_PERCENT,
    )
    if found:
        told = ", ".join(f"{row.held:,} of {row.records:,} of {row.source}" for row in found)
        raise KasparroError(
            f"of the week's records {told} are in quarantine; "
            f"see why: kasparro quarantine list --source {found[0].source}"
        )
    return f"{held:,} records"


CHECKS: tuple[Callable[[Patient], str], ...] = (
    _database,
    _migrations,
    _clock,
    _sessions,
    _replica,
    _disk,
    _drop_folder,
    _services,
    _ports,
    _vendors,
    _vendor_keys,
    _readers,
    _runs,
    _sources,
    _checks,
    _quarantine,
)
