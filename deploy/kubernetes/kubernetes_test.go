// Package kubernetes_test reads the manifests and the Helm chart as Kubernetes does:
// in the API's own types. It is a module of its own, for it alone takes those of
// Kubernetes and kustomize.
package kubernetes_test

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// serviceMonitor is the part of the Prometheus operator's type that we use.
type serviceMonitor struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Selector  metav1.LabelSelector `json:"selector"`
		Endpoints []struct {
			Port     string `json:"port"`
			Path     string `json:"path"`
			Interval string `json:"interval"`
		} `json:"endpoints"`
	} `json:"spec"`
}

// manifests is what one directory amounts to, in the API's own types.
type manifests struct {
	namespace  []*corev1.Namespace
	deployment []*appsv1.Deployment
	services   []*corev1.Service
	config     []*corev1.ConfigMap
	volume     []*corev1.PersistentVolumeClaim
	network    []*networkingv1.NetworkPolicy
	budget     []*policyv1.PodDisruptionBudget
	scaler     []*autoscalingv2.HorizontalPodAutoscaler
	monitor    []*serviceMonitor
}

// render has kustomize put a directory together, and reads the outcome
// strictly: a field that the API does not have, or has twice, is an error.
func render(t *testing.T, directory string) *manifests {
	t.Helper()
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), directory)
	if err != nil {
		t.Fatalf("kustomize build %s: %v", directory, err)
	}
	m := &manifests{}
	for _, r := range built.Resources() {
		text, err := r.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		if err := m.add(r.GetApiVersion()+" "+r.GetKind(), text); err != nil {
			t.Errorf("%s: %s %s: %v\n%s", directory, r.GetKind(), r.GetName(), err, text)
		}
		if r.GetKind() != "Namespace" && r.GetNamespace() != "badgerelay" {
			t.Errorf("%s: %s %s is in namespace %q", directory, r.GetKind(), r.GetName(), r.GetNamespace())
		}
	}
	return m
}

func (m *manifests) add(kind string, text []byte) error {
	switch kind {
	case "v1 Namespace":
		return strict(&m.namespace, text)
	case "apps/v1 Deployment":
		return strict(&m.deployment, text)
	case "v1 Service":
		return strict(&m.services, text)
	case "v1 ConfigMap":
		return strict(&m.config, text)
	case "v1 PersistentVolumeClaim":
		return strict(&m.volume, text)
	case "networking.k8s.io/v1 NetworkPolicy":
		return strict(&m.network, text)
	case "policy/v1 PodDisruptionBudget":
		return strict(&m.budget, text)
	case "autoscaling/v2 HorizontalPodAutoscaler":
		return strict(&m.scaler, text)
	case "monitoring.coreos.com/v1 ServiceMonitor":
		return strict(&m.monitor, text)
	}
	return errUnknownKind
}

type kindError string

func (e kindError) Error() string { return string(e) }

const errUnknownKind = kindError("a kind or a version that this test does not know; stable ones only")

func strict[T any](list *[]*T, text []byte) error {
	one := new(T)
	*list = append(*list, one)
	return yaml.UnmarshalStrict(text, one)
}

func TestKubernetesManifests(t *testing.T) {
	for _, directory := range []string{"one", "many"} {
		t.Run(directory, func(t *testing.T) {
			m := render(t, directory)
			if len(m.namespace) != 1 || len(m.deployment) != 1 || len(m.services) != 2 || len(m.config) != 1 || len(m.network) != 1 {
				t.Fatalf("%s has %+v", directory, m)
			}
			pod := m.deployment[0].Spec.Template
			checkPod(t, &pod, m.config[0])
			checkSelectors(t, m, pod.Labels)
			if many := directory == "many"; many != (len(m.scaler) == 1) || many != (len(m.budget) == 1) || many == (len(m.volume) == 1) {
				t.Errorf("%s has %d autoscalers, %d budgets, %d volumes", directory, len(m.scaler), len(m.budget), len(m.volume))
			}
		})
	}
}

