{{/* What ends a run without a dataset, or keeps it waiting. Windows of 15 minutes, because the series of a run on a laptop go with it, and others pause while another controller takes the lead. */}}
{{- define "hdgan.alerts.runs" -}}
{{- $in := include "hdgan.alerts.runs.scope" . -}}
{{- $limits := .Values.monitoring.prometheusRule.thresholds -}}
{{- $run := "Run {{ $labels.run }}{{ with $labels.run_namespace }} in namespace {{ . }}{{ end }}" -}}
{{- $describe := "{{ with $labels.run_namespace }}kubectl describe datasetrun {{ $labels.run }} --namespace {{ . }}{{ else }}hdgan status, with its run file{{ end }}" -}}
{{- /* Runs after which their dataset came out all the same: nobody needs to look at them. */ -}}
{{- $made_up_for := printf "max by (run_namespace, run, dataset) (max_over_time(hdgan_run_finish_time_seconds{%s}[15m])) < on (run_namespace, dataset) group_left () max by (run_namespace, dataset) (max_over_time(hdgan_dataset_last_success_timestamp_seconds{%s}[15m]))" $in $in -}}
- alert: HdganRunFailed
  expr: |-
    (max by (run_namespace, run, dataset, stage, reason) (max_over_time(hdgan_run_failure_info{ {{- $in -}} }[15m])) == 1)
      unless on (run_namespace, run) ({{ $made_up_for }})
  labels: {severity: warning}
  annotations:
    summary: {{ printf "%s has failed" $run | quote }}
    description: >-
      {{ $run }} makes no dataset{{ "{{ with $labels.dataset }} {{ . }}{{ end }}" }}:
      {{ "{{ with $labels.stage }}stage {{ . }}{{ else }}it{{ end }} failed with {{ $labels.reason }}" }}. Its message says what
      to do before a new value of spec.retry lets it go on: {{ $describe }}
- alert: HdganGateFailed
  expr: |-
    (min by (run_namespace, run, dataset, gate) (last_over_time(hdgan_run_gate_passed{ {{- $in -}} }[15m])) == 0)
      unless on (run_namespace, run) ({{ $made_up_for }})
  labels: {severity: warning}
  annotations:
    summary: {{ printf "%s did not pass gate {{ $labels.gate }}" $run | quote }}
    description: >-
      {{ $run }} releases nothing, because gate {{ "{{ $labels.gate }}" }} did not let its dataset through; the last release
      stays. What was measured, against which limit: {{ $describe }}. Then better annotations or another limit, and a new
      value of spec.retry.
- alert: HdganAnnotationOverdue
  expr: |-
    time() - max by (run_namespace, run, dataset) (max_over_time(hdgan_run_awaiting_annotation_since_timestamp_seconds{ {{- $in -}} }[15m])) > {{ $limits.annotationDays }} * 86400
  for: 15m
  labels: {severity: warning}
  annotations:
    summary: {{ printf "%s waits for annotations" $run | quote }}
    description: >-
      {{ $run }} has waited for annotations for {{ "{{ $value | humanizeDuration }}" }}. Somebody has to label its candidates:
      hdgan annotations export, then import. It goes on by itself; if nobody will, hdgan cancel ends it. What is still
      missing: {{ $describe }}
{{- end -}}
