{{/* The store, as the processes that use it see it. */}}
{{- define "hdgan.alerts.store" -}}
{{- $in := include "hdgan.alerts.pods.scope" . -}}
{{- $limits := .Values.monitoring.prometheusRule.thresholds -}}
- alert: HdganStoreErrors
  expr: |-
    (
      sum by (namespace, pod, instance) (rate(hdgan_store_requests_total{outcome=~"failed|unanswered", {{ $in }}}[10m]))
        / sum by (namespace, pod, instance) (rate(hdgan_store_requests_total{ {{- $in -}} }[10m])) > {{ $limits.storeErrorRatio }}
    ) and (
      sum by (namespace, pod, instance) (increase(hdgan_store_requests_total{outcome=~"failed|unanswered", {{ $in }}}[10m])) > 5
    )
  for: 5m
  labels: {severity: warning}
  annotations:
    summary: {{ "Requests of {{ or $labels.pod $labels.instance }} to the store fail" | quote }}
    description: >-
      {{ "{{ $value | humanizePercentage }} of the requests of {{ or $labels.pod $labels.instance }}{{ with $labels.namespace }} in namespace {{ . }}{{ end }}" }}
      fail in the store or get no answer. They are repeated; a stage that gives up ends with Unavailable and is tried again for about
      half an hour. Look at the store and the way to it: hdgan doctor --store, with its address.
- alert: HdganStoreUnreachable
  expr: |-
    max by (run_namespace, store) (last_over_time(hdgan_controller_store_reachable{ {{- include "hdgan.alerts.runs.scope" . -}} }[5m])) == 0
  for: 10m
  labels: {severity: critical, namespace: {{ .Release.Namespace | quote }}}
  annotations:
    summary: {{ "The controller does not reach store {{ $labels.store }} of namespace {{ $labels.run_namespace }}" | quote }}
    description: >-
      {{ "Store {{ $labels.store }} of namespace {{ $labels.run_namespace }}" }} has not answered the controller for 10 minutes: runs
      there do not go on. Look at the store, its credentials and NetworkPolicies. What the controller says of it:
      kubectl logs deployment/{{ include "hdgan.fullname" . }}-controller --namespace {{ .Release.Namespace }}
{{- end -}}
