{{- define "badgerelay.labels" -}}
app.kubernetes.io/name: badgerelay
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}
