{{- define "topolet.labels" -}}
{{ include "topolet.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "topolet.selectorLabels" -}}
app.kubernetes.io/name: topolet
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* The driver's configuration file. */}}
{{- define "topolet.config" -}}
apiVersion: topolet.dev/v1alpha1
kind: Configuration
{{- with .Values.config }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Whether the daemon changes settings of devices: "true" once or more, or empty. */}}
{{- define "topolet.writesDevices" -}}
{{- range .Values.config.devices }}{{ if or .manageBinding (hasKey . "profiles") }}true{{ end }}{{ end }}
{{- end }}

{{/* Whether GPUs are asked how much memory they have: "true" or empty. */}}
{{- define "topolet.asksGPUs" -}}
{{- if .Values.gpuMemory }}
{{- $published := false }}
{{- range .Values.config.devices }}{{ if eq .family "gpu" }}{{ $published = true }}{{ end }}{{ end }}
{{- if not $published }}{{ fail "gpuMemory is true, but config.devices has no family gpu: add {family: gpu} to it, or set gpuMemory to false" }}{{ end -}}
true
{{- end }}
{{- end }}

{{/* The host's folder of programs for FPGAs, or empty. */}}
{{- define "topolet.programs" -}}
{{- range .Values.config.devices }}{{ with .programs }}{{ .folder }}{{ end }}{{ end }}
{{- end }}

{{/* CEL: what kind of capacity the driver publishes, beside huge pages, whose name ends in
their size. The admission policy knows no other. */}}
{{- define "topolet.capacities" -}}
["topolet.dev/cpus", "topolet.dev/tenants", "topolet.dev/memory", "topolet.dev/shares", "topolet.dev/epc"]
{{- end }}

{{/* CEL: the devices of a class of files/devices.yaml. */}}
{{- define "topolet.selector" -}}
device.driver == "topolet.dev" && device.attributes["topolet.dev"].family == {{ .family | quote }} && {{ regexReplaceAll `\ba\.` .where `device.attributes["topolet.dev"].` }}
{{- end }}
