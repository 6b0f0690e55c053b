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

{{- define "maintenance-os.workerSelector" -}}
app.kubernetes.io/name: maintenance-os
app.kubernetes.io/component: worker
{{- end }}

{{- define "maintenance-os.billingSelector" -}}
app.kubernetes.io/name: maintenance-os
app.kubernetes.io/component: billing
{{- end }}
{{- define "maintenance-os.portalSelector" -}}
app.kubernetes.io/name: maintenance-os
app.kubernetes.io/component: portal
{{- end }}

{{/* "true" where there are workers: not where files lie in the app's pods, which nobody else can read. */}}
{{- define "maintenance-os.workers" -}}
{{- $alone := and (eq .Values.app.storage.mode "local") (not .Values.app.storage.local.claim) -}}
{{- and (gt (int .Values.worker.replicas) 0) (not $alone) -}}
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

{{/* Variables of what the app needs beside PostgreSQL, of .app: Redis, storage, mail, and what links are signed with. */}}
{{- define "maintenance-os.appParts" -}}
# Made by the operator when it first starts; the pod waits for it.
- { name: MOS_SIGNING_KEYS, valueFrom: { secretKeyRef: { name: maintenance-os-keys, key: signing } } }
- { name: MOS_PLAIN_HTTP, value: {{ .plainHttp | quote }} }
{{- with .redis }}
- { name: REDIS_MODE, value: {{ .mode }} }
{{- if eq .mode "standalone" }}
- { name: REDIS_HOST, value: {{ .host | quote }} }
- { name: REDIS_PORT, value: {{ .port | quote }} }
{{- else }}
- { name: REDIS_NODES, value: {{ join "," .nodes | quote }} }
{{- end }}
{{- if eq .mode "sentinel" }}
- { name: REDIS_MASTER_NAME, value: {{ .master | quote }} }
{{- end }}
{{- if .passwordSecret.name }}
- { name: REDIS_PASSWORD, valueFrom: { secretKeyRef: { name: {{ .passwordSecret.name }}, key: {{ .passwordSecret.key }} } } }
{{- end }}
{{- if and (eq .mode "sentinel") .sentinelPasswordSecret.name }}
- { name: REDIS_SENTINEL_PASSWORD, valueFrom: { secretKeyRef: { name: {{ .sentinelPasswordSecret.name }}, key: {{ .sentinelPasswordSecret.key }} } } }
{{- end }}
{{- if .tls.enabled }}
- { name: REDIS_TLS, value: "true" }
{{- if .tls.caSecret.name }}
- { name: REDIS_CA, value: /etc/maintenance-os/redis/ca.crt }
{{- end }}
{{- end }}
- { name: REDIS_DB, value: {{ .databases.default | quote }} }
- { name: REDIS_CACHE_DB, value: {{ .databases.cache | quote }} }
- { name: REDIS_SESSION_DB, value: {{ .databases.sessions | quote }} }
{{- end }}
{{- with .storage }}
- { name: MOS_MAX_UPLOAD_MIB, value: {{ .maxUploadMiB | quote }} }
{{- if ne .mode "none" }}
- { name: MOS_STORAGE, value: {{ .mode }} }
{{- end }}
{{- if eq .mode "local" }}
- { name: MOS_STORAGE_DIRECTORY, value: /var/lib/maintenance-os/storage }
{{- else if eq .mode "s3" }}
- { name: AWS_ACCESS_KEY_ID, valueFrom: { secretKeyRef: { name: {{ .s3.secretName }}, key: AWS_ACCESS_KEY_ID } } }
- { name: AWS_SECRET_ACCESS_KEY, valueFrom: { secretKeyRef: { name: {{ .s3.secretName }}, key: AWS_SECRET_ACCESS_KEY } } }
- { name: AWS_DEFAULT_REGION, value: {{ .s3.region | quote }} }
- { name: AWS_BUCKET, value: {{ .s3.bucket | quote }} }
{{- with .s3.endpoint }}
- { name: AWS_URL, value: {{ . | quote }} }
- { name: MOS_S3_CUSTOM_ENDPOINT, value: "true" }
- { name: MOS_S3_ALLOW_HTTP, value: {{ hasPrefix "http://" . | quote }} }
{{- end }}
{{- end }}
{{- end }}
{{- with .mail }}
{{- with .from }}
- { name: MOS_MAIL_FROM, value: {{ . | quote }} }
{{- end }}
{{- if .urlSecret.name }}
- { name: MOS_SMTP_URL, valueFrom: { secretKeyRef: { name: {{ .urlSecret.name }}, key: {{ .urlSecret.key }} } } }
{{- else if .directory }}
- { name: MOS_MAIL_DIRECTORY, value: /var/lib/maintenance-os/mail }
{{- end }}
{{- end }}
{{- end }}

