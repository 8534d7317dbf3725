"""`agentflow doctor`: facts are judged without the machine, readers get made-up files, one test runs the command."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from agentflow_serve.commands.exits import Exit
from agentflow_serve.doctor.capacity import GIB, MIB, check_capacity
from agentflow_serve.doctor.cgroup import Limits, limits
from agentflow_serve.doctor.checks import Check
from agentflow_serve.doctor.config import look_up, read_config_facts
from agentflow_serve.doctor.facts import App, Cluster, Config, Demand, Library, Machine, Port, Provider, Store, Volume
from agentflow_serve.doctor.installation import check_installation
from agentflow_serve.doctor.machine import read_machine
from agentflow_serve.doctor.mounts import filesystem_of
from agentflow_serve.doctor.service import check_port, check_service
from agentflow_serve.doctor.surroundings import check_surroundings, joins_a_cluster
from support.command_line import agentflow
from support.postgres import ROLE, SUPERUSER, PostgresServer

CONFIGS = Path(__file__).parents[2] / "configs"
SECRET = "s3cret-value"

HEALTHY = Machine(
    python="3.11.9",
    python_asked=">=3.11,<3.14",
    libraries=(Library("ray", ">=2.60,<2.61", "2.60.0"), Library("duckdb", ">=1.4,<3", "1.5.0", "features")),
    cpus=4.0,
    gpus=0,
    memory_bytes=16 * GIB,
    temp=Volume("/tmp", 50 * GIB, 100 * GIB, 1_000_000),
    shared_memory=Volume("/dev/shm", 8 * GIB, 8 * GIB),
    open_files=65536,
)
DEMAND = Demand(replicas=5, cpus=0.25)


def judged(machine: Machine, demand: Demand | None = DEMAND) -> dict[str, Check]:
    elsewhere = joins_a_cluster(machine)
    return named(
        [
            *check_installation(machine),
            *check_surroundings(machine),
            *check_capacity(machine, demand, elsewhere=elsewhere),
        ]
    )


def named(checks: Iterable[Check]) -> dict[str, Check]:
    found = list(checks)
    assert all(check.hint for check in found if check.status != "ok"), "who has a problem is told what to do"
    assert len({check.name for check in found}) == len(found)
    return {check.name: check for check in found}


def test_a_healthy_machine_has_nothing_to_warn_of():
    assert {check.status for check in judged(HEALTHY).values()} == {"ok"}


SMALL = Volume("/tmp", 50 * MIB, 100 * GIB)


@pytest.mark.parametrize(
    ("change", "name", "status", "says"),
    [
        ({"python": "3.10.2"}, "python", "fail", "3.10.2 does not fit"),
        ({"libraries": ()}, "libraries", "warn", "not installed as a package"),
        ({"libraries": (Library("ray", ">=2.60,<2.61", "2.61.0"),)}, "library.ray", "fail", "ray 2.61.0 is installed"),
        ({"libraries": (Library("ray", ">=2.60,<2.61", None),)}, "library.ray", "fail", "ray is missing"),
        ({"libraries": (Library("duckdb", ">=1.4", None, "features"),)}, "extra.features", "ok", "is not installed"),
        ({"libraries": (Library("duckdb", ">=1.4", "1.0", "features"),)}, "extra.features", "warn", "duckdb>=1.4"),
        ({"environ": {"RAY_SERVE_ENABLE_HA_PROXY": "1"}}, "ha_proxy", "fail", "no HAProxy"),
        ({"environ": {"RAY_SERVE_ENABLE_HA_PROXY": "1"}, "haproxy": "p"}, "ha_proxy", "ok", "8404"),
        ({"environ": {"RAY_SERVE_ENABLE_HA_PROXY": "true"}}, "ha_proxy", "warn", "not to 1"),
        ({"environ": {"RAY_AUTH_MODE": "disabled"}}, "auth", "warn", "can run code"),
        ({"environ": {"RAY_AUTH_MODE": "Token"}}, "auth", "ok", "token"),
        ({"environ": {"RAY_AUTH_MODE": "yes"}}, "auth", "warn", "neither"),
        ({"environ": {"RAY_ADDRESS": SECRET}}, "cluster", "warn", "joins that cluster"),
        ({"environ": {"RAY_ADDRESS": "local"}}, "cluster", "ok", "of its own"),
        ({"cluster": Cluster("10.0.0.1:6379", True, "f")}, "cluster", "warn", "runs at 10.0.0.1:6379"),
        ({"cluster": Cluster("10.0.0.1:6379", False, "f")}, "cluster", "warn", "does not answer"),
        ({"environ": {"HTTP_PROXY": SECRET}}, "proxies", "warn", "HTTP_PROXY"),
        ({"environ": {"HTTP_PROXY": SECRET, "no_proxy": "localhost"}}, "proxies", "warn", "HTTP_PROXY"),
        ({"environ": {"HTTP_PROXY": SECRET, "NO_PROXY": "x, 127.0.0.1"}}, "proxies", "ok", "left out"),
        ({"environ": {"https_proxy": SECRET, "no_proxy": "*"}}, "proxies", "ok", "left out"),
        ({"cpus": 0.2}, "cpus", "fail", "5 replicas ask for 0.25 CPUs, and Ray has 0"),
        ({"memory_bytes": GIB}, "memory", "warn", "5 replicas take about 1.5 GiB, and 1.0 GiB are free"),
        ({"memory_bytes": None}, "memory", "ok", "not compared"),
        ({"temp": SMALL}, "disk", "fail", "50 MiB are free in /tmp"),
        ({"temp": replace(SMALL, free_bytes=4 * GIB)}, "disk", "warn", "96% full"),
        ({"temp": replace(HEALTHY.temp, free_inodes=10)}, "disk", "warn", "10 more files"),
        ({"temp": replace(HEALTHY.temp, free_inodes=None)}, "disk", "ok", ""),
        ({"temp": replace(HEALTHY.temp, writable=False)}, "disk", "fail", "cannot write to /tmp"),
        ({"temp": replace(HEALTHY.temp, path="/" + "x" * 60)}, "sockets", "fail", "too long"),
        ({"shared_memory": Volume("/dev/shm", 64 * MIB, 64 * MIB)}, "shared_memory", "warn", "go to the disk"),
        ({"open_files": 1024}, "open_files", "warn", "1024 files"),
    ],
)
def test_what_breaks_is_found_and_said(change: dict[str, Any], name: str, status: str, says: str):
    checks = judged(replace(HEALTHY, **change))
    assert checks[name].status == status
    assert says in checks[name].message
    assert SECRET not in str(checks)


@pytest.mark.parametrize(
    ("demand", "name", "status"),
    [
        (Demand(replicas=8, cpus=4.0), "cpus", "ok"),
        (Demand(replicas=8, cpus=4.05), "cpus", "fail"),
        (Demand(replicas=2, cpus=0.1, gpus=0.5), "gpus", "fail"),
        (Demand(replicas=1, cpus=0.1, memory_bytes=20 * GIB), "memory", "warn"),
        (None, "cpus", "ok"),
    ],
)
def test_what_the_flows_ask_for_is_held_against_the_machine(demand: Demand | None, name: str, status: str):
    assert judged(HEALTHY, demand)[name].status == status


def test_a_flow_that_goes_to_another_cluster_is_not_held_against_this_machine():
    checks = judged(replace(HEALTHY, environ={"RAY_ADDRESS": "10.0.0.1:6379"}), Demand(replicas=90, cpus=45))
    assert checks["cpus"].status == "ok"
    assert "90 replicas ask for 45 CPUs" in checks["demand"].message


def test_numbers_that_add_up_to_a_whole_one_fit():
    demand = sum((Demand(1, 0.05) for _ in range(80)), Demand())
    assert judged(HEALTHY, demand)["cpus"].status == "ok"


KEEPS = Store("sqlite:///s.db", path="/data/s.db", filesystem="ext4")


def serving(app: App, **options: Any) -> dict[str, Check]:
    environ, host = options.pop("environ", {}), options.pop("host", "127.0.0.1")
    return named(check_service(Config((app,), Port(host, 8000), **options), environ))


@pytest.mark.parametrize(
    ("store", "status", "says"),
    [
        (KEEPS, "ok", "can be written"),
        (replace(KEEPS, filesystem="nfs4"), "fail", "network file system (nfs4)"),
        (replace(KEEPS, filesystem="fuse.sshfs"), "fail", "network file system"),
        (replace(KEEPS, filesystem="fuse.fuse-overlayfs"), "ok", "can be written"),
        (replace(KEEPS, folder_exists=False, writable=False), "fail", "does not exist"),
        (replace(KEEPS, writable=False), "fail", "cannot be written"),
        (replace(KEEPS, is_sqlite=False), "fail", "no SQLite file"),
        (Store("x", problem="The store address is wrong."), "fail", "is wrong"),
        (Store("memory:"), "warn", "ends with its process"),
        (Store("x", server="postgresql://db/flows", refusal="It cannot be reached."), "fail", "cannot be reached"),
        (Store("x", server="postgresql://db/flows", shows_password=True), "warn", "its password stands"),
        (Store("x", server="postgresql://db/flows"), "ok", "answers"),
    ],
)
def test_a_store_that_would_lose_or_refuse_data_is_found(store: Store, status: str, says: str):
    check = serving(App("a", store=store))["app.a.store"]
    assert (check.status, says in check.message) == (status, True)


@pytest.mark.parametrize(
    ("app", "host", "status", "says"),
    [
        (App("a"), "127.0.0.1", "ok", "on this machine only"),
        (App("a"), "localhost", "ok", "on this machine only"),
        (App("a"), "::1", "ok", "on this machine only"),
        (App("a"), "0.0.0.0", "fail", "anybody who reaches 0.0.0.0 could call it"),
        (App("a"), "desk.example.com", "fail", "anybody who reaches desk.example.com"),
        (App("a", open_to_network=True), "0.0.0.0", "warn", "as its config says"),
        (App("a", asks_for_keys=True), "0.0.0.0", "ok", "asks for API keys"),
    ],
)
def test_an_app_that_asks_nobody_for_a_key_stays_on_loopback(app: App, host: str, status: str, says: str):
    check = serving(app, host=host)["app.a.auth"]
    assert (check.status, says in check.message) == (status, True)


def test_keys_are_named_and_their_values_are_not():
    app = App("a", providers=(Provider("openai", key="OPENAI_API_KEY"), Provider("other", key="OTHER_KEY")))
    checks = serving(app, environ={"OPENAI_API_KEY": SECRET, "OTHER_KEY": " "})
    assert checks["app.a.key.openai"].status == "ok"
    assert checks["app.a.key.other"].status == "fail"
    assert "OTHER_KEY is not set" in checks["app.a.key.other"].message
    assert SECRET not in str(checks)


@pytest.mark.parametrize(
    ("lookup", "environ", "status"),
    [
        ("found", {}, "ok"),
        ("unknown", {}, "fail"),
        ("unknown", {"https_proxy": "p"}, "warn"),
        ("no answer", {}, "warn"),
        (None, {}, "ok"),
    ],
)
def test_a_providers_host_must_be_known_unless_a_proxy_may_know_it(lookup: Any, environ: dict[str, str], status: str):
    app = App("a", providers=(Provider("own", host="models.test"),))
    lookups = {} if lookup is None else {"models.test": lookup}
    assert serving(app, lookups=lookups, environ=environ)["app.a.host.own"].status == status


def test_a_port_that_a_config_names_must_be_free_and_the_default_one_only_should():
    taken = Port("127.0.0.1", 8000, "port 8000 on 127.0.0.1 is in use")
    assert [check_port(taken, asked=asked).status for asked in (True, False)] == ["fail", "warn"]


# -- the readers -------------------------------------------------------------------------------------------------------


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("membership", "files", "found"),
    [
        ("0::/\n", {}, Limits()),
        ("0::/\n", {"cpu.max": "max 100000\n", "memory.max": "max\n", "memory.current": "5\n"}, Limits()),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, Limits(cpus=1.5)),
        ("0::/not/mounted/here\n", {"cpu.max": "50000 100000\n"}, Limits(cpus=0.5)),
        ("0::/a/b\n", {"a/cpu.max": "100000 100000\n", "a/b/cpu.max": "200000 100000\n"}, Limits(cpus=1.0)),
        (
            "0::/a\n",
            {"a/memory.max": "1000\n", "a/memory.current": "900\n", "a/memory.stat": "anon 5\ninactive_file 300\n"},
            Limits(memory_bytes=400),
        ),
        (
            "4:memory:/d\n3:cpu,cpuacct:/d\n",
            {
                "memory/memory.limit_in_bytes": "1000\n",
                "memory/memory.usage_in_bytes": "400\n",
                "cpu,cpuacct/cpu.cfs_quota_us": "200000\n",
                "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            Limits(cpus=2.0, memory_bytes=600),
        ),
        (
            "4:memory:/\n3:cpu:/\n",
            {
                "memory/memory.limit_in_bytes": "9223372036854771712\n",
                "memory/memory.usage_in_bytes": "400\n",
                "cpu/cpu.cfs_quota_us": "-1\n",
                "cpu/cpu.cfs_period_us": "100000\n",
            },
            Limits(),
        ),
    ],
)
def test_the_limits_of_a_container_are_read_from_both_versions_of_control_groups(
    tmp_path: Path, membership: str, files: dict[str, str], found: Limits
):
    assert limits(membership, write(tmp_path, files)) == found


MOUNTS = r"""overlay / overlay rw 0 0
nas:/x /data nfs4 rw 0 0
/dev/sdb /data/local ext4 rw 0 0
nas:/y /my\040disk cifs rw 0 0
tmpfs /data/local tmpfs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/x", "overlay"),
        ("/data/a", "nfs4"),
        ("/database", "overlay"),
        ("/data/local/b", "tmpfs"),
        ("/my disk", "cifs"),
    ],
)
def test_the_file_system_of_a_path_is_that_of_the_innermost_mount(path: str, kind: str):
    assert filesystem_of(Path(path), MOUNTS) == kind
    assert filesystem_of(Path(path), "") is None


