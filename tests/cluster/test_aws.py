"""``cluster.yaml`` against an emulated AWS: what it starts is closed, workers come for a GPU and go when idle.

The account is moto's server, the instances are hosts of this machine, and nothing has a way out. Of the shipped file
only this is replaced: what its owner fills in, the time after which a worker is idle, and the service that carries ssh.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.cluster.hosts import GATEWAY, ROOT, Host, Lan, lan, missing

pytestmark = [
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
    pytest.mark.xdist_group("cluster"),
    pytest.mark.timeout(1800),
]

HERE = ROOT / "tests" / "cluster"
ACCOUNT = {
    "AWS_ENDPOINT_URL": f"http://{GATEWAY}:5000",
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_EC2_METADATA_DISABLED": "true",
}
PATIENCE_SECONDS = 600.0
JOB = """
import os, time
import ray

ray.init("auto", logging_level="ERROR", log_to_driver=False)

@ray.remote(num_gpus=1)
def on_a_gpu():
    time.sleep(1)
    return ray.util.get_node_ip_address(), os.environ["RETABLE_CACHE"], os.environ.get("OMP_NUM_THREADS")

print("RESULT", ray.get([on_a_gpu.remote(), on_a_gpu.remote()]))
"""


@dataclass
class Cycle:
    """What was seen while a cluster came, worked and went."""

    checked: str = ""
    head: dict[str, Any] = field(default_factory=dict)
    listening: str = ""
    unauthorized: str = ""
    status: str = ""
    tunnelled: str = ""
    recorded: str = ""
    job: str = ""
    working: dict[str, Any] = field(default_factory=dict)
    idle: dict[str, Any] = field(default_factory=dict)
    gone: dict[str, Any] = field(default_factory=dict)


@pytest.fixture(scope="module")
def cycle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cycle]:
    """One whole life of a cluster; every test looks at another side of it."""
    folder = tmp_path_factory.mktemp("aws")
    with lan(folder) as network, (folder / "moto.log").open("wb") as log:
        account = subprocess.Popen(
            network.at_gateway(sys.executable, "-m", "moto.server", "-H", GATEWAY, "-p", "5000"), stdout=log, stderr=log
        )
        try:
            yield lived(network)
        finally:
            account.kill()
            account.wait()


def lived(network: Lan) -> Cycle:
    exports = "".join(f"export {name}={value}\n" for name, value in ACCOUNT.items())
    laptop, *nodes = network.boot({"laptop": "2", "first": "4", "second": "5", "third": "6"}, bashrc=exports)
    for node in nodes:
        node.run(f"ln -s {sys.prefix} ~/retable-venv")  # stands where setup.sh would install
    laptop.write("~/.ssh/retable-cluster", network.key.read_text(), 0o600)
    laptop.write("~/.ssh/retable-cluster.pub", network.key.with_suffix(".pub").read_text())
    world = json.loads(until(lambda: ask(laptop, "begin"), "the account answers"))
    laptop.write("~/cluster.yaml", filled_in(laptop, world))
    seen = Cycle()

    def see() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(ask(laptop, "seen", world["vpc"]))
        return found

    seen.checked = retable(laptop, "check ~/cluster.yaml")
    retable(laptop, "up ~/cluster.yaml")
    seen.head, head = see(), nodes[0]
    seen.listening = head.run("ss -Hltn").stdout
    seen.unauthorized = head.run("curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:8265/api/version").stdout
    seen.status = retable(laptop, "status ~/cluster.yaml")
    seen.tunnelled, seen.recorded = tunnelled(laptop)
    head.write("~/job.py", JOB)
    job = head.spawn("bash --login -c -i 'source ~/.bashrc; unset OMP_NUM_THREADS; python ~/job.py'")
    seen.working = until(lambda: (s := see()) and len(alive(s)) > 1 and s, "a worker comes")
    seen.job = job.communicate(timeout=PATIENCE_SECONDS)[0]
    seen.idle = until(lambda: len(alive(s := see())) == 1 and s, "idle workers go")
    retable(laptop, "down ~/cluster.yaml --yes")
    seen.gone = see()
    return seen


def filled_in(laptop: Host, world: dict[str, str]) -> str:
    """The shipped file with what clusters/aws_prepare.py made, an image, a short idle time, and our carrier of ssh."""
    words = f"--region eu-central-1 --subnet {world['subnet']} --bucket runs-of-the-test"
    for _ in range(2):  # repeating it makes nothing twice
        said = laptop.run(f"python clusters/aws_prepare.py {words}", env=ACCOUNT, cwd=str(ROOT)).stdout
    group = re.search(r"SecurityGroupIds: \[(sg-\w+)\]", said)
    assert group, said
    text = (ROOT / "cluster.yaml").read_text()
    for old, new in {
        "ami-CHANGE-ME": world["image"],
        "subnet-CHANGE-ME": world["subnet"],
        "sg-CHANGE-ME": group[1],
        "idle_timeout_minutes: 10": "idle_timeout_minutes: 0.1",
    }.items():
        assert old in text
        text = text.replace(old, new)
    return re.sub(r"ssh_proxy_command: .*", f"ssh_proxy_command: bash {HERE}/ssm.sh %h %p", text)


def retable(laptop: Host, words: str) -> str:
    """Run ``retable cluster`` on the laptop, from the top of the checkout."""
    env = {**ACCOUNT, "PYTHONPATH": f"{ROOT}/platform"}
    done = laptop.run(f"python -m retable.cli cluster {words}", env=env, cwd=str(ROOT), timeout=PATIENCE_SECONDS)
    return done.stdout


def tunnelled(laptop: Host) -> tuple[str, str]:
    """What the dashboard (asked with the token) and MLflow answer through a tunnel."""
    env = {**ACCOUNT, "PYTHONPATH": f"{ROOT}/platform", "PYTHONUNBUFFERED": "1"}
    command = "echo $$ > ~/pid; exec python -m retable.cli cluster tunnel ~/cluster.yaml"
    tunnel = laptop.spawn(command, env=env, cwd=str(ROOT))
    assert tunnel.stdout is not None
    assert "dashboard: http://127.0.0.1:8265" in tunnel.stdout.readline()
    bearer = '-H "Authorization: Bearer $(cat ~/.ray/retable.token)"'
    dashboard = laptop.run(f"curl -s {bearer} http://127.0.0.1:8265/api/version").stdout
    mlflow = laptop.run("curl -s http://127.0.0.1:5000/health").stdout
    laptop.run("kill -TERM $(cat ~/pid)")
    tunnel.communicate(timeout=PATIENCE_SECONDS)
    return dashboard, mlflow


def ask(laptop: Host, *words: str) -> str:
    done = laptop.run(f"python {HERE}/aws_world.py {' '.join(words)}", env=ACCOUNT, check=False)
    return done.stdout if done.returncode == 0 else ""


def alive(seen: dict[str, Any]) -> list[dict[str, Any]]:
    return [i for i in seen["instances"] if i["State"]["Name"] in ("pending", "running")]


def until(call: Any, what: str) -> Any:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if answer := call():
            return answer
        time.sleep(0.2)
    raise AssertionError(f"in vain: {what}")


def workers(cycle: Cycle) -> list[dict[str, Any]]:
    return [i for i in cycle.gone["instances"] if tags(i)["ray-node-type"] == "worker"]


def tags(instance: dict[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in instance["Tags"]}


def test_the_file_that_went_up_is_the_shipped_one_without_a_fault(cycle: Cycle) -> None:
    assert "0 errors, 0 places to fill in" in cycle.checked


def test_workers_come_for_a_gpu_run_the_job_and_go_when_idle(cycle: Cycle) -> None:
    assert len(cycle.head["instances"]) == 1
    assert "RESULT" in cycle.job, cycle.job
    assert "10.77.0.5" in cycle.job
    assert "/srv/home/scratch/cache" in cycle.job
    assert len(workers(cycle)) == 2
    (head,) = alive(cycle.idle)
    assert tags(head)["ray-node-type"] == "head"
    assert alive(cycle.gone) == []


def test_the_head_is_on_demand_and_workers_are_spot(cycle: Cycle) -> None:
    (head,) = cycle.head["instances"]
    assert head.get("InstanceLifecycle") != "spot"
    assert head["InstanceType"] == "m6i.xlarge"
    assert {(w["InstanceLifecycle"], w["InstanceType"]) for w in workers(cycle)} == {("spot", "g6.4xlarge")}


def test_instances_are_tagged_for_the_policy_and_for_the_bill(cycle: Cycle) -> None:
    for instance in cycle.gone["instances"]:
        assert tags(instance)["ray-cluster-name"] == "retable"
        assert tags(instance)["project"] == "retable"


def test_metadata_needs_a_session_and_disks_are_encrypted(cycle: Cycle) -> None:
    assert {i["MetadataOptions"]["HttpTokens"] for i in cycle.gone["instances"]} == {"required"}
    disks = [d["Ebs"]["VolumeId"] for i in alive(cycle.working) for d in i["BlockDeviceMappings"]]
    assert len(disks) >= 2
    assert all(cycle.working["volumes"][disk] for disk in disks)


def test_no_port_is_open_and_no_address_public(cycle: Cycle) -> None:
    for instance in alive(cycle.working):
        assert not instance.get("PublicIpAddress")
        (group,) = instance["SecurityGroups"]
        assert group["GroupName"] == "retable-cluster"
    (own,) = [g for g in cycle.working["groups"] if g["GroupName"] == "retable-cluster"]
    (rule,) = own["IpPermissions"]
    assert rule["IpRanges"] == rule["Ipv6Ranges"] == []
    assert [pair["GroupId"] for pair in rule["UserIdGroupPairs"]] == [own["GroupId"]]


def test_roles_are_the_shipped_ones_and_ray_made_none(cycle: Cycle) -> None:
    assert set(cycle.gone["roles"]) == {"retable-head", "retable-worker"}
    assert all(role["attached"] == [] for role in cycle.gone["roles"].values())
    profiles = {
        tags(i)["ray-node-type"]: i["IamInstanceProfile"]["Arn"].rpartition("/")[2] for i in alive(cycle.working)
    }
    assert profiles == {"head": "retable-head", "worker": "retable-worker"}
    assert cycle.gone["keys"] == ["retable-cluster"]


def test_what_listens_for_people_listens_on_loopback_and_wants_the_token(cycle: Cycle) -> None:
    listening = {line.split()[3] for line in cycle.listening.splitlines()}
    assert {a for a in listening if a.endswith((":8265", ":5000"))} == {"127.0.0.1:8265", "127.0.0.1:5000"}
    assert cycle.unauthorized == "401"
    assert "ray_version" in cycle.tunnelled
    assert cycle.recorded == "OK"


def test_status_shows_the_head(cycle: Cycle) -> None:
    assert "1 head" in cycle.status
