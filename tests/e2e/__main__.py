"""The end-to-end test: `make e2e KUBECONFIG=file IMAGES=pattern`. k8s/README.md says what it
does and needs.

It reads from the environment: KUBECONFIG and IMAGES; HELM, a Helm program; KEEP=1, to leave
everything as it is in the end; UPDATE_CRD=1, to replace a definition of DatasetRuns that others
use; PATIENCE, a factor for all times that are waited.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from chart.helms import NoHelm, helms
from e2e import images, steps
from e2e.cluster import Cluster
from e2e.definition import InTheWay
from e2e.diagnosis import diagnose
from e2e.forward import forwarded
from e2e.steps import Story
from e2e.telling import NotSeen, Steps, complain
from e2e.values import SERVER_PORT
from fetch_slide import FetchError
from hdgan.core.errors import HdganError
from hdgan.core.redaction import guard_streams

WRONG = 64
FAILED = 1


@dataclass(frozen=True)
class Options:
    """What was asked for."""

    kubeconfig: str
    images: str
    keep: bool
    may_update: bool
    patience: float


class Misused(Exception):
    """A variable is missing, or has no sensible value."""


def read_options(environ: Mapping[str, str]) -> Options:
    """Misused, or NotUnderstood of `images`."""
    kubeconfig = environ.get("KUBECONFIG", "")
    if not Path(kubeconfig).is_file():
        raise Misused("KUBECONFIG names no file: make e2e KUBECONFIG=file IMAGES=pattern")
    try:
        patience = float(environ.get("PATIENCE") or 1)
    except ValueError:
        patience = 0.0
    if not 0.1 <= patience <= 100:
        raise Misused("PATIENCE is a factor from 0.1 to 100")
    return Options(
        kubeconfig,
        images.template(environ.get("IMAGES", "")),
        environ.get("KEEP", "") not in ("", "0"),
        environ.get("UPDATE_CRD", "") not in ("", "0"),
        patience,
    )


def take_all(story: Story) -> None:
    """The steps, one after the other."""
    step = story.steps.step
    with step("namespaces that enforce the Pod Security level restricted"):
        steps.make_namespaces(story)
    with step("an S3 server in the cluster"):
        steps.handle_definition(story)
        steps.start_object_server(story)
    cluster = story.cluster
    with forwarded(
        cluster.connect, story.namespace, lambda: steps.object_server_pod(story), SERVER_PORT
    ) as story.port:
        with step("the demo's slide and networks are put into the bucket"):
            steps.upload(story)
        with step("helm install"):
            steps.install(story)
        with step("helm test"):
            steps.helm_test(story)
        with step("the same run is submitted twice: one is disturbed, the other is left alone"):
            steps.submit(story)
        with step("the trainer's pod is deleted, once it has saved its state"):
            job = steps.delete_trainer_pod(story)
        with step("helm upgrade, meanwhile: two replicas, other settings"):
            steps.upgrade(story)
        with step("training goes on from its saved state"):
            steps.trained_again(story, job)
        with step("the stand-in labels the candidates of both runs"):
            steps.annotate(story)
        with step("the classifier's Job is deleted"):
            steps.delete_job(story, "classifier")
        with step("both runs are Released, and the dataset is whole"):
            steps.released(story)
        with step("every stage has the same digest in both"):
            steps.compare(story)
        with step("the schedule fires: a new dataset of the same generator"):
            steps.fire(story, 1, "Released")
        with step("the schedule fires again: nothing is new"):
            steps.fire(story, 2, "Unchanged")
            steps.generator_is_kept(story)
        with step("Pod Security has refused nothing"):
            steps.no_pod_was_refused(story)
        with step("helm uninstall leaves the runs, their definition and the bucket"):
            steps.uninstall(story)
        with step("the runs are cancelled, and all that was theirs goes"):
            steps.cancel_runs(story)


def main() -> int:
    """Run it; returns the exit code."""
    guard_streams()  # what pods and servers have said is shown when something fails
    try:
        options = read_options(os.environ)
        helm = list(helms().values())[-1]
    except (Misused, images.NotUnderstood, NoHelm) as error:
        complain(f"e2e: {error}")
        return WRONG
    # A test that is told to stop cleans up, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    name = f"hdgan-e2e-{uuid.uuid4().hex[:8]}"
    with tempfile.TemporaryDirectory(prefix="hdgan-e2e-") as folder:
        try:
            cluster = Cluster(options.kubeconfig, helm, Path(folder) / "helm")
        except HdganError as error:
            complain(f"e2e: {error}")
            return WRONG
        story = Story(
            cluster=cluster,
            steps=Steps(),
            images=options.images,
            namespace=name,
            calm=f"{name}-calm",
            folder=Path(folder),
            patience=options.patience,
            may_update=options.may_update,
        )
        return _judged(story, options.keep)


def _judged(story: Story, keep: bool) -> int:
    code = FAILED
    try:
        take_all(story)
        code = 0
    except (NotSeen, InTheWay, FetchError, HdganError) as error:
        complain(f"\ne2e: FAILED: {error}\n")
        diagnose(story.cluster, (story.namespace, story.calm))
        complain(f"\ne2e: FAILED: {error}")
    except KeyboardInterrupt:
        complain("e2e: stopped")
    finally:
        if keep:
            story.steps.say(f"== KEEP: everything stays, in {story.namespace} and {story.calm}")
            spaces = f"{story.namespace} {story.calm}"
            story.steps.say(f"   kubectl delete namespace {spaces}")
        else:
            try:
                with story.steps.step("cleaning up"):
                    steps.clean_up(story)
            except (NotSeen, HdganError) as error:
                complain(
                    f"e2e: not cleaned up, namespaces {story.namespace}, {story.calm}: {error}"
                )
                code = code or FAILED
    story.steps.say("== all steps passed" if code == 0 else "== FAILED")
    return code


if __name__ == "__main__":
    sys.exit(main())