def test_a_name_that_nobody_knows_is_told_from_one_that_is_known_and_from_silence(monkeypatch: pytest.MonkeyPatch):
    assert look_up(["localhost", "no..name"], timeout_s=60) == {"localhost": "found", "no..name": "unknown"}
    answered = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: answered.wait(60))
    assert look_up(["slow.test"], timeout_s=0) == {"slow.test": "no answer"}
    answered.set()


def test_a_recorded_cluster_is_found_and_asked_whether_it_is_there(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        write(tmp_path, {"ray/ray_current_cluster": address + "\n"})
        found = read_machine({"RAY_TMPDIR": str(tmp_path)}).cluster
        assert found is not None and (found.address, found.answers) == (address, True)
    found = read_machine({"RAY_TMPDIR": str(tmp_path)}).cluster
    assert found is not None and not found.answers


def test_every_library_that_the_package_asks_for_is_asked_for_its_version():
    libraries = {library.name: library for library in read_machine({}).libraries}
    assert {"ray", "kserve", "pydantic", "uvicorn", "duckdb"} <= set(libraries), "uvicorn comes from ray[serve]"
    assert libraries["duckdb"].extra == "features"
    assert "pytest" not in libraries
    assert libraries["ray"].installed is not None


# -- a serve config ----------------------------------------------------------------------------------------------------


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    agentflow("new", "helper", "--dir", str(tmp_path / "helper"))
    monkeypatch.chdir(tmp_path / "helper")
    return tmp_path / "helper"


def edit(path: Path, **changes: Any) -> None:
    document = yaml.safe_load(path.read_text())
    document["applications"][0]["args"].update(changes)
    path.write_text(yaml.safe_dump(document))


def test_the_facts_of_a_config_are_its_demand_its_providers_and_its_store(desk: Path):
    hub = yaml.safe_load((desk / "llmhub.yaml").read_text())
    hub["providers"] = {
        "openai": {"env_key": "OPENAI_API_KEY", "api_base": "http://127.0.0.1:9/v1"},
        "unused": {"env_key": "UNUSED_KEY"},
    }
    hub["roles"] = {"llm.writer": {"provider": "openai", "model": "gpt-4o", "mode": "chat"}}
    edit(desk / "serve.yaml", llmhub=hub, store=f"sqlite:///{desk}/s.db")
    config = read_config_facts(desk / "serve.yaml")
    [app] = config.apps
    assert app.problem is None
    assert (app.demand.replicas, app.demand.cpus) == (4, pytest.approx(0.2)), "three nodes and the predictor"
    assert app.providers == (Provider("openai", "OPENAI_API_KEY", "127.0.0.1"),)
    assert app.store is not None and app.store.path == f"{desk}/s.db"
    assert config.lookups == {}, "a number needs no lookup"
    edit(desk / "serve.yaml", placement="inline")
    assert read_config_facts(desk / "serve.yaml").apps[0].demand.replicas == 1


def test_a_store_is_looked_at_and_not_touched(desk: Path):
    (desk / "notes.db").write_text("no database")
    edit(desk / "serve.yaml", store=f"sqlite:///{desk}/notes.db")
    [app] = read_config_facts(desk / "serve.yaml").apps
    assert app.store is not None and not app.store.is_sqlite
    before = sorted(desk.iterdir())
    edit(desk / "serve.yaml", store=f"sqlite:///{desk}/new/s.db")
    [app] = read_config_facts(desk / "serve.yaml").apps
    assert app.store is not None and not app.store.folder_exists
    assert sorted(desk.iterdir()) == before


def test_a_store_on_a_server_is_asked_for_an_answer(desk: Path, postgres_server: PostgresServer):
    url = postgres_server.url()
    for store, refusal in ((url, None), (url.replace("/postgres?", "/nowhere?"), "does not exist")):
        edit(desk / "serve.yaml", store=store)
        [app] = read_config_facts(desk / "serve.yaml").apps
        assert app.store is not None and app.store.server is not None
        assert (app.store.refusal is None) if refusal is None else (refusal in str(app.store.refusal))
        assert not app.store.shows_password and not app.store.sees_all
    edit(desk / "serve.yaml", store=url.replace("app@", "app:s3cret@"))
    result = agentflow("doctor", "--config", "serve.yaml")
    assert "PGPASSWORD" in result.out and "s3cret" not in result.out + result.err


def test_a_role_that_no_policy_holds_for_is_told(desk: Path, postgres_server: PostgresServer):
    for role, told in ((ROLE, False), (SUPERUSER, True)):
        edit(desk / "serve.yaml", store=postgres_server.url(role=role))
        checks = named(check_service(read_config_facts(desk / "serve.yaml"), {}))
        assert checks["app.helper.store"].status == "ok"
        assert ("app.helper.store.role" in checks) is told
    assert "BYPASSRLS" in checks["app.helper.store.role"].message


def test_a_flow_or_a_model_that_cannot_be_used_fails_and_says_why(desk: Path):
    flow = (desk / "flow.yaml").read_text()
    for text, args, says in (
        (flow.replace("template: |", "tempalte: |"), {}, "tempalte"),
        (flow.replace("llm.writer", "llm.nobody"), {}, "llm.nobody"),
        (flow, {"llmhub": "nowhere.yaml"}, "no file nowhere.yaml"),
        (flow, {"code": "off"}, "runs none"),
        (flow, {"typo": 1}, "args.typo"),
    ):
        (desk / "flow.yaml").write_text(text)
        before = (desk / "serve.yaml").read_text()
        edit(desk / "serve.yaml", **args)
        check = named(check_service(read_config_facts(desk / "serve.yaml"), {}))["app.helper"]
        assert (check.status, says in check.message) == ("fail", True), check.message
        (desk / "serve.yaml").write_text(before)


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_command_ends_with_one_when_something_fails_and_says_so_in_json(desk: Path):
    (desk / "serve.yaml").write_text("applications: 5")
    ended = agentflow("doctor", "--config", "serve.yaml", "--json")
    document = json.loads(ended.out)
    assert (ended.code, document["healthy"]) == (Exit.FAILED, False)
    [wrong] = [check for check in document["checks"] if check["status"] == "fail"]
    assert set(wrong) == {"name", "status", "message", "hint"}
    assert "serve.yaml is not a serve config: applications" in wrong["message"]


def test_the_real_command_imports_nothing_heavy_and_shows_every_check(tmp_path: Path):
    code = """
import sys, time
from agentflow_serve.commands import main
try:
    main()
except SystemExit as ended:
    heavy = sorted({"ray", "any_llm", "kserve", "mellea", "httpx", "duckdb", "hopsworks"} & set(sys.modules))
    sys.stderr.write(f"{ended.code} {heavy} {time.process_time() < 4}")
"""
    arguments = ["doctor", "--config", "configs/returns_desk.yaml"]
    environ = {**os.environ, "OPENAI_API_KEY": SECRET, "http_proxy": f"http://u:{SECRET}@127.0.0.1:9", "no_proxy": ""}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=CONFIGS.parent,
        env={**environ, "RAY_TMPDIR": str(tmp_path), "RAY_ADDRESS": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    *lines, last = done.stdout.splitlines()
    failed = sum(line.startswith("FAIL  ") for line in lines)
    assert done.stderr == f"{1 if failed else 0} [] True"
    assert last.endswith(f", {failed} failed")
    assert any("'returns-desk': the flow is valid" in line for line in lines)
    assert any(line.startswith("warn  http_proxy:") for line in lines)
    assert SECRET not in done.stdout
