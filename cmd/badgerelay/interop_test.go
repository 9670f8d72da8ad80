package main

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"badgerelay/cmd/badgerelay/internal/config"
)

// TestGenericClient publishes with a client that has no generated code: all it
// knows, it learns from the relay's reflection service.
func TestGenericClient(t *testing.T) {
	relay := startRelay(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	conn := relay.dial(t)
	generic := newReflectionClient(ctx, t, conn)

	services := generic.services()
	for _, want := range []string{"badgerelay.v1.RelayService", "badgerelay.v1.SubscriptionService", "grpc.health.v1.Health"} {
		if !slices.Contains(services, want) {
			t.Errorf("reflection lists %v, want %s among them", services, want)
		}
	}
	if slices.Contains(services, "badgerelay.v1.AdminService") {
		t.Error("the agents' listener shows the operator's service")
	}

	relay.subscribe(t, "generic@fabrikam.com", 1)
	method := generic.method("badgerelay.v1.RelayService", "Publish")
	request, response := dynamicpb.NewMessage(method.Input()), dynamicpb.NewMessage(method.Output())
	if err := protojson.Unmarshal([]byte(`{"agentId":"generic","events":[{"mailbox":"generic@fabrikam.com","unreadCount":7}]}`), request); err != nil {
		t.Fatal(err)
	}
	authorized := metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+relay.token(t))
	if err := conn.Invoke(authorized, "/badgerelay.v1.RelayService/Publish", request, response); err != nil {
		t.Fatalf("publish: %v", err)
	}
	text, err := protojson.Marshal(response)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "OUTCOME_DELIVERED") {
		t.Errorf("publish answered %s, want it delivered", text)
	}
	relay.wantBadge(t, 1, 7)
}

// foreign is a relay with two subscriptions, and what an agent in another language
// is told on its command line.
type foreign struct {
	*enrolled
	key, certificate, audience, schema string
}

func startForeign(t *testing.T) foreign {
	t.Helper()
	r := foreign{enrolled: startRelay(t)}
	r.subscribe(t, "first@fabrikam.com", 1)
	r.subscribe(t, "second@fabrikam.com", 2)
	var err error
	if r.schema, err = filepath.Abs(filepath.Join("..", "..", "proto")); err != nil {
		t.Fatal(err)
	}
	r.key, r.certificate = r.files.path("organization.key"), r.files.path("organization.cer")
	r.audience = new(config.Config).Principal() + "/localhost@" + enrolledOrganization
	return r
}

// wantSettled checks what an agent has printed, and the badges.
func (r foreign) wantSettled(t *testing.T, out string) {
	t.Helper()
	outcomes, renewed := map[string]string{}, false
	for line := range strings.Lines(out) {
		var said struct {
			Mailbox, Outcome string
			Renewed          any
		}
		if err := json.Unmarshal([]byte(line), &said); err != nil {
			t.Fatalf("the agent printed %q: %v", line, err)
		}
		renewed = renewed || said.Renewed != nil
		if said.Mailbox != "" {
			outcomes[said.Mailbox] = said.Outcome
		}
	}
	want := map[string]string{"first@fabrikam.com": "OUTCOME_DELIVERED", "second@fabrikam.com": "OUTCOME_DELIVERED", "nobody@fabrikam.com": "OUTCOME_NO_SUBSCRIPTION"}
	if !maps.Equal(outcomes, want) || !renewed {
		t.Errorf("the token was renewed: %v; outcomes are %v, want %v; the agent printed:\n%s", renewed, outcomes, want, out)
	}
	r.wantBadge(t, 1, 3)
	r.wantBadge(t, 2, 4)
}

var foreignCounts = []string{"first@fabrikam.com=3", "second@fabrikam.com=4", "nobody@fabrikam.com=5"}

// TestAgentOnNode runs the agent of deploy/agents.md with @grpc/grpc-js.
func TestAgentOnNode(t *testing.T) {
	node, npm := realProgram(t, "node"), realProgram(t, "npm")
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("..", "..", "deploy", "agents", "node"))); err != nil {
		t.Fatal(err)
	}
	runProgram(t, dir, npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent")
	r := startForeign(t)
	args := append([]string{"agent.mjs", r.address, r.caFile, r.key, r.certificate, r.audience, r.schema}, foreignCounts...)
	r.wantSettled(t, runProgram(t, dir, node, args...))
}

