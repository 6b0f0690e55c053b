{{- define "maintenance-os.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- define "maintenance-os.adminHost" -}}
{{ .Values.platform.adminHost | default (printf "admin.%s" .Values.platform.baseDomain) }}
{{- end }}

{{- define "maintenance-os.labels" -}}
app.kubernetes.io/name: maintenance-os
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* The selectors never change: a Deployment's cannot. */}}
{{- define "maintenance-os.operatorSelector" -}}
app.kubernetes.io/name: maintenance-os
app.kubernetes.io/component: operator
{{- end }}
{{- define "maintenance-os.appSelector" -}}
app: maintenance-os
app.kubernetes.io/name: maintenance-os
app.kubernetes.io/component: app
{{- end }}

{{/* What the "restricted" level of the Pod Security Standards asks for, and a read-only root file system. */}}
{{- define "maintenance-os.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: { type: RuntimeDefault }
{{- end }}
{{- define "maintenance-os.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end }}

{{- define "maintenance-os.probes" -}}
startupProbe: { httpGet: { path: /healthz, port: health }, periodSeconds: 1, failureThreshold: 60 }
livenessProbe: { httpGet: { path: /healthz, port: health }, periodSeconds: 10, timeoutSeconds: 5 }
readinessProbe: { httpGet: { path: /readyz, port: health }, periodSeconds: 2, timeoutSeconds: 2 }
{{- end }}

{{- define "maintenance-os.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{/* nodeSelector, tolerations, affinity of .operator or .app */}}
{{- define "maintenance-os.placement" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
