{{/* Watched namespaces, each with its stores and what its runs may ask for, as JSON. */}}
{{- define "hdgan.watched" -}}
{{- $watched := list -}}
{{- range .Values.watchNamespaces | default (list (dict "name" .Release.Namespace)) -}}
{{- $watched = append $watched (dict "name" .name "stores" (.stores | default $.Values.stores) "allow" (.allow | default $.Values.allow) "annotations" (.serviceAccountAnnotations | default dict)) -}}
{{- end -}}
{{- toJson $watched -}}
{{- end -}}

{{/* Names of all namespaces in which hdgan's pods may run, as JSON. */}}
{{- define "hdgan.spaces" -}}
{{- $spaces := list .Release.Namespace -}}
{{- range include "hdgan.watched" . | fromJsonArray -}}
{{- $spaces = append $spaces .name -}}
{{- end -}}
{{- $spaces | uniq | toJson -}}
{{- end -}}

{{/* Name of the Secret in the release's namespace with the controller's credentials for a store; empty: an identity of its own. */}}
{{- define "hdgan.controllerSecret" -}}
{{- .controllerSecret | default .existingSecret | default "" -}}
{{- end -}}

{{/* Schedules with their defaults and the name of their CronJob, as JSON. */}}
{{- define "hdgan.schedules" -}}
{{- $first := (include "hdgan.watched" . | fromJsonArray | first).name -}}
{{- $schedules := list -}}
{{- range $name, $given := .Values.schedules -}}
{{- $one := mergeOverwrite (dict "namespace" $first "timeZone" "Etc/UTC" "suspend" false "generator" "pinned" "concurrencyPolicy" "Forbid" "history" (dict "succeeded" 3 "failed" 1)) (deepCopy $given) -}}
{{- $schedules = append $schedules (mergeOverwrite $one (dict "name" $name "object" (printf "%s-%s" (include "hdgan.fullname" $) $name))) -}}
{{- end -}}
{{- toJson $schedules -}}
{{- end -}}

{{/* Names of the namespaces with schedules, as JSON. */}}
{{- define "hdgan.scheduled" -}}
{{- $spaces := list -}}
{{- range include "hdgan.schedules" . | fromJsonArray -}}
{{- $spaces = append $spaces .namespace -}}
{{- end -}}
{{- $spaces | uniq | toJson -}}
{{- end -}}

{{/* Proxy variables. Of (dict "root" $ "direct" "hosts reached without"). */}}
{{- define "hdgan.proxy" -}}
{{- $env := dict -}}
{{- with .root.Values.proxy -}}
{{- if .http -}}{{- $_ := set $env "HTTP_PROXY" .http -}}{{- end -}}
{{- if .https -}}{{- $_ := set $env "HTTPS_PROXY" .https -}}{{- end -}}
{{- if or $env .existingSecret -}}
{{- $domain := $.root.Values.settings.clusterDomain | default "cluster.local" -}}
{{- $_ := set $env "NO_PROXY" (list $.direct "localhost,127.0.0.1,169.254.169.254,169.254.170.23" (printf ".svc,.%s" $domain) .noProxy | compact | join ",") -}}
{{- end -}}
{{- end -}}
{{- toJson $env -}}
{{- end -}}

{{/* The controller's settings file. */}}
{{- define "hdgan.settings" -}}
{{- $namespaces := list -}}
{{- range include "hdgan.watched" . | fromJsonArray -}}
{{- $stores := dict -}}
{{- range $name, $given := .stores -}}
{{- $store := omit $given "existingSecret" "controllerSecret" -}}
{{- with $given.existingSecret -}}{{- $_ := set $store "secret" . -}}{{- end -}}
{{- with include "hdgan.controllerSecret" $given -}}{{- $_ := set $store "credentials" (printf "/etc/hdgan/credentials/%s" .) -}}{{- end -}}
{{- with $given.caConfigMap -}}{{- $_ := set $store "caFile" (printf "/etc/hdgan/authorities/%s/ca.crt" .) -}}{{- end -}}
{{- range $key, $value := $store -}}
{{- if not $value -}}{{- $_ := unset $store $key -}}{{- end -}}
{{- end -}}
{{- $_ := set $stores $name $store -}}
{{- end -}}
{{- $namespaces = append $namespaces (dict "name" .name "stores" $stores "allow" .allow) -}}
{{- end -}}
{{- $images := dict -}}
{{- $services := list "tiler" "ganTrainer" "extractor" "classifier" "synthesizer" -}}
{{- if .Values.report.enabled -}}{{- $services = append $services "desk" -}}{{- end -}}
{{- range $name := $services -}}
{{- $_ := set $images $name (dict "image" (include "hdgan.image" (dict "root" $ "name" $name)) "pullPolicy" ((index $.Values.images $name).pullPolicy | default "IfNotPresent")) -}}
{{- end -}}
{{- $proxy := include "hdgan.proxy" (dict "root" . "direct" "") | fromJson -}}
{{- $own := merge (dict "app.kubernetes.io/instance" .Release.Name) .Values.commonLabels -}}
{{- $pods := dict -}}
{{- range $stage, $suffix := include "hdgan.stages" . | fromJson -}}
{{- $pod := deepCopy (index $.Values.pods $stage | default dict) -}}
{{- with include "hdgan.serviceAccount" (dict "root" $ "key" $stage "suffix" $suffix) -}}{{- $_ := set $pod "serviceAccount" . -}}{{- end -}}
{{- $_ := set $pod "labels" (merge dict $own ($pod.labels | default dict)) -}}
{{- with merge dict ($pod.env | default dict) $proxy -}}{{- $_ := set $pod "env" . -}}{{- end -}}
{{- with compact (append ($pod.envSecrets | default list) ($.Values.proxy.existingSecret | default "")) | uniq -}}{{- $_ := set $pod "envSecrets" . -}}{{- end -}}
{{- $_ := set $pods $stage $pod -}}
{{- end -}}
{{- $made := dict "namespaces" $namespaces "images" $images "pods" $pods "gc" (pick .Values.gc "graceHours" "keepDays" "keepAwaitingDays" "mostPercent") -}}
{{- with .Values.imagePullSecrets -}}{{- $_ := set $made "imagePullSecrets" . -}}{{- end -}}
{{- with .Values.podSecurityContext -}}{{- $_ := set $made "podSecurityContext" . -}}{{- end -}}
{{- $settings := mergeOverwrite (deepCopy .Values.settings) $made -}}
{{- $_ := set $settings "election" (merge (dict "name" (printf "%s-controller" (include "hdgan.fullname" .))) ($settings.election | default dict)) -}}
{{- toYaml $settings -}}
{{- end -}}
