{{/* Refuses what the schema cannot see, with what to do. */}}
{{- define "hdgan.checks" -}}
{{- $watched := include "hdgan.watched" . | fromJsonArray -}}
{{- $known := dict -}}
{{- range $watched -}}
{{- if hasKey $known .name -}}
{{- fail (printf "watchNamespaces names %s more than once" .name) -}}
{{- end -}}
{{- if not .stores -}}
{{- fail (printf "namespace %s has no store: say where artifacts go, as in --set stores.default.uri=s3://bucket/prefix" .name) -}}
{{- end -}}
{{- $_ := set $known .name .stores -}}
{{- end -}}
{{- range include "hdgan.schedules" . | fromJsonArray -}}
{{- if gt (len .object) 41 -}}
{{- fail (printf "schedules.%s: its CronJob would be named %s, of %d characters, but runs are named after its Jobs, which leaves 41. Use a shorter name of the schedule, or fullnameOverride" .name .object (len .object)) -}}
{{- end -}}
{{- if and $.Values.gc.enabled (eq .name "gc") (eq .namespace $.Release.Namespace) -}}
{{- fail (printf "schedules.gc: its CronJob would be named %s, as the one that collects garbage. Use another name of the schedule" .object) -}}
{{- end -}}
{{- if not (hasKey $known .namespace) -}}
{{- fail (printf "schedules.%s.namespace: %s is not watched; these are: %s" .name .namespace (keys $known | sortAlpha | join ", ")) -}}
{{- end -}}
{{- $store := dig "resources" "store" "default" .spec | default "default" -}}
{{- $stores := index $known .namespace -}}
{{- if not (hasKey $stores $store) -}}
{{- fail (printf "schedules.%s.spec.resources.store: namespace %s has no store %s; declared are: %s" .name .namespace $store (keys $stores | sortAlpha | join ", ")) -}}
{{- end -}}
{{- end -}}
{{- /* Environment variables and ConfigMaps are there to be read by many. */ -}}
{{- $open := dict "proxy" (omit .Values.proxy "existingSecret") "controller.env" .Values.controller.env -}}
{{- range $stage, $pod := .Values.pods -}}
{{- $_ := set $open (printf "pods.%s.env" $stage) (($pod | default dict).env | default dict) -}}
{{- end -}}
{{- range $where, $values := $open -}}
{{- range $name, $value := $values -}}
{{- if regexMatch "://[^/]*@" (toString $value) -}}
{{- fail (printf "%s.%s holds a user or password, which would be readable in pods and ConfigMaps: put it into a Secret and name that in %s" $where $name (ternary "proxy.existingSecret" "envSecrets" (eq $where "proxy"))) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with .Values.networkPolicies -}}
{{- if .enabled -}}
{{- if not (or .store.cidrs .store.to) -}}
{{- fail "networkPolicies.store: without cidrs or to no pod reaches its store. Name its addresses, as in --set 'networkPolicies.store.cidrs={10.1.0.0/16}'" -}}
{{- end -}}
{{- if not .apiServer.cidrs -}}
{{- fail "networkPolicies.apiServer.cidrs: without it the controller does not reach the API server. kubectl get endpointslices --namespace default shows its addresses" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with .Values.monitoring -}}
{{- if and .prometheusRule.enabled (not .serviceMonitor.enabled) (not .prometheusRule.job) -}}
{{- fail "monitoring.prometheusRule: its alerts look for the controller's metrics, which nothing here makes Prometheus read. Set monitoring.serviceMonitor.enabled, or monitoring.prometheusRule.job to the value of their label job" -}}
{{- end -}}
{{- if and .prometheusRule.enabled (not .podMonitor.enabled) (not .prometheusRule.stagesJob) -}}
{{- fail "monitoring.prometheusRule: its alerts look for the stages' metrics, which nothing here makes Prometheus read. Set monitoring.podMonitor.enabled, or monitoring.prometheusRule.stagesJob to the value of their label job" -}}
{{- end -}}
{{- end -}}
{{- end -}}
