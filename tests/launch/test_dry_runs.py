"""A dry run calls nothing and prints what would be called, word for word; errors are one line."""

import pytest

RUN = ("--config=configs/llava15_7b_lpoi.py", "--workdir=/mnt/shared/it's mine", "--config.seed=1")
TRAINING = ["-m", "vla_jax.train", *RUN]
TPU = ("--name=pod", "--zone=us-west4-a")
REQUEST = ("--type=v5litepod-16", "--runtime=v2-alpha-tpuv5-lite", "--shared=10.0.0.2:/vol")
GKE = ("--name=run", "--image=registry/vla_jax", "--claim=shared")

LAUNCHES = [
    ("tpu_vm.sh", "create", *TPU, *REQUEST),
    ("tpu_vm.sh", "create", *TPU, *REQUEST, "--on-demand", "--project=p"),
    ("tpu_vm.sh", "setup", *TPU, *REQUEST),
    ("tpu_vm.sh", "train", *TPU, *RUN),
    ("tpu_vm.sh", "stop", *TPU),
    ("tpu_vm.sh", "delete", *TPU),
    ("slurm.sh", *RUN),
    ("slurm.sh", *RUN, "--container=vla_jax", "--mounts=/nfs:/nfs"),
    ("gke.sh", *GKE, *RUN),
    ("skypilot.sh", "--name=run", "--bucket=bucket", "--gpus=H100:8", *RUN),
    ("skypilot.sh", "--name=run", "--bucket=bucket", *RUN[:2]),
    ("docker.sh", "build", "--jax=tpu"),
    ("docker.sh", "train", "--shared=/data", *RUN),
]


def dry_run(tools, *launch):
    """What a dry run prints; it calls nothing."""
    done = tools.launch(*launch, "--dry-run")
    assert (done.returncode, done.stderr, tools.calls()) == (0, "", [])
    return done.stdout


@pytest.mark.parametrize("launch", LAUNCHES, ids=" ".join)
def test_a_dry_run_prints_what_would_be_called(launch, tools):
    tools.run("bash", "-c", dry_run(tools, *launch), SLURM_JOB_ID="7")
    printed = tools.calls()
    assert tools.launch(*launch, SLURM_JOB_ID="7").returncode == 0
    assert printed == tools.calls() != []


def test_a_tpu_is_asked_for_on_the_spot_market(tools):
    words = dry_run(tools, "tpu_vm.sh", "create", *TPU, *REQUEST).split()
    assert words[:6] == "gcloud compute tpus queued-resources create pod".split()
    assert {"--accelerator-type=v5litepod-16", "--node-id=pod", "--spot", "--zone=us-west4-a"} <= {*words}
    assert "--spot" not in dry_run(tools, "tpu_vm.sh", "create", *TPU, *REQUEST, "--on-demand")


def test_all_hosts_of_a_tpu_train(tools):
    assert tools.launch("tpu_vm.sh", "train", *TPU, *RUN).returncode == 0
    ((*ssh, command, quiet),) = tools.calls()
    assert ssh == ["gcloud", *"compute tpus tpu-vm ssh pod --zone=us-west4-a --worker=all".split()]
    # As the host's shell reads it: the service is stopped and started anew.
    tools.write("sudo", "exit 0")
    tools.run("bash", "-c", command.removeprefix("--command="), USER="me")
    stop, start = tools.calls()
    assert stop == ["sudo", "systemctl", "stop", "vla_jax"]
    assert start[:2] == ["sudo", "systemd-run"] and "--wait" in start and "--uid=me" in start
    assert start[-6:] == [f"{tools.folder}/vla_jax/.venv/bin/python", *TRAINING]


def test_a_run_is_stopped_before_its_files_are_replaced(tools):
    assert tools.launch("tpu_vm.sh", "setup", *TPU, *REQUEST).returncode == 0
    command = next(word for word in tools.calls()[-1] if word.startswith("--command="))
    assert 0 < command.index("systemctl stop") < command.index("rm -rf vla_jax\n") < command.index("tar -x")


