"""What a kubelet writes into a pod's status."""

from __future__ import annotations

from typing import Any

from cluster.fake_api.metadata import now

Json = dict[str, Any]

TERMINAL = ("Succeeded", "Failed")


def is_terminal(pod: Json) -> bool:
    return pod.get("status", {}).get("phase") in TERMINAL


def wait(pod: Json, reason: str, message: str = "") -> None:
    """On its node, but not started yet, for this reason."""
    waiting = {"reason": reason, **({"message": message} if message else {})}
    pod["status"].setdefault("startTime", now())
    _set_containers(pod, {"waiting": waiting}, ready=False)
    set_condition(pod, "Ready", "False", "ContainersNotReady")


def run(pod: Json) -> None:
    """All containers run."""
    pod["status"]["phase"] = "Running"
    pod["status"].setdefault("startTime", now())
    _set_containers(pod, {"running": {"startedAt": now()}}, ready=True)
    set_condition(pod, "Ready", "True")


def end(pod: Json, exit_code: int, reason: str = "", message: str = "") -> None:
    """All containers have ended like this."""
    states = pod["status"].get("containerStatuses", [])
    started = next((one["state"].get("running", {}).get("startedAt") for one in states), None)
    terminated: Json = {
        "exitCode": exit_code,
        "reason": reason or ("Completed" if exit_code == 0 else "Error"),
        "finishedAt": now(),
    }
    if started:
        terminated["startedAt"] = started
    if message:
        terminated["message"] = message
    pod["status"]["phase"] = "Succeeded" if exit_code == 0 else "Failed"
    _set_containers(pod, {"terminated": terminated}, ready=False)
    set_condition(pod, "Ready", "False", "PodCompleted" if exit_code == 0 else "PodFailed")


def end_unstarted(pod: Json) -> None:
    """Told to stop before any container had started."""
    end(
        pod,
        137,
        "ContainerStatusUnknown",
        "The container could not be located when the pod was terminated",
    )


def _set_containers(pod: Json, state: Json, *, ready: bool) -> None:
    pod["status"]["containerStatuses"] = [
        {
            "name": container["name"],
            "image": container["image"],
            "imageID": "",
            "ready": ready,
            "started": ready,
            "restartCount": 0,
            "state": state,
        }
        for container in pod["spec"]["containers"]
    ]


def set_condition(
    value: Json, type_: str, status: str, reason: str = "", message: str = ""
) -> None:
    """Sets one condition; its time of change stays when its status does."""
    conditions = value.setdefault("status", {}).setdefault("conditions", [])
    had = next((one for one in conditions if one["type"] == type_), None)
    when = had["lastTransitionTime"] if had and had["status"] == status else now()
    new = {"type": type_, "status": status, "lastTransitionTime": when}
    new |= {name: text for name, text in (("reason", reason), ("message", message)) if text}
    if had is None:
        conditions.append(new)
    else:
        conditions[conditions.index(had)] = new


def condition(value: Json, type_: str) -> Json | None:
    """The condition of this type that is True."""
    for one in value.get("status", {}).get("conditions", []):
        if one["type"] == type_ and one["status"] == "True":
            found: Json = one
            return found
    return None
