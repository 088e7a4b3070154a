{{/* Names and labels, as every chart has them. */}}
{{- define "agp-agent.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "agp-agent.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "agp-agent.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "agp-agent.selectorLabels" -}}
app.kubernetes.io/name: {{ include "agp-agent.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "agp-agent.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "agp-agent.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "agp-agent.serviceAccountName" -}}
{{- default (ternary (include "agp-agent.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "agp-agent.image" -}}
{{- with .Values.image -}}
{{- if .registry }}{{ .registry }}/{{ end }}{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end -}}

{{/* Without a registry the image would be Docker Hub's, where anybody may have this name. */}}
{{- define "agp-agent.pullPolicy" -}}
{{- .Values.image.pullPolicy | default (ternary "IfNotPresent" "Never" (ne .Values.image.registry "")) -}}
{{- end -}}

{{- define "agp-agent.tokenSecret" -}}
{{- .Values.tokens.existingSecret | default (printf "%s-tokens" (include "agp-agent.fullname" .)) -}}
{{- end -}}

{{- define "agp-agent.catalogConfigMap" -}}
{{- .Values.catalogConfigMap | default (printf "%s-catalog" (include "agp-agent.fullname" .)) -}}
{{- end -}}

{{- define "agp-agent.hasCatalog" -}}
{{- if or .Values.catalog .Values.catalogConfigMap }}yes{{ end -}}
{{- end -}}

{{/* Where the state directory is inside: the same path as on the node, so that the engine finds the playbooks in it. */}}
{{- define "agp-agent.statePath" -}}
{{- if eq .Values.state.type "hostPath" }}{{ .Values.state.hostPath }}{{ else }}/var/lib/agp-agent{{ end -}}
{{- end -}}

{{- define "agp-agent.isUserspace" -}}
{{- if and .Values.tailnet.enabled (eq .Values.tailnet.mode "userspace") }}yes{{ end -}}
{{- end -}}

{{- define "agp-agent.isKernel" -}}
{{- if and .Values.tailnet.enabled (eq .Values.tailnet.mode "kernel") }}yes{{ end -}}
{{- end -}}

{{/* What a schema cannot say: values that contradict one another, each with a sentence. */}}
{{- define "agp-agent.check" -}}
{{- $v := .Values -}}
{{- if not $v.dashboard.url }}{{ fail "dashboard.url: where are results to be sent? Set it to the dashboard's address, such as https://dashboard.example.com." }}{{ end -}}
{{- if and $v.tokens.existingSecret (or $v.tokens.token $v.tokens.dashboardToken) }}{{ fail "tokens: give either existingSecret, or token and dashboardToken, not both." }}{{ end -}}
{{- if and (not $v.tokens.existingSecret) (not (and $v.tokens.token $v.tokens.dashboardToken)) }}{{ fail "tokens: name a Secret with the keys token and dashboard-token in tokens.existingSecret, or set tokens.token and tokens.dashboardToken (`agp-agent token new` makes one)." }}{{ end -}}
{{- if and $v.tokens.token (eq $v.tokens.token $v.tokens.dashboardToken) }}{{ fail "tokens: token and dashboardToken must differ: the two directions never share one." }}{{ end -}}
{{- if and $v.tailnet.enabled $v.exposure.podNetwork }}{{ fail "exposure.podNetwork: with tailnet.enabled only the tailnet reaches the agent; set one of the two to false." }}{{ end -}}
{{- if and (not $v.tailnet.enabled) (not $v.exposure.podNetwork) }}{{ fail "Nobody could reach the agent: set tailnet.enabled, or exposure.podNetwork=true to listen on the pod's address." }}{{ end -}}
{{- if and $v.exposure.hostPort (not $v.exposure.podNetwork) }}{{ fail "exposure.hostPort: needs exposure.podNetwork=true." }}{{ end -}}
{{- if and $v.exposure.podNetwork $v.networkPolicy.enabled (not $v.networkPolicy.from) }}{{ fail "networkPolicy.from: say who may come in, as peers of a NetworkPolicy, or set networkPolicy.enabled=false." }}{{ end -}}
{{- if and $v.tailnet.enabled $v.networkPolicy.from }}{{ fail "networkPolicy.from: with tailnet.enabled nobody comes in over the pod's network; leave it empty." }}{{ end -}}
{{- if and $v.tailnet.enabled (not $v.tailnet.loginServer) }}{{ fail "tailnet.loginServer: which control server is the tailnet's? Set it, such as https://headscale.example.com." }}{{ end -}}
{{- if and $v.tailnet.enabled (not $v.tailnet.authKeySecret) }}{{ fail "tailnet.authKeySecret: name a Secret with the key authkey, a reusable pre-auth key with a tag." }}{{ end -}}
{{- if and (include "agp-agent.isUserspace" .) $v.dashboard.proxy }}{{ fail "dashboard.proxy: with a userspace tailnet the way out is the sidecar's own proxy; leave it empty." }}{{ end -}}
{{- if and $v.podMonitor.enabled (not $v.exposure.podNetwork) }}{{ fail "podMonitor.enabled: Prometheus reaches the agent only with exposure.podNetwork=true." }}{{ end -}}
{{- if and (eq $v.engine.mode "remote") (not (and $v.engine.remote.host $v.engine.remote.tlsSecret)) }}{{ fail "engine.mode remote: set engine.remote.host (tcp://host:2376) and engine.remote.tlsSecret (a Secret with ca.pem, cert.pem and key.pem)." }}{{ end -}}
{{- if and (ne $v.engine.mode "dind") (or $v.engine.dind.imagesPath $v.engine.dind.args) }}{{ fail "engine.dind: is used with engine.mode dind only." }}{{ end -}}
{{- if and (eq $v.engine.mode "dind") (not (or $v.engine.dind.imagesPath $v.catalog $v.catalogConfigMap)) }}{{ fail "engine.mode dind: its engine has no images: set engine.dind.imagesPath (a tar on each node: `docker save agp/runner-shell agp/runner-python agp/runner-ansible agp/fence`), or a catalog whose images are pulled." }}{{ end -}}
{{- if ne (dig "rollingUpdate" "maxSurge" 0 $v.updateStrategy | toString) "0" }}{{ fail "updateStrategy.rollingUpdate.maxSurge: two agents of one node cannot share its state; leave it at 0." }}{{ end -}}
{{- if and (eq $v.engine.mode "hostSocket") (ne $v.state.type "hostPath") }}{{ fail "state.type: with engine.mode hostSocket the node's Docker must find the playbooks: use hostPath." }}{{ end -}}
{{- if and (eq $v.engine.mode "remote") (ne $v.state.type "hostPath") }}{{ fail "state.type: with engine.mode remote what runs outlives the pod, and only its state knows of it: use hostPath." }}{{ end -}}
{{- range $name, $_ := $v.podLabels }}{{ if has $name (list "app.kubernetes.io/name" "app.kubernetes.io/instance") }}{{ fail (printf "podLabels: %s: the pods are selected by it; leave it to the chart." $name) }}{{ end }}{{ end -}}
{{- if and $v.catalog $v.catalogConfigMap }}{{ fail "catalog and catalogConfigMap: give one of the two." }}{{ end -}}
{{- $own := list "agent_id" "host" "port" "interface" "state_dir" "catalog" "dashboard_url" "dashboard_ca_file" "dashboard_proxy" "dashboard_token" "dashboard_token_file" "token" "token_file" "tailscale_socket" "tailscale_allow" "drain_timeout_s" -}}
{{- range $name, $_ := $v.settings }}{{ if has $name $own }}{{ fail (printf "settings.%s: the chart sets this itself; see values.yaml for the value that it is made from." $name) }}{{ end }}{{ end -}}
{{- range $v.extraEnv }}{{ $name := .name | default "" }}{{ if or (has ($name | trimPrefix "AGP_" | lower) $own) (hasPrefix "DOCKER_" $name) }}{{ fail (printf "extraEnv: %s: the chart sets this itself; see values.yaml for the value that it is made from." $name) }}{{ end }}{{ end -}}
{{- end -}}