def test_every_gpu_of_slurm_gets_a_task_that_sees_all_of_its_node(tools):
    assert tools.launch("slurm.sh", *RUN, SLURM_JOB_ID="7").returncode == 0
    srun = tools.calls()[0]
    assert srun == ["srun", "--gpu-bind=none", "--kill-on-bad-exit=1", ".venv/bin/python", *TRAINING]


def test_a_container_trains_as_its_caller(tools):
    words = dry_run(tools, "docker.sh", "train", "--shared=/data", *RUN).split()
    assert words[:2] == ["docker", "run"]
    assert "--volume=/data:/mnt/shared" in words and any(word.startswith("--user=") for word in words)


def test_the_whole_way_to_a_trained_run_on_a_tpu(tools):
    lines = dry_run(tools, "tpu_vm.sh", "keep", *TPU, *REQUEST, *RUN).splitlines()
    steps = [line.split()[3:5] for line in lines if line.startswith("gcloud")]
    assert [" ".join(step) for step in steps] == [
        "queued-resources describe",
        "queued-resources create",
        "queued-resources describe",
        "tpu-vm scp",
        "tpu-vm ssh",
        "tpu-vm ssh",
        "tpu-vm ssh",
    ]


@pytest.mark.parametrize(
    ("launch", "what"),
    [
        (("tpu_vm.sh", "rest", *TPU), "unknown action 'rest'"),
        (("tpu_vm.sh", "create", "--name=pod"), "--zone is missing"),
        (("tpu_vm.sh", "create", *TPU), "--type is missing"),
        (("tpu_vm.sh", "setup", *TPU), "--shared is missing"),
        (("tpu_vm.sh", "keep", *TPU, *REQUEST), "--config is missing"),
        (("tpu_vm.sh", "stop", *TPU, "--force"), "unknown argument '--force'"),
        (("slurm.sh", RUN[0]), "--workdir is missing"),
        (("slurm.sh", *RUN), "this is a batch script"),
        (("slurm.sh", *RUN, "--mounts=/a:/a"), "--mounts is for a container"),
        (("gke.sh", *GKE[:2], *RUN), "--claim is missing"),
        (("gke.sh", *GKE, *RUN, "--topology=16"), "give it as 4x4 or 2x2x2"),
        (("gke.sh", *GKE, *RUN, "--topology=2x3"), "no whole number of hosts"),
        (("gke.sh", *GKE, *RUN, "--chips=0"), "no number of chips"),
        (("skypilot.sh", "--name=run", *RUN), "--bucket is missing"),
        (("docker.sh", "build", "--jax=rocm"), "choose cuda12, cuda13 or tpu"),
        (("docker.sh", "train", *RUN), "--shared is missing"),
        (("docker.sh", "train", "--shared=/data", "--config=no.py", RUN[1]), "there is no such file"),
        (("slurm.sh", RUN[0], "--workdir=gs://bucket/run"), "is an object store"),
        (("slurm.sh", RUN[0], "--workdir=runs/x"), "give an absolute path"),
        (("until_finished.sh", "true"), "has no --workdir=DIR"),
    ],
)
def test_wrong_arguments_are_said_in_a_line(launch, what, tools):
    done = tools.launch(*launch)
    assert done.returncode == 2 and done.stdout == "" and tools.calls() == []
    assert done.stderr.startswith("error: ") and what in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("script", ["tpu_vm.sh", "slurm.sh", "gke.sh", "skypilot.sh", "docker.sh"])
def test_every_launcher_has_a_manual(script, tools):
    done = tools.launch(script, "--help")
    assert done.returncode == 0 and done.stderr == "" and tools.calls() == []
    assert f"launch/{script}" in done.stdout and "--dry-run" in done.stdout and "set -eu" not in done.stdout
