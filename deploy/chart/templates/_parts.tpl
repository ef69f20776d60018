{{- define "config-reloader.app" -}}
{{ .Values.canaryOf | default .Release.Name }}
{{- end }}

{{- define "config-reloader.suffix" -}}
{{ if .Values.canaryOf }}-canary{{ end }}
{{- end }}

{{- define "config-reloader.labels" -}}
app.kubernetes.io/name: {{ include "config-reloader.app" . }}
{{- if .Values.canaryOf }}
track: canary
{{- end }}
{{- end }}

{{- define "config-reloader.selected" -}}
app.kubernetes.io/name: {{ include "config-reloader.app" . }}
track: {{ if .Values.canaryOf }}canary{{ else }}stable{{ end }}
{{- end }}

{{- define "config-reloader.dropped" -}}
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
{{- define "config-reloader.reloader" -}}
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

{{- define "config-reloader.sidecar" -}}
- name: reloader
{{- include "config-reloader.reloader" . | nindent 2 }}
{{- if .Values.reloader.native }}
  restartPolicy: Always
{{- end }}
  ports:
    - {name: reloader, containerPort: 9533}
  startupProbe:
    httpGet: {path: /startupz, port: reloader}
    periodSeconds: 1
    failureThreshold: {{ .Values.reloader.startupSeconds }}
  readinessProbe:
    httpGet: {path: /readyz, port: reloader}
    periodSeconds: 5
  livenessProbe:
    httpGet: {path: /healthz, port: reloader}
    periodSeconds: 10
    failureThreshold: 6
{{- end }}
