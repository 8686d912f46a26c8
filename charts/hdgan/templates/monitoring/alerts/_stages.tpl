{{/* Processes at work. `pod` stays the same as long as a process does; where there are no pods, there is one process for each stage. */}}
{{- define "hdgan.alerts.stages" -}}
{{- $in := include "hdgan.alerts.pods.scope" . -}}
{{- $limits := .Values.monitoring.prometheusRule.thresholds -}}
{{- $stage := "Stage {{ $labels.stage }} of run {{ $labels.run }}{{ with $labels.namespace }} in namespace {{ . }}{{ end }}" -}}
{{- $log := "{{ with $labels.pod }}kubectl logs {{ . }} --namespace {{ $labels.namespace }}{{ else }}hdgan status, with its run file{{ end }}" -}}
- alert: HdganStageStalled
  expr: |-
    time() - max by (namespace, pod, run, stage) (hdgan_stage_last_progress_timestamp_seconds{ {{- $in -}} }) > {{ $limits.stallMinutes }} * 60
  for: 5m
  labels: {severity: warning}
  annotations:
    summary: {{ printf "%s gets no further" $stage | quote }}
    description: >-
      {{ $stage }} runs, and has not got further for {{ "{{ $value | humanizeDuration }}" }}. On a cluster it is started again
      after resources.stallSeconds of the run. Before that, see what it does: {{ $log }}
- alert: HdganStageSilent
  expr: |-
    max by (namespace, hdgan_io_run, hdgan_io_stage) (up{job={{ include "hdgan.alerts.stagesJob" . | quote }}}) == 0
  for: {{ $limits.silentMinutes }}m
  labels: {severity: warning}
  annotations:
    summary: {{ "Stage {{ $labels.hdgan_io_stage }} of run {{ $labels.hdgan_io_run }} in namespace {{ $labels.namespace }} says nothing" | quote }}
    description: >-
      No pod of stage {{ "{{ $labels.hdgan_io_stage }} of run {{ $labels.hdgan_io_run }} in namespace {{ $labels.namespace }}" }} answers
      Prometheus, so nobody would see that it stalls. See whether it works, and whether NetworkPolicies let Prometheus in:
      kubectl describe pods --namespace {{ "{{ $labels.namespace }}" }} --selector
      {{ "hdgan.io/run={{ $labels.hdgan_io_run }},hdgan.io/stage={{ $labels.hdgan_io_stage }}" }}
- alert: HdganScratchNearlyFull
  expr: |-
    min by (namespace, pod, run, stage) (
      hdgan_scratch_free_bytes{ {{- $in -}} } / (hdgan_scratch_free_bytes{ {{- $in -}} } + hdgan_scratch_used_bytes{ {{- $in -}} })
    ) < {{ $limits.scratchFreeRatio }}
  for: 5m
  labels: {severity: warning}
  annotations:
    summary: {{ printf "%s runs out of scratch" $stage | quote }}
    description: >-
      {{ "{{ $value | humanizePercentage }}" }} of the disk under the scratch of stage
      {{ "{{ $labels.stage }} of run {{ $labels.run }}{{ with $labels.namespace }} in namespace {{ . }}{{ end }}" }} is free. When it
      is full, the stage ends with Unavailable and is tried again. Make room on the node or the volume, or give scratch a larger
      one before the next run: settings.scratch of the chart, --scratch of hdgan run.
{{- end -}}
