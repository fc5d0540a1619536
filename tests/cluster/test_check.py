"""``retable cluster check``: shipped files are clean; each fault is found where it stands, with a way out."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retable import cli
from retable.cluster import kubernetes
from retable.cluster.check import examine
from retable.cluster.document import ClusterFile, ClusterFileError, load, parse
from retable.execute import clusters

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = [ROOT / "cluster.yaml", *sorted(p for p in (ROOT / "clusters").glob("*.yaml") if p.name != "prices.yaml")]
AWS, GCP, KUBERAY = (
    (ROOT / name).read_text() for name in ("cluster.yaml", "clusters/gcp.yaml", "clusters/kuberay-rayjob.yaml")
)
LOCAL = AWS[: AWS.index("provider:")] + "provider: {type: local, head_ip: 10.0.0.1, worker_ips: [10.0.0.2]}\n"
LOCAL += "auth: {ssh_user: ray, ssh_private_key: ~/.ssh/retable-cluster}\n" + AWS[AWS.index("# The code that runs") :]
PARSED = {"aws": parse(AWS), "gcp": parse(GCP), "local": parse(LOCAL), "kuberay": parse(KUBERAY)}
PINS = clusters.pins()

# name: (file, what stands there, what stands there instead, what is said, words of the line where it is said)
BAD = {
    "typo at the top": (AWS, "idle_timeout_minutes: 10", "idle_timeout: 10", "unknown name 'idle_timeout'", "idle"),
    "typo in provider": (AWS, "use_internal_ips:", "use_internal_ip:", "unknown name 'use_internal_ip'", "internal"),
    "typo in auth": (AWS, "ssh_user:", "ssh_usr:", "unknown name 'ssh_usr'", "ssh_usr"),
    "typo in a node type": (AWS, "min_workers: 0", "min_worker: 0", "unknown name 'min_worker'", "min_worker"),
    "typo in node_config": (AWS, "InstanceType: m6i", "InstanceTyp: m6i", "unknown name 'InstanceTyp'", "Typ:"),
    "typo in a disk": (AWS, "VolumeSize: 100", "VolumSize: 100", "unknown name 'VolumSize'", "VolumSize"),
    "no region": (AWS, "  region: eu-central-1 ", "  # ", "region is missing", "provider:"),
    "other zone": (AWS, "zone: eu-central-1a", "zone: us-east-1a", "not in region eu-central-1", "us-east-1a"),
    "nodes kept": (AWS, "cache_stopped_nodes: false", "cache_stopped_nodes: true", "disks cost", "cache_stopped"),
    "open port": (
        AWS, "  cache_stopped_nodes: false",
        "  cache_stopped_nodes: false\n  security_group: {IpPermissions: [{FromPort: 22, ToPort: 22, IpProtocol: tcp,\n"
        "    IpRanges: [{CidrIp: 0.0.0.0/0}]}]}", "0.0.0.0/0 is the whole world", "CidrIp",
    ),
    "no own group": (AWS, "SecurityGroupIds: [sg-CHANGE-ME]  #", "#", "port 22 to the world", "node_config:"),
    "plain disk": (AWS, "VolumeType: gp3, Encrypted: true", "VolumeType: gp3", "not encrypted", "VolumeSize: 100"),
    "no disk": (
        AWS,
        "      BlockDeviceMappings:\n        - DeviceName: /dev/sda1\n          Ebs: {VolumeSize: 100, VolumeType: gp3,"
        " Encrypted: true, DeleteOnTermination: true}\n", "", "not encrypted by default", "node_config:",
    ),
    "default role": (AWS, "IamInstanceProfile: {Name: retable-head}", "", "gets all of EC2 and S3", "node_config:"),
    "Ray's role": (AWS, "{Name: retable-head}", "{Name: ray-autoscaler-v1}", "may do everything", "ray-autoscaler-v1"),
    "old metadata": (AWS, "HttpTokens: required", "HttpTokens: optional", "IMDSv1 is on", "HttpTokens: optional"),
    "public addresses": (AWS, "use_internal_ips: true", "use_internal_ips: false", "public addresses", "use_internal"),
    "no image": (AWS, "ImageId: ami-CHANGE-ME          #", "#", "ImageId is missing", "node_config:"),
    "head is a worker": (AWS, "max_workers: 0", "max_workers: 2", "is also a worker type", "max_workers: 2"),
    "spot head": (
        AWS, "      IamInstanceProfile: {Name: retable-head}",
        "      InstanceMarketOptions: {MarketType: spot}\n      IamInstanceProfile: {Name: retable-head}",
        "a spot head can be taken away", "MarketType",
    ),
    "other ray": (AWS, f"--ray {PINS.ray}", "--ray 2.9.0", f"ray 2.9.0 on the cluster, {PINS.ray} here", "--ray 2.9.0"),
    "other retable": (AWS, "--retable 0.1.0", "--retable 0.0.9", "retable 0.0.9 on the cluster", "--retable 0.0.9"),
    "old python": (AWS, "--python 3.11", "--python 3.9", "Python 3.9 is too old", "--python 3.9"),
    "no versions": (AWS, "bash ~/retable/clusters/setup.sh", "pip install ray #", "which ", "setup_commands"),
    "no token": (AWS, "~/.ray/auth_token:", "~/.ray/token:", "no token reaches the nodes", "file_mounts:"),
    "token is off": (AWS, "export RAY_AUTH_MODE=token;", "", "without token authentication", ">-"),
    "open dashboard": (AWS, "--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0", "every address", ">-"),
    "personal key": (AWS, "~/.ssh/retable-cluster\n  # Th", "~/.ssh/id_rsa\n  # Th", "a personal key", "id_rsa"),
    "no key": (AWS, "  ssh_private_key: ~/.ssh/retable-cluster", "", "one key for all clusters", "auth:"),
    "unknown head type": (AWS, "head_node_type: head", "head_node_type: heads", "head_node_type", ""),
    "wrong kind": (AWS, "max_workers: 4  ", "max_workers: four", "'four' is not of type 'integer'", "max_workers"),
    "no resources": (AWS, "    resources: {CPU: 0}", "    labels: {}", "'resources' is a required property", "head:"),
    "unknown provider": (AWS, "type: aws", "type: asw", "provider 'asw'", "type: asw"),
    "key twice": (AWS, "max_workers: 4 ", "max_workers: 3\nmax_workers: 4 ", "and again on line", "max_workers: 3"),
    "no project": (GCP, "project_id: CHANGE-ME", "project_id: null", "project_id is missing", "project_id"),
    "public on gcp": (
        GCP, "subnetworks/CHANGE-ME\n", "subnetworks/CHANGE-ME\n          accessConfigs: [{type: ONE_TO_ONE_NAT}]\n",
        "accessConfigs give the node a public address", "accessConfigs",
    ),
    "default account": (GCP, "retable-head@CHANGE-ME", "123-compute@developer", "default account", "email"),
    "typo on gcp": (GCP, "machineType: n2", "machinetype: n2", "unknown name 'machinetype'", "machinetype"),
    "head among workers": (LOCAL, "[10.0.0.2]", "[10.0.0.2, 10.0.0.1]", "is the head and also a worker", "10.0.0.1]"),
    "no workers": (LOCAL, ", worker_ips: [10.0.0.2]", "", "Ray: ", "provider"),
    "typo in RayJob": (KUBERAY, "entrypoint:", "entryPoint:", "unknown name 'entryPoint'", "entryPoint"),
    "no token on kubernetes": (KUBERAY, "    authOptions: {mode: token}", "    #", "'authOptions' is missing", "Spec:"),
    "root container": (KUBERAY, "allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true", "False", "true"),
    "other ray on kubernetes": (KUBERAY, f'"{PINS.ray}"', '"2.9.0"', "ray 2.9.0 on the cluster", "rayVersion"),
}  # fmt: skip


def checked(text: str, path: Path) -> list[Any]:
    path.write_text(text)
    try:
        return list(clusters.check(path).problems)
    except ClusterFileError as error:
        return list(error.problems)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.name)
def test_shipped_files_have_no_fault_and_say_what_to_fill_in(path: Path) -> None:
    found = clusters.check(path)
    assert [str(problem) for problem in found.problems] == []
    lines = path.read_text().splitlines()
    assert all("CHANGE-ME" in "\n".join(lines[p.line - 1 : p.line + 2]) for p in found.to_fill_in)


@pytest.mark.parametrize("text", [LOCAL, AWS.replace("CHANGE-ME", "1")], ids=["local", "filled in"])
def test_a_good_file_is_clean(text: str, tmp_path: Path) -> None:
    assert checked(text, tmp_path / "cluster.yaml") == []


@pytest.mark.parametrize("name", BAD)
def test_one_fault_is_found_where_it_stands(name: str, tmp_path: Path) -> None:
    text, old, new, said, words = BAD[name]
    assert old in text
    faulty = text.replace(old, new, 1)
    found = checked(faulty, tmp_path / "cluster.yaml")
    match = [p for p in found if said in p.message]
    assert match, [str(p) for p in found]
    assert words in faulty.splitlines()[match[0].line - 1]
    assert match[0].hint or match[0].message.startswith("'")


def test_a_fault_behind_an_anchor_is_said_once_where_the_anchor_stands(tmp_path: Path) -> None:
    faulty = AWS.replace("IamInstanceProfile: {Name: retable-worker}", "IamInstanceProfile: {Name: ray-autoscaler-v1}")
    (problem,) = checked(faulty, tmp_path / "cluster.yaml")
    assert "ray-autoscaler-v1" in faulty.splitlines()[problem.line - 1]


def test_what_is_no_cluster_file_is_said(tmp_path: Path) -> None:
    for text, said in (("- 1\n", "a mapping"), ("a: [\n", "not YAML"), ("study: x\n", "provider is missing")):
        assert said in str(checked(text, tmp_path / "cluster.yaml")[0])
    with pytest.raises(ClusterFileError, match="No such file"):
        load(tmp_path / "absent.yaml")


@settings(max_examples=60)
@given(data=st.data(), name=st.sampled_from(list(PARSED)))
def test_whatever_is_missing_or_of_another_kind_is_a_problem_not_a_crash(data: st.DataObject, name: str) -> None:
    file = PARSED[name]
    path = data.draw(st.sampled_from([path for path in file.source.marks if path]))
    others: tuple[Any, ...] = (None, 7, "x", [], {}, [{}], {"x": 1})
    for other in others:
        examine(ClusterFile(swapped(file.tree, path, other), file.source), PINS)


def swapped(node: Any, path: tuple[Any, ...], other: Any) -> Any:
    """The tree with another value at ``path`` (where the path leads through an anchor, the tree as it is)."""
    if not path:
        return other
    if isinstance(node, dict) and path[0] in node:
        return {**node, path[0]: swapped(node[path[0]], path[1:], other)}
    if isinstance(node, list) and isinstance(path[0], int):
        return [swapped(item, path[1:], other) if i == path[0] else item for i, item in enumerate(node)]
    return node


def test_json_is_one_document_with_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.yaml").write_text(AWS.replace("--ray 2.60.0", "--ray 2.9.0"))
    monkeypatch.setattr(sys, "argv", ["retable", "cluster", "check", str(tmp_path / "bad.yaml"), "--json"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = json.loads(capsys.readouterr().out)
    assert ended.value.code == 2
    (error,) = said["errors"]
    assert set(error) == {"file", "line", "column", "path", "value", "message", "hint"}
    assert error["path"] == "setup_commands[0]"
    assert all("CHANGE-ME" in item["value"] for item in said["to_fill_in"])


def test_versions_in_shipped_files_and_images_are_those_of_this_checkout() -> None:
    image = (ROOT / "clusters" / "Dockerfile").read_text()
    assert f"rayproject/ray:{PINS.ray}-py311-gpu" in image
    assert all(f"retable:{PINS.retable}" in text for text in (KUBERAY, image))
    assert kubernetes.is_manifest(parse(KUBERAY))