// TestAgentInPython runs the agent of deploy/agents.md with Debian's grpcio, whose
// protoc knows no editions: the contract is what it was called before.
func TestAgentInPython(t *testing.T) {
	const python = "/usr/bin/python3" // Debian's, which has Debian's modules
	protoc := realProgram(t, "protoc")
	if _, err := os.Stat("/usr/lib/python3/dist-packages/grpc"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("this test needs python3-grpcio: %v", err)
		}
		t.Skipf("this test needs python3-grpcio: %v", err)
	}
	r := startForeign(t)
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("..", "..", "deploy", "agents", "python"))); err != nil {
		t.Fatal(err)
	}
	contract, err := os.ReadFile(filepath.Join(r.schema, "badgerelay", "v1", "relay.proto"))
	if err != nil {
		t.Fatal(err)
	}
	older := regexp.MustCompile(`(?m)^option features\..*$`).ReplaceAll(contract, nil)
	older = bytes.Replace(older, []byte(`edition = "2023";`), []byte(`syntax = "proto3";`), 1)
	if err := os.MkdirAll(filepath.Join(dir, "badgerelay", "v1"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "badgerelay", "v1", "relay.proto"), older, 0o600); err != nil {
		t.Fatal(err)
	}
	runProgram(t, dir, protoc, "-I.", "-I/usr/include", "--python_out=.", "badgerelay/v1/relay.proto")
	args := append([]string{"agent.py", r.address, r.caFile, r.key, r.certificate, r.audience}, foreignCounts...)
	r.wantSettled(t, runProgram(t, dir, python, args...))
}

// realProgram finds a program that the test runs for real. In CI it has to be
// there.
func realProgram(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("this test runs %s, which is not installed", name)
	}
	t.Skipf("this test runs %s, which is not installed", name)
	return ""
}

// runProgram runs a program and returns what it printed.
func runProgram(t *testing.T, dir, program string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", filepath.Base(program), args[0], err, out, &stderr)
	}
	return string(out)
}

// reflectionClient asks a server what it speaks.
type reflectionClient struct {
	t      *testing.T
	stream reflectionpb.ServerReflection_ServerReflectionInfoClient
}

func newReflectionClient(ctx context.Context, t *testing.T, conn grpc.ClientConnInterface) *reflectionClient {
	t.Helper()
	stream, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return &reflectionClient{t, stream}
}

func (c *reflectionClient) ask(request *reflectionpb.ServerReflectionRequest) *reflectionpb.ServerReflectionResponse {
	c.t.Helper()
	if err := c.stream.Send(request); err != nil {
		c.t.Fatal(err)
	}
	response, err := c.stream.Recv()
	if err != nil {
		c.t.Fatal(err)
	}
	return response
}

func (c *reflectionClient) services() []string {
	c.t.Helper()
	response := c.ask(&reflectionpb.ServerReflectionRequest{
		MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{},
	})
	var names []string
	for _, s := range response.GetListServicesResponse().GetService() {
		names = append(names, s.GetName())
	}
	return names
}

// method resolves a method from the files the server hands out.
func (c *reflectionClient) method(service, method protoreflect.Name) protoreflect.MethodDescriptor {
	c.t.Helper()
	response := c.ask(&reflectionpb.ServerReflectionRequest{
		MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: string(service)},
	})
	var set descriptorpb.FileDescriptorSet
	for _, raw := range response.GetFileDescriptorResponse().GetFileDescriptorProto() {
		file := new(descriptorpb.FileDescriptorProto)
		if err := proto.Unmarshal(raw, file); err != nil {
			c.t.Fatal(err)
		}
		set.File = append(set.File, file)
	}
	files, err := protodesc.NewFiles(&set)
	if err != nil {
		c.t.Fatal(err)
	}
	return findMethod(c.t, files, protoreflect.FullName(service), method)
}

func findMethod(t *testing.T, files *protoregistry.Files, service protoreflect.FullName, method protoreflect.Name) protoreflect.MethodDescriptor {
	t.Helper()
	d, err := files.FindDescriptorByName(service)
	if err != nil {
		t.Fatal(err)
	}
	m := d.(protoreflect.ServiceDescriptor).Methods().ByName(method)
	if m == nil {
		t.Fatalf("%s has no method %s", service, method)
	}
	return m
}