// checkPod looks at what "restricted" asks for, and at names that must match.
func checkPod(t *testing.T, pod *corev1.PodTemplateSpec, config *corev1.ConfigMap) {
	t.Helper()
	c := pod.Spec.Containers[0]
	s, p := c.SecurityContext, pod.Spec.SecurityContext
	if !*p.RunAsNonRoot || *p.RunAsUser == 0 || *s.AllowPrivilegeEscalation || !*s.ReadOnlyRootFilesystem ||
		!slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) || p.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("the pod has privileges: %+v, %+v", p, s)
	}
	ports := map[string]int32{}
	for _, port := range c.Ports {
		ports[port.Name] = port.ContainerPort
	}
	var relay struct{ Listen, Metadata, Ops struct{ Address string } }
	if err := yaml.Unmarshal([]byte(config.Data["badgerelay.yaml"]), &relay); err != nil {
		t.Fatal(err)
	}
	for name, address := range map[string]string{"grpc": relay.Listen.Address, "metadata": relay.Metadata.Address, "ops": relay.Ops.Address} {
		if want := fmt.Sprintf("0.0.0.0:%d", ports[name]); address != want {
			t.Errorf("the relay listens on %q for %s, the pod has %s", address, name, want)
		}
	}
	for name, probe := range map[string]*corev1.Probe{"/healthz": c.LivenessProbe, "/readyz": c.ReadinessProbe} {
		if probe.HTTPGet.Path != name || ports[probe.HTTPGet.Port.StrVal] == 0 {
			t.Errorf("probe %+v, want %s on a port of the pod", probe.HTTPGet, name)
		}
	}
	grace := time.Duration(*pod.Spec.TerminationGracePeriodSeconds) * time.Second
	var example struct {
		Drain string `json:"drain_budget"`
	}
	text, err := os.ReadFile("../badgerelay.example.yaml")
	if err == nil {
		err = yaml.Unmarshal(text, &example)
	}
	if err != nil {
		t.Fatal(err)
	}
	drain, err := time.ParseDuration(example.Drain)
	if wait := time.Duration(c.Lifecycle.PreStop.Sleep.Seconds) * time.Second; err != nil || wait+drain+5*time.Second > grace {
		t.Errorf("%s before the drain and %s for it do not fit in %s, %v", wait, drain, grace, err)
	}
	checkVolumes(t, pod, config)
}

func checkVolumes(t *testing.T, pod *corev1.PodTemplateSpec, config *corev1.ConfigMap) {
	t.Helper()
	volumes := map[string]corev1.Volume{}
	for _, v := range pod.Spec.Volumes {
		volumes[v.Name] = v
	}
	for _, mount := range pod.Spec.Containers[0].VolumeMounts {
		v, found := volumes[mount.Name]
		if !found {
			t.Errorf("nothing to mount on %s", mount.MountPath)
		}
		// The relay refuses secrets that others may open, and reads them as fsGroup.
		if v.Secret != nil && (v.Secret.DefaultMode == nil || *v.Secret.DefaultMode&0o047 != 0o040 || pod.Spec.SecurityContext.FSGroup == nil) {
			t.Errorf("the secret %s is not for the relay's group alone: %+v", mount.Name, v.Secret)
		}
		if mount.Name == "config" && (v.ConfigMap == nil || v.ConfigMap.Name != config.Name) {
			t.Errorf("the pod reads %+v, want %s", v.ConfigMap, config.Name)
		}
		delete(volumes, mount.Name)
	}
	if len(volumes) > 0 {
		t.Errorf("volumes that nothing mounts: %v", volumes)
	}
}

// checkSelectors looks whether what selects pods selects these.
func checkSelectors(t *testing.T, m *manifests, labels map[string]string) {
	t.Helper()
	selectors := map[string]map[string]string{
		"deployment": m.deployment[0].Spec.Selector.MatchLabels, "network policy": m.network[0].Spec.PodSelector.MatchLabels,
	}
	for _, s := range m.services {
		selectors["service "+s.Name] = s.Spec.Selector
		for _, port := range []string{"grpc", "metadata"} {
			if !slices.ContainsFunc(s.Spec.Ports, func(p corev1.ServicePort) bool { return p.TargetPort.StrVal == port }) {
				t.Errorf("agents don't get to %s through service %s", port, s.Name)
			}
			if !slices.ContainsFunc(m.network[0].Spec.Ingress[0].Ports, func(p networkingv1.NetworkPolicyPort) bool { return p.Port.StrVal == port }) {
				t.Errorf("the network policy keeps agents from %s", port)
			}
		}
	}
	for _, b := range m.budget {
		selectors["budget"] = b.Spec.Selector.MatchLabels
	}
	for who, selector := range selectors {
		if len(selector) == 0 {
			t.Errorf("%s selects everything", who)
		}
		for k, v := range selector {
			if labels[k] != v {
				t.Errorf("%s selects %s=%s; pods have %v", who, k, v, labels)
			}
		}
	}
	for _, s := range m.scaler {
		if ref := s.Spec.ScaleTargetRef; ref.Kind != "Deployment" || ref.Name != m.deployment[0].Name {
			t.Errorf("the autoscaler scales %+v", ref)
		}
		if m.deployment[0].Spec.Replicas != nil {
			t.Error("the deployment and the autoscaler both say how many")
		}
	}
}

func TestServiceMonitorFindsTheOpsPort(t *testing.T) {
	monitor := render(t, "monitoring").monitor[0]
	found := 0
	for _, s := range render(t, "one").services {
		for k, v := range monitor.Spec.Selector.MatchLabels {
			if s.Labels[k] != v {
				t.Errorf("the monitor does not select service %s with %v", s.Name, s.Labels)
			}
		}
		for _, port := range s.Spec.Ports {
			if port.Name == monitor.Spec.Endpoints[0].Port {
				found++
			}
		}
	}
	if found != 1 {
		t.Errorf("%d services have the port %s, want one", found, monitor.Spec.Endpoints[0].Port)
	}
}
