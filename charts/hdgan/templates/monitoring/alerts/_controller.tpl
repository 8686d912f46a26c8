{{/* The controller, and what befalls its Jobs. */}}
{{- define "hdgan.alerts.controller" -}}
{{- $of := printf "job=%q, namespace=%q" (include "hdgan.alerts.job" .) .Release.Namespace -}}
{{- $limits := .Values.monitoring.prometheusRule.thresholds -}}
{{- /* Where an expression loses the namespace, the rule says it: alerts of two releases are not one. */ -}}
{{- $here := .Release.Namespace | quote -}}
{{- $name := printf "%s-controller" (include "hdgan.fullname" .) -}}
{{- $taken := "Preempted|Drained|Disrupted|DisruptedTooOften|TakenBackByQueue|NodeLost|NodeShutDown|NodeRefused|Evicted|PodsGone" -}}
- alert: HdganControllerDown
  expr: {{ printf "absent(up{%s} == 1)" $of | quote }}
  for: 10m
  labels: {severity: critical, namespace: {{ $here }}}
  annotations:
    summary: No hdgan controller answers
    description: >-
      No replica of {{ $name }} in namespace {{ .Release.Namespace }} has answered for 10 minutes. Jobs that run go on;
      nothing new is started. See kubectl describe deployment {{ $name }} --namespace {{ .Release.Namespace }}
- alert: HdganControllerReplicaDown
  expr: {{ printf "up{%s} == 0" $of | quote }}
  for: 15m
  labels: {severity: warning}
  annotations:
    summary: A replica of the hdgan controller does not answer
    description: >-
      {{ "{{ $labels.pod }}" }} in namespace {{ .Release.Namespace }} has not answered for 15 minutes. See kubectl describe
      pod {{ "{{ $labels.pod }}" }} --namespace {{ .Release.Namespace }}
- alert: HdganControllerNotLeading
  expr: {{ printf "max(max_over_time(hdgan_controller_leading{%s}[5m])) == 0" $of | quote }}
  for: 10m
  labels: {severity: critical, namespace: {{ $here }}}
  annotations:
    summary: No replica of the hdgan controller leads
    description: >-
      Replicas of {{ $name }} in namespace {{ .Release.Namespace }} answer, and none has held the Lease for 10 minutes: nothing
      new is started. Who holds it: kubectl describe lease {{ $name }} --namespace {{ .Release.Namespace }}
- alert: HdganNamespaceUnseen
  expr: {{ printf "max by (run_namespace) (last_over_time(hdgan_controller_namespace_seen{%s}[5m])) == 0" $of | quote }}
  for: 10m
  labels: {severity: critical, namespace: {{ $here }}}
  annotations:
    summary: {{ "The hdgan controller cannot see namespace {{ $labels.run_namespace }}" | quote }}
    description: >-
      {{ "Objects in namespace {{ $labels.run_namespace }}" }} could not be listed or watched for 10 minutes: its runs are left alone.
      It may be gone, or the Role of the controller there. See helm test {{ .Release.Name }} --namespace {{ .Release.Namespace }} --logs
- alert: HdganReconcileErrors
  expr: |-
    sum(rate(hdgan_controller_reconciles_total{outcome="error", {{ $of }}}[10m]))
      / sum(rate(hdgan_controller_reconciles_total{ {{- $of -}} }[10m])) > {{ $limits.reconcileErrorRatio }}
  for: 10m
  labels: {severity: warning, namespace: {{ $here }}}
  annotations:
    summary: The hdgan controller fails at looking after runs
    description: >-
      {{ "{{ $value | humanizePercentage }}" }} of the controller's looks at runs end with an error; they are repeated. Its log
      says why: kubectl logs deployment/{{ $name }} --namespace {{ .Release.Namespace }}
- alert: HdganPreemptionStorm
  expr: |-
    sum by (run_namespace, stage) (increase(hdgan_controller_attempts_ended_total{reason=~"{{ $taken }}", {{ $of }}}[1h])) > {{ $limits.preemptionsPerHour }}
  labels: {severity: warning, namespace: {{ $here }}}
  annotations:
    summary: {{ "Stage {{ $labels.stage }} in namespace {{ $labels.run_namespace }} is taken off its nodes again and again" | quote }}
    description: >-
      {{ "{{ $value | humanize }} attempts at stage {{ $labels.stage }} in namespace {{ $labels.run_namespace }}" }} were preempted,
      drained, evicted or lost their node in the last hour. They go on from saved work, as long as they get further at all.
      Give the stage a priority class, nodes of its own or other hours. Which reason, and where:
      kubectl get events --namespace {{ "{{ $labels.run_namespace }}" }}
{{- end -}}
