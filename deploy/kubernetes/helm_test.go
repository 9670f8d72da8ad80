package kubernetes_test

import (
	"os"
	"os/exec"
	"reflect"
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// TestHelmChart renders the chart with helm and holds it against what kustomize
// makes of one and many: the same pods, and all that holds for those. The
// program HELM takes minutes to build: `make test-helm`.
func TestHelmChart(t *testing.T) {
	helm := os.Getenv("HELM")
	if helm == "" {
		t.Skip("takes a helm: make test-helm")
	}
	for directory, values := range map[string][]string{
		"one": nil,
		"many": {"--set", "registry.secret=badgerelay-registry,config.registry.path=null,config.registry.password_file=/etc/badgerelay-registry/password," +
			"config.registry.url=postgres://badgerelay@db.example.com/badgerelay?sslmode=verify-full&sslrootcert=/etc/badgerelay-registry/ca.crt"},
	} {
		t.Run(directory, func(t *testing.T) {
			m, want := template(t, helm, values...), render(t, directory)
			if len(m.deployment) != 1 || len(m.services) != 2 || len(m.config) != 1 || len(m.network) != 1 {
				t.Fatalf("the chart has %+v", m)
			}
			pod := m.deployment[0].Spec.Template
			checkPod(t, &pod, m.config[0])
			checkSelectors(t, m, pod.Labels)
			if len(m.scaler) != len(want.scaler) || len(m.budget) != len(want.budget) || len(m.volume) != len(want.volume) {
				t.Errorf("%d autoscalers, %d budgets, %d volumes", len(m.scaler), len(m.budget), len(m.volume))
			}
			wantSame(t, "pod", plain(&pod), plain(&want.deployment[0].Spec.Template))
			wantSame(t, "strategy", m.deployment[0].Spec.Strategy, want.deployment[0].Spec.Strategy)
			wantSame(t, "network policy", []any{m.network[0].Spec.Ingress, m.network[0].Spec.Egress}, []any{want.network[0].Spec.Ingress, want.network[0].Spec.Egress})
			wantSame(t, "configuration", settings(t, m.config[0]), settings(t, want.config[0]))
			for i := range m.scaler {
				wantSame(t, "autoscaler", m.scaler[i].Spec, want.scaler[i].Spec)
			}
			for i := range m.volume {
				wantSame(t, "volume", m.volume[i].Spec, want.volume[i].Spec)
			}
		})
	}
	if m := template(t, helm, "--set", "serviceMonitor=true"); len(m.monitor) != 1 {
		t.Errorf("%d service monitors, want one", len(m.monitor))
	}
}

// document is what stands between documents of a stream of YAML.
var document = regexp.MustCompile(`(?m)^---\n`)

// template has helm put the chart together, and reads the outcome strictly.
func template(t *testing.T, helm string, values ...string) *manifests {
	t.Helper()
	args := append([]string{"template", "badgerelay", "../helm/badgerelay", "--kube-version", "1.30.0"}, values...)
	cmd := exec.CommandContext(t.Context(), helm, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("helm %v: %v\n%s", args, err, &stderr)
	}
	m := &manifests{}
	for _, text := range document.Split(string(out), -1) {
		var head struct{ APIVersion, Kind string }
		if err := yaml.Unmarshal([]byte(text), &head); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if head.Kind == "" {
			continue // comments alone
		}
		if err := m.add(head.APIVersion+" "+head.Kind, []byte(text)); err != nil {
			t.Errorf("%s: %v\n%s", head.Kind, err, text)
		}
	}
	return m
}

// plain is what a pod is without what has to differ: its image's tag, the name of
// its configuration, and labels.
func plain(pod *corev1.PodTemplateSpec) corev1.PodSpec {
	spec := *pod.Spec.DeepCopy()
	spec.Containers[0].Image = ""
	for i := range spec.Volumes {
		if spec.Volumes[i].ConfigMap != nil {
			spec.Volumes[i].ConfigMap.Name = ""
		}
	}
	for i := range spec.TopologySpreadConstraints {
		spec.TopologySpreadConstraints[i].LabelSelector = nil
	}
	byName := map[string]corev1.Volume{}
	for _, v := range spec.Volumes {
		byName[v.Name] = v
	}
	mounts := map[string]corev1.VolumeMount{}
	for _, m := range spec.Containers[0].VolumeMounts {
		mounts[m.Name] = m
	}
	spec.Volumes, spec.Containers[0].VolumeMounts = nil, nil
	for _, name := range []string{"config", "tls", "apns", "run", "tmp", "registry"} {
		spec.Volumes = append(spec.Volumes, byName[name])
		spec.Containers[0].VolumeMounts = append(spec.Containers[0].VolumeMounts, mounts[name])
	}
	return spec
}

// settings returns the relay's configuration.
func settings(t *testing.T, config *corev1.ConfigMap) (values any) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(config.Data["badgerelay.yaml"]), &values); err != nil {
		t.Fatal(err)
	}
	return values
}

func wantSame(t *testing.T, what string, got, want any) {
	t.Helper()
	if reflect.DeepEqual(got, want) {
		return
	}
	g, _ := yaml.Marshal(got)  // both were read from YAML
	w, _ := yaml.Marshal(want) // the same
	t.Errorf("%s of the chart:\n%s\nof kustomize:\n%s", what, g, w)
}
