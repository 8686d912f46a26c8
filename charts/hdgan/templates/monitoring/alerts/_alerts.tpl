{{/* Whose series of runs and datasets count: those in watched namespaces, and of `hdgan run`, which are in none. */}}
{{- define "hdgan.alerts.runs.scope" -}}
{{- $names := list -}}
{{- range include "hdgan.watched" . | fromJsonArray -}}{{- $names = append $names .name -}}{{- end -}}
{{- printf "run_namespace=~%q" (prepend $names "" | join "|") -}}
{{- end -}}

{{/* Whose series of processes count: those of pods in the release's and in watched namespaces, and of `hdgan run`. */}}
{{- define "hdgan.alerts.pods.scope" -}}
{{- printf "namespace=~%q" (prepend (include "hdgan.spaces" . | fromJsonArray) "" | join "|") -}}
{{- end -}}

{{/* The label job of the controller's metrics. */}}
{{- define "hdgan.alerts.job" -}}
{{- .Values.monitoring.prometheusRule.job | default (printf "%s-controller" (include "hdgan.fullname" .)) -}}
{{- end -}}

{{/* The label job of the stages' metrics: a PodMonitor's is its namespace and name. */}}
{{- define "hdgan.alerts.stagesJob" -}}
{{- .Values.monitoring.prometheusRule.stagesJob | default (printf "%s/%s-stages" .Release.Namespace (include "hdgan.fullname" .)) -}}
{{- end -}}

{{/* Hours between two turns of a schedule at most, as far as its fields say it plainly. */}}
{{- define "hdgan.alerts.gapHours" -}}
{{- $fields := regexSplit " +" (. | replace "?" "*") -1 -}}
{{- if hasPrefix "@" . -}}
{{- get (dict "@hourly" 1 "@daily" 24 "@midnight" 24 "@weekly" 168 "@monthly" 744 "@yearly" 8784 "@annually" 8784) . -}}
{{- else if ne (index $fields 3) "*" -}}8784
{{- else if ne (index $fields 4) "*" -}}168
{{- else if ne (index $fields 2) "*" -}}744
{{- else if ne (index $fields 1) "*" -}}24
{{- else -}}1
{{- end -}}
{{- end -}}

{{/* A group's rules: without those that are disabled, each with its section of the runbook and the labels that all alerts get. Of (dict "root" $ "rules" "..."). */}}
{{- define "hdgan.alerts.finished" -}}
{{- $with := .root.Values.monitoring.prometheusRule -}}
{{- $book := $with.runbookUrl | default (list (.root.Chart.Home | default "" | trimSuffix "/") "docs/alerts.md" | compact | join "/") -}}
{{- $rules := list -}}
{{- range fromYamlArray .rules -}}
{{- if not (has .alert $with.disabled) -}}
{{- $_ := set .annotations "runbook_url" (printf "%s#%s" $book (lower .alert)) -}}
{{- $_ := set . "labels" (merge dict .labels $with.alertLabels) -}}
{{- $rules = append $rules . -}}
{{- end -}}
{{- end -}}
{{- if $rules -}}{{- toYaml $rules -}}{{- end -}}
{{- end -}}
