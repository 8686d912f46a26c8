{{/* Security context of a pod, as the level "restricted" of Pod Security wants it. */}}
{{- define "hdgan.podSecurity" -}}
{{- $security := dict "runAsNonRoot" true "seccompProfile" (dict "type" "RuntimeDefault") -}}
{{- range $name, $value := .Values.podSecurityContext -}}
{{- if ne $value nil -}}{{- $_ := set $security $name $value -}}{{- end -}}
{{- end -}}
{{- toYaml $security -}}
{{- end -}}

{{/* Security context of a container, as the level "restricted" of Pod Security wants it. */}}
{{- define "hdgan.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Sources of the controller's volume: its settings, and what the stores of all namespaces need, each once. */}}
{{- define "hdgan.controllerFiles" -}}
{{- $secrets := list -}}
{{- $authorities := list -}}
{{- range include "hdgan.watched" . | fromJsonArray -}}
{{- range .stores -}}
{{- $secrets = append $secrets (include "hdgan.controllerSecret" .) -}}
{{- $authorities = append $authorities (.caConfigMap | default "") -}}
{{- end -}}
{{- end -}}
- configMap:
    name: {{ include "hdgan.fullname" . }}-controller
{{- range $secrets | compact | uniq | sortAlpha }}
- secret:
    name: {{ . | quote }}
    items:
      - {key: AWS_ACCESS_KEY_ID, path: credentials/{{ . }}/AWS_ACCESS_KEY_ID}
      - {key: AWS_SECRET_ACCESS_KEY, path: credentials/{{ . }}/AWS_SECRET_ACCESS_KEY}
# Of temporary credentials only.
- secret:
    name: {{ . | quote }}
    optional: true
    items:
      - {key: AWS_SESSION_TOKEN, path: credentials/{{ . }}/AWS_SESSION_TOKEN}
{{- end }}
{{- range $authorities | compact | uniq | sortAlpha }}
- configMap:
    name: {{ . | quote }}
    items:
      - {key: ca.crt, path: authorities/{{ . }}/ca.crt}
{{- end }}
{{- end -}}

{{/* Environment of the controller and of what looks at the cluster as it does. */}}
{{- define "hdgan.controllerEnv" -}}
{{- $env := merge dict .Values.controller.env (include "hdgan.proxy" (dict "root" . "direct" "$(KUBERNETES_SERVICE_HOST)") | fromJson) (dict "HOME" "/tmp") -}}
{{- range $name, $value := $env }}
- name: {{ $name | quote }}
  value: {{ $value | quote }}
{{- end }}
{{- end -}}

{{/* The same for what is secret of it: sources of variables, as JSON. */}}
{{- define "hdgan.controllerEnvFrom" -}}
{{- $sources := list -}}
{{- range compact (append .Values.controller.envSecrets (.Values.proxy.existingSecret | default "")) | uniq -}}
{{- $sources = append $sources (dict "secretRef" (dict "name" .)) -}}
{{- end -}}
{{- toJson $sources -}}
{{- end -}}
