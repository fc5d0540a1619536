"""The part of KubeRay's RayJob (ray.io/v1, KubeRay 1.5 or later) that our manifest uses, and what it must not do.

There is no package with KubeRay's schema; this one is stricter: a field that is not used here is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from retable.cluster.document import ClusterFile
from retable.cluster.form import Pins
from retable.study.problems import Problem, YamlPath, nearest

Quantity = Annotated[str | int, Field(union_mode="left_to_right")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class EnvVar(_Part):
    """One environment variable: a value, or where it comes from."""

    name: str
    value: str | None = None
    valueFrom: dict[str, Any] | None = None  # noqa: N815 - Kubernetes' own names, here and below


class Resources(_Part):
    """Requests and limits, in Kubernetes' quantities."""

    requests: dict[str, Quantity] = {}
    limits: dict[str, Quantity]


class SecurityContext(_Part):
    """What a container may do."""

    allowPrivilegeEscalation: Literal[False]  # noqa: N815
    capabilities: dict[Literal["drop"], list[Literal["ALL"]]]


class Container(_Part):
    """One container of a pod."""

    name: str
    image: str
    imagePullPolicy: Literal["Always", "IfNotPresent", "Never"] | None = None  # noqa: N815
    env: list[EnvVar] = []
    resources: Resources
    securityContext: SecurityContext  # noqa: N815
    volumeMounts: list[dict[Literal["name", "mountPath", "readOnly"], str | bool]] = []  # noqa: N815


class PodSpec(_Part):
    """A pod."""

    containers: Annotated[list[Container], Field(min_length=1)]
    serviceAccountName: str | None = None  # noqa: N815
    automountServiceAccountToken: bool | None = None  # noqa: N815
    securityContext: dict[str, Any]  # noqa: N815
    nodeSelector: dict[str, str] = {}  # noqa: N815
    tolerations: list[dict[Literal["key", "operator", "value", "effect"], str]] = []
    volumes: list[dict[str, Any]] = []


class Template(_Part):
    """A pod's template."""

    metadata: dict[str, Any] = {}
    spec: PodSpec


class Head(_Part):
    """The head's group."""

    rayStartParams: dict[str, str]  # noqa: N815
    serviceType: Literal["ClusterIP"] = "ClusterIP"  # noqa: N815
    template: Template


class Workers(_Part):
    """A group of workers."""

    groupName: str  # noqa: N815
    replicas: Annotated[int, Field(ge=0)] = 0
    minReplicas: Annotated[int, Field(ge=0)]  # noqa: N815
    maxReplicas: Annotated[int, Field(ge=0)]  # noqa: N815
    rayStartParams: dict[str, str]  # noqa: N815
    template: Template


class Auth(_Part):
    """How Ray authenticates."""

    mode: Literal["token"]


class Autoscaler(_Part):
    """Ray's autoscaler, beside the head."""

    version: Literal["v1", "v2"]
    idleTimeoutSeconds: Annotated[int, Field(gt=0)]  # noqa: N815


class ClusterSpec(_Part):
    """The cluster that the job runs on."""

    rayVersion: str  # noqa: N815
    authOptions: Auth  # noqa: N815
    enableInTreeAutoscaling: bool  # noqa: N815
    autoscalerOptions: Autoscaler  # noqa: N815
    headGroupSpec: Head  # noqa: N815
    workerGroupSpecs: Annotated[list[Workers], Field(min_length=1)]  # noqa: N815


class JobSpec(_Part):
    """The job."""

    entrypoint: str
    submissionMode: Literal["K8sJobMode", "HTTPMode", "SidecarMode"] = "K8sJobMode"  # noqa: N815
    backoffLimit: Annotated[int, Field(ge=0)] = 0  # noqa: N815
    shutdownAfterJobFinishes: bool  # noqa: N815
    ttlSecondsAfterFinished: Annotated[int, Field(ge=0)] = 0  # noqa: N815
    activeDeadlineSeconds: Annotated[int, Field(gt=0)] | None = None  # noqa: N815
    rayClusterSpec: ClusterSpec  # noqa: N815


class RayJob(_Part):
    """The manifest."""

    apiVersion: Literal["ray.io/v1"]  # noqa: N815
    kind: Literal["RayJob"]
    metadata: dict[Literal["name", "namespace", "labels", "annotations"], Any]
    spec: JobSpec


def is_manifest(file: ClusterFile) -> bool:
    """Whether the file is for ``kubectl``, not for ``ray up``."""
    return "apiVersion" in file.tree or "kind" in file.tree


def problems(file: ClusterFile, pins: Pins) -> Iterator[Problem]:
    """Unknown, missing and impossible fields; a Ray that differs from ours."""
    try:
        RayJob.model_validate(dict(file.tree))
    except ValidationError as error:
        yield from (
            _problem(file, item["loc"], item["type"], item["msg"], item.get("input")) for item in error.errors()
        )
    place: YamlPath = ("spec", "rayClusterSpec", "rayVersion")
    version = file.section("spec", "rayClusterSpec").get("rayVersion")
    if isinstance(version, str) and version != pins.ray:
        yield file.problem(
            place, f"ray {version} on the cluster, {pins.ray} here", f'rayVersion: "{pins.ray}"', version
        )


def _problem(file: ClusterFile, loc: YamlPath, kind: str, message: str, value: Any) -> Problem:
    path = tuple(part for part in loc if part != "[key]")
    last = str(path[-1])
    if kind == "extra_forbidden":
        return file.problem(path, f"unknown name {last!r}", nearest(last, _known(path[:-1])))
    if kind == "missing":
        return file.problem(path, f"{last!r} is missing", "clusters/kuberay-rayjob.yaml shows where it stands")
    message = re.sub(r"^Input should", "this should", message)
    return file.problem(path, message, "clusters/kuberay-rayjob.yaml shows how", value)


def _known(path: YamlPath) -> list[str]:
    here: type[BaseModel] = RayJob
    for part in path:
        if isinstance(part, int):
            continue
        field = here.model_fields.get(str(part))
        annotation = field.annotation if field else None
        models = [m for m in _Part.__subclasses__() if m.__name__ in str(annotation)]
        here = max(models, key=lambda m: len(m.__name__), default=RayJob)
    return list(here.model_fields)
