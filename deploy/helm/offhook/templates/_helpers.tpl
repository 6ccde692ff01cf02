{{- define "offhook.labels" -}}
app.kubernetes.io/name: offhook
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "offhook.isFleet" -}}
{{- if or (eq .Values.kind "DaemonSet") (gt (int .Values.replicas) 1) }}true{{ end }}
{{- end }}

{{- /* The pod, the same in a StatefulSet and a DaemonSet. */}}
{{- define "offhook.pod" -}}
metadata:
  labels:
    {{- include "offhook.labels" . | nindent 4 }}
  annotations:
    # A pod with another configuration is another pod.
    checksum/config: {{ .Values.config | sha256sum }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  hostNetwork: true
  dnsPolicy: ClusterFirstWithHostNet
  # The node drains for limits.drain_seconds, and ends within five more seconds.
  terminationGracePeriodSeconds: {{ add (int .Values.drainSeconds) 10 }}
  automountServiceAccountToken: false
  # Variables such as OFFHOOK_PORT, which Kubernetes makes from the Service, are no settings.
  enableServiceLinks: false
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    seccompProfile: {type: RuntimeDefault}
  affinity:
    podAntiAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
        - topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "offhook.labels" . | nindent 14 }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: offhook
      image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [serve, --config, /etc/offhook/offhook.toml]
      envFrom:
        - secretRef: {name: {{ .Values.existingSecret | quote }}}
      env:
        - name: HOST_IP
          valueFrom: {fieldRef: {fieldPath: status.hostIP}}
        - name: OFFHOOK_LISTEN__PUBLIC
          value: "0.0.0.0:{{ .Values.ports.http }}"
        - name: OFFHOOK_LISTEN__ADMIN
          value: "$(HOST_IP):{{ .Values.ports.admin }}"
        - name: OFFHOOK_LISTEN__MEDIA
          value: "0.0.0.0:{{ .Values.ports.media }}"
        - name: OFFHOOK_PUBLIC__MEDIA_IPS
          value: {{ .Values.mediaIps | join "," | default "$(HOST_IP)" | quote }}
        {{- /* In the network of a host, the default is the host's name. */}}
        {{- if ne .Values.kind "DaemonSet" }}
        - name: OFFHOOK_CLUSTER__NODE_ID
          valueFrom: {fieldRef: {fieldPath: metadata.name}}
        {{- end }}
        {{- if include "offhook.isFleet" . }}
        - name: OFFHOOK_CLUSTER__PEER
          value: "$(HOST_IP):{{ .Values.ports.peer }}"
        {{- end }}
      ports:
        - {name: http, containerPort: {{ .Values.ports.http }}}
        - {name: admin, containerPort: {{ .Values.ports.admin }}}
      startupProbe:
        httpGet: {path: /livez, port: admin}
        periodSeconds: 2
        failureThreshold: 60
      livenessProbe:
        httpGet: {path: /livez, port: admin}
        periodSeconds: 10
        failureThreshold: 6
      readinessProbe:
        httpGet: {path: /readyz, port: admin}
        periodSeconds: 2
        failureThreshold: 1
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {drop: [ALL]}
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      volumeMounts:
        - {name: config, mountPath: /etc/offhook, readOnly: true}
        - {name: data, mountPath: /var/lib/offhook}
        - {name: tmp, mountPath: /tmp}
  volumes:
    - name: config
      configMap: {name: {{ .Release.Name }}}
    - name: tmp
      emptyDir: {}
    {{- if eq .Values.kind "DaemonSet" }}
    - name: data
      hostPath: {path: {{ .Values.hostPath | quote }}, type: DirectoryOrCreate}
    {{- end }}
{{- end }}
