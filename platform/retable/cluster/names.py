"""Names that Ray's schema lets through: below ``provider`` and ``node_config`` it takes any, and Ray ignores them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from retable.cluster.document import ClusterFile
from retable.study.problems import Problem, YamlPath, nearest


def _names(*lines: str) -> frozenset[str]:
    return frozenset(" ".join(lines).split())


TOP = _names(
    "cluster_name max_workers upscaling_speed idle_timeout_minutes provider auth docker head_node_type file_mounts",
    "available_node_types cluster_synced_files file_mounts_sync_continuously rsync_exclude rsync_filter metadata",
    "initialization_commands setup_commands head_setup_commands worker_setup_commands head_start_ray_commands",
    "worker_start_ray_commands",
)
AUTH = _names("ssh_user ssh_public_key ssh_private_key ssh_proxy_command ssh_proxy_use_node_id")
NODE_TYPE = _names(
    "node_config resources min_workers max_workers idle_timeout_s priority labels docker initialization_commands",
    "worker_setup_commands",
)

_ANY = "type module use_internal_ips disable_node_updaters disable_launch_config_check foreground_node_launch"
PROVIDER = {
    "aws": _names(
        _ANY, "region availability_zone cache_stopped_nodes security_group key_pair aws_credentials cloudwatch"
    ),
    "gcp": _names(_ANY, "region availability_zone project_id gcp_credentials"),
    "local": _names(_ANY, "head_ip worker_ips external_head_ip external_ips coordinator_address"),
}

# Members of EC2's RunInstances request (API version 2016-11-15) and SubnetIds, which is Ray's own, without what Ray
# sets itself: counts, SubnetId, tokens.
_EC2 = _names(
    "AdditionalInfo BlockDeviceMappings CapacityReservationSpecification CpuOptions CreditSpecification DisableApiStop",
    "DisableApiTermination EbsOptimized EnclaveOptions HibernationOptions IamInstanceProfile ImageId",
    "InstanceInitiatedShutdownBehavior InstanceMarketOptions InstanceType KeyName LaunchTemplate LicenseSpecifications",
    "MaintenanceOptions MetadataOptions Monitoring NetworkInterfaces NetworkPerformanceOptions Placement",
    "PrivateDnsNameOptions RamdiskId KernelId SecurityGroupIds SecurityGroups SubnetIds TagSpecifications UserData",
)
_EBS = _names(
    "DeleteOnTermination Encrypted Iops KmsKeyId OutpostArn SnapshotId Throughput VolumeInitializationRate VolumeSize",
    "VolumeType",
)
_METADATA = _names("HttpTokens HttpEndpoint HttpPutResponseHopLimit HttpProtocolIpv6 InstanceMetadataTags")
# Fields of Compute Engine's instances.insert request (v1) that a node can be asked for with.
_GCE = _names(
    "advancedMachineFeatures canIpForward confidentialInstanceConfig deletionProtection description disks",
    "displayDevice guestAccelerators keyRevocationActionType labels machineType metadata minCpuPlatform",
    "networkInterfaces networkPerformanceConfig params privateIpv6GoogleAccess reservationAffinity",
    "resourcePolicies scheduling serviceAccounts shieldedInstanceConfig sourceMachineImage tags",
)
_GCE_DISK = _names(
    "architecture autoDelete boot deviceName diskEncryptionKey diskSizeGb guestOsFeatures index initializeParams",
    "interface mode source type",
)
_GCE_NETWORK = _names(
    "accessConfigs aliasIpRanges internalIpv6PrefixLength ipv6AccessConfigs kind network networkAttachment networkIP",
    "nicType queueCount stackType subnetwork",
)

# Per provider: the path below node_config (* is any item of a list) -> the names that may stand there.
NODE_CONFIG: dict[str, dict[tuple[str, ...], frozenset[str]]] = {
    "aws": {
        (): _EC2,
        ("MetadataOptions",): _METADATA,
        ("IamInstanceProfile",): _names("Arn Name"),
        ("InstanceMarketOptions",): _names("MarketType SpotOptions"),
        ("BlockDeviceMappings", "*"): _names("DeviceName Ebs NoDevice VirtualName"),
        ("BlockDeviceMappings", "*", "Ebs"): _EBS,
        ("TagSpecifications", "*"): _names("ResourceType Tags"),
    },
    "gcp": {
        (): _GCE,
        ("disks", "*"): _GCE_DISK,
        ("networkInterfaces", "*"): _GCE_NETWORK,
        ("serviceAccounts", "*"): _names("email scopes"),
    },
}


def problems(file: ClusterFile) -> Iterator[Problem]:
    """Unknown names, each with the nearest known one. A provider that is not ours to know is left to Ray."""
    yield from _unknown(file, (), file.tree, TOP)
    yield from _unknown(file, ("auth",), file.section("auth"), AUTH)
    if file.provider in PROVIDER:
        yield from _unknown(file, ("provider",), file.section("provider"), PROVIDER[file.provider])
    for name in file.section("available_node_types"):
        place = ("available_node_types", name)
        yield from _unknown(file, place, file.section(*place), NODE_TYPE)
        for inner, known in NODE_CONFIG.get(file.provider, {}).items():
            for path, mapping in _at(file.node_configs[name], inner, (*place, "node_config")):
                yield from _unknown(file, path, mapping, known)


def _at(node: Any, pattern: tuple[str, ...], path: YamlPath) -> Iterator[tuple[YamlPath, Mapping[str, Any]]]:
    if not pattern:
        if isinstance(node, Mapping):
            yield path, node
    elif pattern[0] == "*":
        for i, item in enumerate(node if isinstance(node, list) else ()):
            yield from _at(item, pattern[1:], (*path, i))
    elif isinstance(node, Mapping) and pattern[0] in node:
        yield from _at(node[pattern[0]], pattern[1:], (*path, pattern[0]))


def _unknown(file: ClusterFile, path: YamlPath, mapping: Mapping[str, Any], known: frozenset[str]) -> Iterator[Problem]:
    for name in mapping:
        if name not in known:
            yield file.problem((*path, name), f"unknown name {name!r}", nearest(name, known))