{{/* TCP ports of Redis and of the storage's endpoint, of .app, for the network policy. */}}
{{- define "maintenance-os.partsPorts" -}}
{{- $ports := list -}}
{{- if eq .redis.mode "standalone" }}{{ $ports = append $ports (int .redis.port) }}{{ end -}}
{{- range .redis.nodes }}{{ $ports = append $ports (last (splitList ":" .) | int) }}{{ end -}}
{{- /* Sentinels and nodes name servers on Redis' own port. */ -}}
{{- if ne .redis.mode "standalone" }}{{ $ports = append $ports 6379 }}{{ end -}}
{{- if and (eq .storage.mode "s3") .storage.s3.endpoint -}}
{{- $url := urlParse .storage.s3.endpoint -}}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" | default (ternary "80" "443" (eq $url.scheme "http")) -}}
{{- $ports = append $ports (int $port) -}}
{{- end -}}
{{- toJson (uniq $ports) -}}
{{- end }}

{{/* TCP port of the endpoint of .backup, for the network policy. */}}
{{- define "maintenance-os.backupPorts" -}}
{{- $ports := list -}}
{{- if .endpoint -}}
{{- $url := urlParse .endpoint -}}
{{- $ports = append $ports (regexFind ":[0-9]+$" $url.host | trimPrefix ":" | default (ternary "80" "443" (eq $url.scheme "http")) | int) -}}
{{- end -}}
{{- toJson $ports -}}
{{- end }}

{{/* Volumes of what the app needs, of the root, and where they are mounted. The root file system is read-only. */}}
{{- define "maintenance-os.appMounts" -}}
- { name: temp, mountPath: /tmp }
{{- if include "maintenance-os.redisCa" .Values.app.redis }}
- { name: redis-ca, mountPath: /etc/maintenance-os/redis, readOnly: true }
{{- end }}
{{- if eq .Values.app.storage.mode "local" }}
- { name: storage, mountPath: /var/lib/maintenance-os/storage }
{{- end }}
{{- if .Values.app.mail.directory }}
- { name: mail, mountPath: /var/lib/maintenance-os/mail }
{{- end }}
{{- end }}
{{- define "maintenance-os.appVolumes" -}}
- { name: temp, emptyDir: {} }
{{- with include "maintenance-os.redisCa" .Values.app.redis }}
- { name: redis-ca, secret: { secretName: {{ . }}, items: [{ key: {{ $.Values.app.redis.tls.caSecret.key }}, path: ca.crt }] } }
{{- end }}
{{- if eq .Values.app.storage.mode "local" }}
- name: storage
  {{- if .Values.app.storage.local.claim }}
  persistentVolumeClaim: { claimName: {{ .Values.app.storage.local.claim }} }
  {{- else }}
  emptyDir: {}
  {{- end }}
{{- end }}
{{- if .Values.app.mail.directory }}
- { name: mail, emptyDir: {} }
{{- end }}
{{- end }}

{{/* Name of the Secret with the authority of Redis' certificates, of .app.redis; empty without one. */}}
{{- define "maintenance-os.redisCa" -}}
{{- if .tls.enabled }}{{ .tls.caSecret.name }}{{ end -}}
{{- end }}
