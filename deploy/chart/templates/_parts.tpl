{{- define "app" -}}
{{ .Values.canaryOf | default .Release.Name }}
{{- end }}

{{- define "suffix" -}}
{{ if .Values.canaryOf }}-canary{{ end }}
{{- end }}

{{- define "labels" -}}
app.kubernetes.io/name: {{ include "app" . }}
{{- if .Values.canaryOf }}
track: canary
{{- end }}
{{- end }}

{{- define "selected" -}}
app.kubernetes.io/name: {{ include "app" . }}
track: {{ if .Values.canaryOf }}canary{{ else }}stable{{ end }}
{{- end }}

{{- define "dropped" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- if .Values.restricted }}
runAsNonRoot: true
runAsUser: {{ .Values.user }}
runAsGroup: {{ .Values.user }}
seccompProfile: {type: RuntimeDefault}
{{- end }}
{{- end }}

{{- /* What `once` and the sidecar have in common. */}}
{{- define "reloader" -}}
image: {{ .Values.reloader.image }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  seccompProfile: {type: RuntimeDefault}
{{- if .Values.separateUsers }}
  runAsNonRoot: false
  runAsUser: 0
  capabilities: {drop: [ALL], add: [KILL]} # of use to root alone: ../components/any-uid
{{- else }}
  runAsNonRoot: true
  capabilities: {drop: [ALL]}
{{- end }}
{{- if .Values.restricted }}
  runAsUser: {{ .Values.user }}
  runAsGroup: {{ .Values.user }}
{{- end }}
resources: {{- toYaml .Values.reloader.resources | nindent 2 }}
volumeMounts:
  - {name: reloader, mountPath: /etc/reloader, readOnly: true}
  - {name: site, mountPath: /etc/site, readOnly: true}
  - {name: reloader-state, mountPath: /run/reloader}
  - {name: live, mountPath: /live}
{{- if .Values.vault }}
  - {name: reloader-vault, mountPath: /var/run/secrets/vault, readOnly: true}
{{- end }}
{{- end }}

{{- define "sidecar" -}}
- name: reloader
{{- include "reloader" . | nindent 2 }}
{{- if .Values.reloader.native }}
  restartPolicy: Always
{{- end }}
  ports:
    - {name: reloader, containerPort: 9533}
  startupProbe: # at least twice the longest `failure.startup_grace`
    httpGet: {path: /startupz, port: reloader}
    periodSeconds: 1
    failureThreshold: 120
  readinessProbe:
    httpGet: {path: /readyz, port: reloader}
    periodSeconds: 5
  livenessProbe:
    httpGet: {path: /healthz, port: reloader}
    periodSeconds: 10
    failureThreshold: 6
{{- end }}
