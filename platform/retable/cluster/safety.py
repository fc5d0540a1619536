"""What a cluster file opens to others, or leaves to a cloud's or Ray's unsafe defaults."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from retable.cluster.document import ClusterFile, leaves
from retable.study.problems import Problem, YamlPath

TOKEN = "~/.ray/auth_token"
EVERYONE = ("0.0.0.0/0", "::/0")
START = ("head_start_ray_commands", "worker_start_ray_commands")
COMMANDS = ("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands", *START)
_LISTENS = re.compile(r"--(?:dashboard-)?host[= ](0\.0\.0\.0|::)(?=\s|;|$)")
_PERSONAL_KEY = re.compile(r"/id_(rsa|ed25519|ecdsa|dsa)$")
_DEFAULT_GCP_ACCOUNT = re.compile(r"^(ray-autoscaler-sa-v1@|default$|\d+-compute@developer\.)")


def problems(file: ClusterFile) -> Iterator[Problem]:
    """Every way in that is open, or open by default."""
    yield from _token(file)
    yield from _ssh_key(file)
    yield from _listening(file)
    yield from _everyone(file)
    for name, config in file.node_configs.items():
        place: YamlPath = ("available_node_types", name, "node_config")
        if file.provider == "aws":
            yield from _aws(file, place, config)
        elif file.provider == "gcp":
            yield from _gcp(file, place, config)
    if file.provider in ("aws", "gcp") and file.section("provider").get("use_internal_ips") is not True:
        yield file.problem(
            ("provider", "use_internal_ips"), "nodes are reached by public addresses", "use_internal_ips: true"
        )


def _token(file: ClusterFile) -> Iterator[Problem]:
    if TOKEN not in file.section("file_mounts"):
        yield file.problem(
            ("file_mounts",), "no token reaches the nodes, so whoever reaches Ray's ports runs code on them",
            f"file_mounts: {{{TOKEN}: ~/.ray/{file.name}.token}}",
        )  # fmt: skip
    for key in START:
        starts = [(path, c) for path, c in file.commands(key) if "ray start" in c]
        if not starts:
            yield file.problem(
                (key,), "nothing starts Ray with token authentication", "see cluster.yaml for the commands"
            )
        for path, command in starts:
            if "RAY_AUTH_MODE=token" not in command:
                yield file.problem(
                    path, "Ray starts without token authentication, its default", "export RAY_AUTH_MODE=token before it"
                )


def _ssh_key(file: ClusterFile) -> Iterator[Problem]:
    key = file.section("auth").get("ssh_private_key")
    if key is None:
        yield file.problem(
            ("auth",), "without ssh_private_key Ray makes one key for all clusters, or asks for a password",
            f'ssh-keygen -t ed25519 -N "" -f ~/.ssh/{file.name}-cluster, and name it here',
        )  # fmt: skip
    elif _PERSONAL_KEY.search(str(key)):
        yield file.problem(
            ("auth", "ssh_private_key"), "this looks like a personal key, and Ray copies it to the head",
            f'a key for this cluster only: ssh-keygen -t ed25519 -N "" -f ~/.ssh/{file.name}-cluster', key,
        )  # fmt: skip


def _listening(file: ClusterFile) -> Iterator[Problem]:
    for key in COMMANDS:
        for path, command in file.commands(key):
            for found in _LISTENS.finditer(command):
                yield file.problem(
                    path,
                    f"{found[0]} listens on every address",
                    "listen on 127.0.0.1: retable cluster tunnel reaches it",
                )


def _everyone(file: ClusterFile) -> Iterator[Problem]:
    for path, value in leaves(file.tree):
        if value in EVERYONE and "Commands" not in path:
            yield file.problem(path, f"{value} is the whole world", "name your own network, or use a tunnel", value)


def _aws(file: ClusterFile, place: YamlPath, config: Mapping[str, Any]) -> Iterator[Problem]:
    if not config.get("SecurityGroupIds"):
        yield file.problem(
            (*place, "SecurityGroupIds"), "without SecurityGroupIds Ray opens port 22 to the world",
            "name a group that lets in its own members only: clusters/aws_prepare.py makes one",
        )  # fmt: skip
    yield from _aws_role(file, (*place, "IamInstanceProfile"), config.get("IamInstanceProfile"))
    metadata = config.get("MetadataOptions")
    if not isinstance(metadata, Mapping) or metadata.get("HttpTokens") != "required":
        yield file.problem(
            (*place, "MetadataOptions"), "IMDSv1 is on: a single forged request reads the role's credentials",
            "MetadataOptions: {HttpTokens: required, HttpEndpoint: enabled}",
        )  # fmt: skip
    disks = config.get("BlockDeviceMappings")
    if not disks:
        yield file.problem(
            (*place, "BlockDeviceMappings"), "the root disk is small and not encrypted by default",
            "BlockDeviceMappings: [{DeviceName: /dev/sda1, Ebs: {VolumeSize: 100, Encrypted: true}}]",
        )  # fmt: skip
    for i, disk in enumerate(disks if isinstance(disks, list) else ()):
        ebs = disk.get("Ebs") if isinstance(disk, Mapping) else None
        if isinstance(ebs, Mapping) and ebs.get("Encrypted") is not True:
            at = (*place, "BlockDeviceMappings", i, "Ebs", "Encrypted")
            yield file.problem(at, "this disk is not encrypted", "Encrypted: true")
    networks = config.get("NetworkInterfaces")
    for i, network in enumerate(networks if isinstance(networks, list) else ()):
        if isinstance(network, Mapping) and network.get("AssociatePublicIpAddress"):
            at = (*place, "NetworkInterfaces", i, "AssociatePublicIpAddress")
            yield file.problem(at, "the node gets a public address", "AssociatePublicIpAddress: false")


def _aws_role(file: ClusterFile, place: YamlPath, profile: Any) -> Iterator[Problem]:
    hint = "IamInstanceProfile: {Name: retable-head}; clusters/aws_prepare.py makes it from clusters/policies"
    if not isinstance(profile, Mapping):
        yield file.problem(place, "without IamInstanceProfile a head gets all of EC2 and S3, by default", hint)
    elif "ray-autoscaler-v1" in str(profile.get("Name") or profile.get("Arn")):
        yield file.problem(place, "Ray's default role may do everything in EC2 and S3", hint)


def _gcp(file: ClusterFile, place: YamlPath, config: Mapping[str, Any]) -> Iterator[Problem]:
    networks = config.get("networkInterfaces")
    if not networks:
        yield file.problem(
            (*place, "networkInterfaces"), "by default the node gets a public address",
            "networkInterfaces: [{subnetwork: projects/P/regions/R/subnetworks/S}], without accessConfigs",
        )  # fmt: skip
    for i, network in enumerate(networks if isinstance(networks, list) else ()):
        if isinstance(network, Mapping) and network.get("accessConfigs"):
            at = (*place, "networkInterfaces", i, "accessConfigs")
            yield file.problem(at, "accessConfigs give the node a public address", "remove accessConfigs")
    accounts = config.get("serviceAccounts")
    if not accounts:
        hint = "serviceAccounts: [{email: retable-worker@PROJECT.iam.gserviceaccount.com, scopes: [...]}]"
        yield file.problem(
            (*place, "serviceAccounts"), "by default a head may do everything in Compute and Storage", hint
        )
    for i, account in enumerate(accounts if isinstance(accounts, list) else ()):
        email = account.get("email") if isinstance(account, Mapping) else None
        if _DEFAULT_GCP_ACCOUNT.search(str(email)):
            at = (*place, "serviceAccounts", i, "email")
            yield file.problem(
                at, "a default account may do nearly everything", "an account for this cluster only", email
            )
