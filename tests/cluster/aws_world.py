"""Run on a host of the test: what an AWS account holds before anyone prepares it, and what it holds now (as JSON)."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import boto3

REGION = "eu-central-1"
NETWORK = "10.77.0.0/24"


def begin() -> dict[str, str]:
    """A private network and an image to start from, as a user has them."""
    ec2 = boto3.client("ec2", region_name=REGION)
    vpc = ec2.create_vpc(CidrBlock=NETWORK)["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock=NETWORK, AvailabilityZone=f"{REGION}a")["Subnet"]["SubnetId"]
    image = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    return {"vpc": vpc, "subnet": subnet, "image": image}


def seen(vpc: str) -> dict[str, Any]:
    """Every instance ever started, the groups of the network, roles with their policies, keys."""
    ec2, iam = boto3.client("ec2", region_name=REGION), boto3.client("iam", region_name=REGION)
    instances = [i for r in ec2.describe_instances()["Reservations"] for i in r["Instances"]]
    volumes = {v["VolumeId"]: v["Encrypted"] for v in ec2.describe_volumes()["Volumes"]}
    groups = ec2.describe_security_groups(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["SecurityGroups"]
    roles = {}
    for role in iam.list_roles()["Roles"]:
        name = role["RoleName"]
        inline = [
            iam.get_role_policy(RoleName=name, PolicyName=p)["PolicyDocument"]
            for p in iam.list_role_policies(RoleName=name)["PolicyNames"]
        ]
        attached = [p["PolicyArn"] for p in iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]]
        roles[name] = {"inline": inline, "attached": attached}
    keys = [k["KeyName"] for k in ec2.describe_key_pairs()["KeyPairs"]]
    return {"instances": instances, "volumes": volumes, "groups": groups, "roles": roles, "keys": keys}


def address(instance: str) -> str:
    """The private address of an instance."""
    ec2 = boto3.client("ec2", region_name=REGION)
    found = ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
    return str(found["PrivateIpAddress"])


if __name__ == "__main__":
    calls: dict[str, Callable[..., Any]] = {"begin": begin, "seen": seen, "address": address}
    print(json.dumps(calls[sys.argv[1]](*sys.argv[2:]), default=str))
