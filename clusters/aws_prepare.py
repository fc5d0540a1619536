"""Make what cluster.yaml leans on in an AWS account: a closed security group, two roles and their profiles, a key pair.

Run once, by someone who may write IAM. Repeating it makes nothing twice. Prints what to write into cluster.yaml.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import ClientError

POLICIES = Path(__file__).parent / "policies"
NAME = "retable-cluster"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--region", required=True)
    parser.add_argument("--subnet", required=True, help="private subnet with a NAT gateway")
    parser.add_argument("--bucket", required=True, help="bucket of the runs and of MLflow's artifacts")
    parser.add_argument("--cluster", default="retable", help="cluster_name of the cluster file")
    parser.add_argument("--public-key", type=Path, default=Path("~/.ssh/retable-cluster.pub"))
    asked = parser.parse_args(arguments)
    ec2, iam = (boto3.client(service, region_name=asked.region) for service in ("ec2", "iam"))
    account = boto3.client("sts", region_name=asked.region).get_caller_identity()["Account"]

    (subnet,) = ec2.describe_subnets(SubnetIds=[asked.subnet])["Subnets"]
    if subnet["MapPublicIpOnLaunch"]:
        parser.error(f"{asked.subnet} gives every instance a public address: choose a private subnet")
    key = asked.public_key.expanduser()
    if not key.is_file():
        parser.error(f"there is no {key}: ssh-keygen -t ed25519 -N '' -f {key.with_suffix('')}")
    with unless("InvalidKeyPair.Duplicate"):
        ec2.import_key_pair(KeyName=NAME, PublicKeyMaterial=key.read_bytes())
    group = closed_group(ec2, subnet["VpcId"])
    names = {
        "REGION": asked.region, "ACCOUNT": account, "CLUSTER": asked.cluster, "KEY": NAME, "GROUP": group,
        "SUBNET": asked.subnet, "BUCKET": asked.bucket,
    }  # fmt: skip
    for kind in ("head", "worker"):
        role(iam, kind, names)
    print(f"SubnetIds: [{asked.subnet}]\nSecurityGroupIds: [{group}]\navailability_zone: {subnet['AvailabilityZone']}")


def closed_group(ec2: Any, vpc: str) -> str:
    """The security group that lets in its own members and nobody else."""
    known = ec2.describe_security_groups(
        Filters=[{"Name": "group-name", "Values": [NAME]}, {"Name": "vpc-id", "Values": [vpc]}]
    )["SecurityGroups"]
    if known:
        return str(known[0]["GroupId"])
    group = ec2.create_security_group(GroupName=NAME, VpcId=vpc, Description="Nodes of a retable cluster")["GroupId"]
    members = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[members])
    return str(group)


def role(iam: Any, kind: str, names: Mapping[str, str]) -> None:
    """The role and instance profile ``retable-KIND``, with its policy as it stands in policies/."""
    name = f"retable-{kind}"
    with unless("EntityAlreadyExists"):
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=(POLICIES / "trust.json").read_text())
    policy = filled(json.loads((POLICIES / f"{kind}.json").read_text()), names)
    iam.put_role_policy(RoleName=name, PolicyName=name, PolicyDocument=json.dumps(policy))
    with unless("EntityAlreadyExists"):
        iam.create_instance_profile(InstanceProfileName=name)
        iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)


def filled(part: Any, names: Mapping[str, str]) -> Any:
    """A policy with its capitals (REGION, BUCKET, ...) replaced in every text but the statements' names."""
    if isinstance(part, dict):
        return {key: value if key == "Sid" else filled(value, names) for key, value in part.items()}
    if isinstance(part, list):
        return [filled(item, names) for item in part]
    for word, value in names.items():
        part = part.replace(word, value)
    return part


@contextmanager
def unless(code: str) -> Iterator[None]:
    """Pass over one error of AWS: what was asked for is there already."""
    try:
        yield
    except ClientError as error:
        if error.response["Error"]["Code"] != code:
            raise


if __name__ == "__main__":
    main()
