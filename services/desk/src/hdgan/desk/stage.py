"""The stage of this service: the report of a run that has come to rest, kept in the store."""

from __future__ import annotations

from hdgan.core import report_request
from hdgan.core.report_place import (
    desk_version,
    is_current,
    release_report_place,
    report_place,
    with_mark,
)
from hdgan.core.report_request import ReportConfig
from hdgan.core.run import parse_run
from hdgan.core.stage import Stage, StageContext


def write_report(ctx: StageContext) -> None:
    """Render the report and put it where `report_request` says, unless it is there already."""
    config: ReportConfig = ctx.config
    run = parse_run(config.run, "request.config.run")
    name, made_by = run.metadata.name, desk_version()
    if is_current(ctx.store, name, ctx.request.key, made_by):
        ctx.log("the report is there already, and shows just this")
        return
    # Only who renders pays for the pictures.
    from hdgan.desk.report import render_report
    from hdgan.desk.run_artifacts import view_of

    view = view_of(run, ctx.store, config.external, config.outcome, config.message)
    report = with_mark(render_report(view), ctx.request.key, made_by)
    if config.release is not None:
        # First: where the report of the run is, nothing is left to do.
        ctx.store.put_if_absent(release_report_place(name, config.release), report)
    ctx.store.put(report_place(name), report)
    ctx.log(f"report: {ctx.store.url(report_place(name))}", bytes=len(report))


REPORT = Stage(
    name=report_request.STAGE,
    version=report_request.VERSION,
    config=ReportConfig,
    run=write_report,
    artifact=False,
)
