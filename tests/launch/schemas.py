"""Schemas of the manifests: of the published ones, the fields that are used, and no others."""

from typing import Any


def only(required: str = "", **properties: Any) -> dict[str, Any]:
    """An object with these fields and no others, of which some are required."""
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


def many(items: Any) -> dict[str, Any]:
    """A list with something in it."""
    return {"type": "array", "items": items, "minItems": 1}


TEXT = {"type": "string", "minLength": 1}
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
COUNT = {"type": "integer", "minimum": 0}
# A label of DNS, as names of objects are.
NAME = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63}
CHIPS = {"type": "object", "properties": {"google.com/tpu": COUNT}, "additionalProperties": False}

CONTAINER = only(
    "name image",
    name=NAME,
    image=TEXT,
    command=many(TEXT),
    ports=many(only("containerPort", containerPort={"type": "integer", "minimum": 1, "maximum": 65535})),
    resources=only(requests=CHIPS, limits=CHIPS),
    volumeMounts=many(only("name mountPath", name=NAME, mountPath={"type": "string", "pattern": "^/"})),
)
POD = only(
    "containers",
    restartPolicy={"enum": ["Never", "OnFailure"]},  # those of a Job
    terminationGracePeriodSeconds=COUNT,
    nodeSelector=TEXTS,
    tolerations=many(
        only(
            "effect",
            key=TEXT,
            operator={"enum": ["Equal", "Exists"]},
            value={"type": "string"},
            effect={"enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"]},
        )
    ),
    securityContext=only(runAsNonRoot={"type": "boolean"}, runAsUser=COUNT, fsGroup=COUNT),
    containers=many(CONTAINER),
    volumes=many(
        only(
            "name",
            name=NAME,
            persistentVolumeClaim=only("claimName", claimName=NAME),
            emptyDir=only(medium={"enum": ["", "Memory"]}),
        )
    ),
)
JOB = only(
    "template",
    completionMode={"enum": ["Indexed", "NonIndexed"]},
    completions=COUNT,
    parallelism=COUNT,
    backoffLimit=COUNT,
    template=only("spec", spec=POD),
)
# jobset.x-k8s.io_jobsets.yaml of kubernetes-sigs/jobset, and the Job and Pod of Kubernetes in it.
JOBSET = only(
    "apiVersion kind metadata spec",
    apiVersion={"const": "jobset.x-k8s.io/v1alpha2"},
    kind={"const": "JobSet"},
    metadata=only("name", name=NAME, namespace=NAME, annotations=TEXTS),
    spec=only(
        "replicatedJobs",
        failurePolicy=only(maxRestarts=COUNT),
        replicatedJobs=many(
            only("name template", name=NAME, replicas=COUNT, template=only("spec", spec=JOB))
        ),
    ),
)

# sky/utils/schemas.py of SkyPilot 0.14.
SKYPILOT = only(
    name=TEXT,
    resources=only(
        accelerators={"type": "string", "pattern": "^[A-Za-z0-9-]+:[0-9]+$"},
        use_spot={"type": "boolean"},
        disk_size=COUNT,
    ),
    envs={
        "type": "object",
        "patternProperties": {"^[a-zA-Z_][a-zA-Z0-9_]*$": {"type": ["string", "null"]}},
        "additionalProperties": False,
    },
    workdir=TEXT,
    file_mounts={
        "type": "object",
        "additionalProperties": only(name=TEXT, mode={"enum": ["MOUNT", "COPY", "MOUNT_CACHED"]}),
    },
    setup=TEXT,
    run=TEXT,
)
