package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
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

// TestOtherLanguage streams events with @grpc/grpc-js on Node.js.
func TestOtherLanguage(t *testing.T) {
	node := realProgram(t, "node")
	npm := realProgram(t, "npm")
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("testdata", "grpc-js"))); err != nil {
		t.Fatal(err)
	}
	runProgram(t, dir, npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent")

	relay := startRelay(t)
	relay.subscribe(t, "first@fabrikam.com", 1)
	relay.subscribe(t, "second@fabrikam.com", 2)
	schema, err := filepath.Abs(filepath.Join("..", "..", "proto"))
	if err != nil {
		t.Fatal(err)
	}
	out := runProgram(t, dir, node, "client.mjs", relay.address, relay.caFile, relay.token(t), schema,
		"first@fabrikam.com=3", "second@fabrikam.com=4", "nobody@fabrikam.com=5")

	outcomes := map[string]bool{}
	for line := range strings.Lines(out) {
		var said struct{ Outcomes [][2]any }
		if err := json.Unmarshal([]byte(line), &said); err != nil {
			t.Fatalf("client printed %q: %v", line, err)
		}
		for _, o := range said.Outcomes {
			outcomes[o[1].(string)] = true
		}
	}
	if len(outcomes) != 1 || !outcomes["OUTCOME_NO_SUBSCRIPTION"] {
		t.Errorf("outcomes beside delivered are %v, want NO_SUBSCRIPTION alone; the client printed:\n%s", outcomes, out)
	}
	relay.wantBadge(t, 1, 3)
	relay.wantBadge(t, 2, 4)
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
