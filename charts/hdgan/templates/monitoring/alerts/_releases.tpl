{{/* Of each schedule, whether its dataset is released in time. Waiting for a person is no delay of ours, nor is the day after it, when the run goes on. */}}
{{- define "hdgan.alerts.releases" -}}
{{- $grace := .Values.monitoring.prometheusRule.thresholds.releaseGraceHours -}}
{{- range include "hdgan.schedules" . | fromJsonArray -}}
{{- $hours := add (include "hdgan.alerts.gapHours" .schedule | int64) $grace -}}
{{- if hasKey . "maxAgeHours" -}}{{- $hours = .maxAgeHours -}}{{- end -}}
{{- if and (not .suspend) (gt (int64 $hours) 0) }}
{{- $dataset := .spec.dataset | default .name }}
{{- $store := dig "resources" "store" "default" .spec | default "default" }}
{{- $succeeded := printf "hdgan_dataset_last_success_timestamp_seconds{run_namespace=%q, store=%q, dataset=%q}[15m]" .namespace $store $dataset }}
{{- $awaited := printf "max by (run_namespace, dataset) (max_over_time(hdgan_run_phase{run_namespace=%q, dataset=%q, phase=\"AwaitingAnnotation\"}[1d])) == 1" .namespace $dataset }}
- alert: HdganReleaseOverdue
  expr: |-
    (time() - max by (run_namespace, store, dataset) (max_over_time({{ $succeeded }})) > {{ int64 $hours }} * 3600)
      unless on (run_namespace, dataset) ({{ $awaited }})
  for: 15m
  labels: {severity: critical, schedule: {{ .name | quote }}}
  annotations:
    summary: Dataset {{ $dataset }} is overdue
    description: >-
      No run of schedule {{ .name }} in namespace {{ .namespace }} has released dataset {{ $dataset }}, or found it
      unchanged, for {{ "{{ $value | humanizeDuration }}" }}; at most {{ int64 $hours }} hours are expected. Look at its
      last runs: kubectl get datasetruns --namespace {{ .namespace }} --selector hdgan.io/schedule={{ .name }}
- alert: HdganNeverReleased
  expr: |-
    absent_over_time({{ $succeeded }})
      unless on (run_namespace, dataset) ({{ $awaited }})
      and on () (max(max_over_time(hdgan_controller_leading{job={{ include "hdgan.alerts.job" $ | quote }}, namespace={{ $.Release.Namespace | quote }}}[15m])) == 1)
      and on (run_namespace, store) (max by (run_namespace, store) (max_over_time(hdgan_controller_store_reachable[15m])) == 1)
  for: {{ int64 $hours }}h
  labels: {severity: warning, schedule: {{ .name | quote }}}
  annotations:
    summary: Dataset {{ $dataset }} has never been released
    description: >-
      Schedule {{ .name }} in namespace {{ .namespace }} has been there for more than {{ int64 $hours }} hours, and dataset
      {{ $dataset }} has no release. The first one needs a run with generator: train, and somebody who labels its
      candidates. Look at its runs: kubectl get datasetruns --namespace {{ .namespace }}
{{- end }}
{{- end }}
{{- end -}}
