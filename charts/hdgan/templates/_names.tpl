{{/* Beginning of all names: at most 28 characters, which leaves schedules 12, the first a letter, which Services want; with a digest where something had to give. */}}
{{- define "hdgan.fullname" -}}
{{- $name := .Values.fullnameOverride -}}
{{- if not $name -}}
{{- $name = ternary .Release.Name (printf "%s-hdgan" .Release.Name) (contains "hdgan" .Release.Name) -}}
{{- end -}}
{{- if regexMatch "^[0-9]" $name -}}
{{- $name = printf "hdgan-%s" $name -}}
{{- end -}}
{{- if or (gt (len $name) 28) (contains "." $name) -}}
{{- $name = printf "%s-%s" ($name | replace "." "-" | trunc 19 | trimSuffix "-") ($name | sha256sum | trunc 8) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{/* What selects pods of this release: never changes, whatever the values. Of (dict "root" $ "component" "..."). */}}
{{- define "hdgan.selector" -}}
app.kubernetes.io/name: hdgan
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Labels of what the chart makes. Of (dict "root" $ "component" "..."). */}}
{{- define "hdgan.labels" -}}
{{ include "hdgan.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* An image's reference. Of (dict "root" $ "name" "tiler"). */}}
{{- define "hdgan.image" -}}
{{- $image := index .root.Values.images .name -}}
{{- $registry := $image.registry | default .root.Values.registry | trimSuffix "/" -}}
{{- $path := ternary (printf "%s/%s" $registry $image.repository) $image.repository (ne $registry "") -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $path $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $path ($image.tag | default .root.Values.tag | default .root.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* A stage's name as the chart and Kubernetes write it: ganTrainer, gan-trainer. */}}
{{- define "hdgan.stages" -}}
{"tiler": "tiler", "ganTrainer": "gan-trainer", "candidates": "candidates", "extractor": "extractor", "classifier": "classifier", "dataset": "dataset", "report": "report"}
{{- end -}}

{{/* Name of a ServiceAccount, empty where there is none to be named. Of (dict "root" $ "key" "ganTrainer" "suffix" "gan-trainer"). */}}
{{- define "hdgan.serviceAccount" -}}
{{- $account := index .root.Values.serviceAccounts .key -}}
{{- if $account.create -}}
{{- $account.name | default (printf "%s-%s" (include "hdgan.fullname" .root) .suffix) -}}
{{- else -}}
{{- $account.name -}}
{{- end -}}
{{- end -}}
